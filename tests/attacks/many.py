"""The command line that all fuzzers have: many cases in batches, with a line for each fault and each batch."""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol


class Run(Protocol):
    """Runs cases."""

    def __call__(self, *, seed: int, start: int, cases: int) -> tuple[Counter[str], list[str]]:
        """Return how many cases went how, and one line for each fault."""


def fuzz(about: str, run: Run, show: Callable[[int, int], object], *, cases: int, batch: int) -> int:
    """Run what the command line asks for; return the exit status, 1 where a case failed.

    Args:
        about: the first sentence of the help.
        run: called for ``batch`` cases at a time.
        show: returns what ``--case`` prints of a seed and a case.
        cases: their number if none is given.
        batch: the number of cases after which a line says how far the run is, where ``--start`` goes on.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first case")
    parser.add_argument("--case", type=int, help="one case alone")
    options = parser.parse_args()
    if options.case is not None:
        print(show(options.seed, options.case))
        return 0
    outcomes, count, stop = Counter[str](), 0, options.start + options.cases
    began = time.monotonic()
    for start in range(options.start, stop, batch):
        done = min(stop, start + batch)
        more, faults = run(seed=options.seed, start=start, cases=done - start)
        outcomes, count = outcomes + more, count + len(faults)
        print(*faults, sep="\n", end="\n" if faults else "")
        pace = 1e3 * (time.monotonic() - began) / (done - options.start)
        print(f"up to {done}: {count} faults, {dict(outcomes)}, {pace:.2f} ms a case", flush=True)
    return bool(count)
