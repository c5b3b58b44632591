"""Linear algebra of numpy on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold numpy's linear algebra to one thread inside the block.

    Solvers factor and multiply thousands of matrices of some hundred rows, which gain little from threads. The threads
    of OpenBLAS wait for each other spinning: where other work takes a core, or a container has fewer than it sees, one
    factor of 576 columns took 2,200 ms on two threads, and 42 ms on one. PyTorch has threads of its own.
    """
    with threadpool_limits(1, user_api="blas"):
        yield
