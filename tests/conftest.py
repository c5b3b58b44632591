"""Fixtures of every suite."""

import signal

import numpy as np
import pytest
import torch

# A shell that starts the tests in the background has them ignore Ctrl-C, and all they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng():
    """A generator of the same numbers each time."""
    return np.random.default_rng(0)


@pytest.fixture
def one_thread():
    """PyTorch on one thread: threads that wait for each other on a busy machine make small networks a hundred times
    slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
