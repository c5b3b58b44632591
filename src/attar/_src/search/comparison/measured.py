"""What is measured of the files that stand for the methods: all in one run, in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.core.progress import track
from attar._src.measure.cold import cold_start
from attar._src.measure.latency import time_in_turns
from attar._src.measure.machine.energy import TURNS, EnergyCounters, energy_in_turns
from attar._src.measure.machine.hardware import dot_product_instructions, hardware_needed
from attar._src.runtime.session import Session
from attar._src.search.searched_module import SearchedModule

#: Seconds for the timing of each file.
_TIMED = 1.0
#: Fresh processes whose memory is measured, of each file.
_PROCESSES = 3
#: Share of the time that is taken where somebody waits after Ctrl-C.
_QUICK = 0.1


@dataclass(frozen=True)
class MeasuredFiles:
    """Figures of files on this machine.

    Attributes:
        files: name of a file -> ``ms``: median milliseconds of one example on one thread; ``against_floating``:
            quartiles of its time over that of the first file in the same round; ``peak_memory_bytes`` of a fresh
            process that opens it and runs it once, None where the system does not tell; ``cold_start_ms``;
            ``joules`` of one example, None where they cannot be read; ``hardware`` that its time rests on.
        energy: why there are no joules; empty if there are.
        instructions: of this processor for sums of products of bytes; empty if it has none, None if unknown.
    """

    files: Mapping[str, Mapping[str, Any]]
    energy: str
    instructions: str | None


def measure_files(of: SearchedModule, folder: Path, names: Sequence[str], *, quick: bool = False) -> MeasuredFiles:
    """Measure files of one module.

    Args:
        of: the module.
        folder: of the files.
        names: in it; the first is that in floating point.
        quick: measure roughly, in a tenth of the time.
    """
    share = _QUICK if quick else 1.0
    sessions = [Session(folder / name, threads=1, limits=of.limits) for name in names]
    feed = of.example_feed(sessions[0])
    runs = [partial(each.run, feed) for each in sessions]
    times = time_in_turns(runs, seconds=share * _TIMED * len(names))
    ratios = np.percentile(times / times[:, :1], [25, 50, 75], axis=0).T.round(4).tolist()
    counters = EnergyCounters()
    joules: list[float] | list[None] = [None] * len(names)
    if not counters.reason:
        joules = energy_in_turns(runs, counters, turns=1 if quick else TURNS)
    instructions = dot_product_instructions()
    shapes = [(list(array.shape), array.dtype.str) for array in feed.values()]
    found = {}
    for place, name in enumerate(track(names, "memory of fresh processes")):
        cold = cold_start(folder / name, shapes, threads=1, repeats=1 if quick else _PROCESSES, limits=of.limits)
        found[name] = {
            "ms": round(float(np.median(times[:, place])), 5),
            "against_floating": ratios[place],
            "peak_memory_bytes": cold.peak_memory_bytes,
            "cold_start_ms": round(cold.cold_start_ms, 2),
            "joules": joules[place],
            "hardware": hardware_needed(sessions[place].layers_for(feed), instructions),
        }
    return MeasuredFiles(found, counters.reason, instructions)
