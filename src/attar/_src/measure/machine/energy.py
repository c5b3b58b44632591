"""Energy of inference, where the machine shows it: Linux counts the energy of x86 packages (powercap, RAPL).

The counters are of whole packages: other work on the machine, and what it takes when idle, are in every figure. Files
are measured in turns, so that both affect all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

#: Where Linux shows its counters; many systems let root alone read them.
POWERCAP = Path("/sys/class/powercap")
#: Seconds of a turn: the counters are renewed about every millisecond.
_TURN = 0.25
#: Turns of each model.
TURNS = 8


class EnergyCounters:
    """The energy counters of the processor packages.

    Args:
        root: folder with ``intel-rapl:0`` and so on, which AMD's processors have, too.

    Attributes:
        reason: why there is nothing to read; empty if there is.

    Example: ``energy_uj`` counts microjoules from 0 to ``max_energy_range_uj``, and begins again.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._counters: dict[Path, int] = {}
        self.reason = f"no energy counters of a processor package in {root}"
        for zone in sorted(root.glob("*-rapl:*")) if root.is_dir() else ():
            try:
                # Zones inside a package (cores, memory) count the same energy once more.
                if not (zone / "name").read_text().startswith("package"):
                    continue
                self._counters[zone / "energy_uj"] = int((zone / "max_energy_range_uj").read_text())
                int((zone / "energy_uj").read_text())
            except (OSError, ValueError) as error:
                self._counters, self.reason = {}, f"{zone / 'energy_uj'}: {getattr(error, 'strerror', None) or error}"
                return
        if self._counters:
            self.reason = ""

    def read(self) -> dict[Path, int]:
        """Return counter -> microjoules."""
        return {path: int(path.read_text()) for path in self._counters}

    def joules_between(self, before: Mapping[Path, int], after: Mapping[Path, int]) -> float:
        """Return the joules from one reading to the next; a counter may have begun again once."""
        spent = 0
        for path, most in self._counters.items():
            each = after[path] - before[path]
            spent += each if each >= 0 else each + most
        return spent / 1e6


def energy_in_turns(
    runs: Sequence[Callable[[], object]],
    counters: EnergyCounters,
    *,
    turns: int = TURNS,
    seconds: float = _TURN,
) -> list[float]:
    """Return the joules that one run of each model takes, the median over turns in random order.

    Args:
        runs: each runs one model once.
        counters: that can be read.
        turns: of each model.
        seconds: of one turn.
    """
    order = np.random.default_rng(0)
    found = np.empty((turns, len(runs)))
    for turn in range(turns):
        for place in order.permutation(len(runs)):
            count, before, started = 0, counters.read(), time.perf_counter()
            while time.perf_counter() - started < seconds:
                runs[place]()
                count += 1
            found[turn, place] = counters.joules_between(before, counters.read()) / count
    joules: list[float] = np.median(found, axis=0).tolist()
    return joules
