"""``max_ms``: as little is removed as a measured time allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray
from torch import nn

from attar._src.artifact.limits import Limits
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.measure.latency import interleave
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.ranked import RankedChannels
from attar._src.methods.prune.layers.pruning import LayerPruning, RankedLayers
from attar._src.methods.prune.pruned_module import PrunedModule
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo

#: Shares of the multiplications to choose from, and how long each file is timed.
_LEVELS, _SECONDS = 64, 0.5


def layers_in_time(
    ranked: RankedLayers, asked: LayerPruning, time: Callable[[nn.Module], float], most: float
) -> PrunedModule:
    """Return a module without the fewest layers, the lowest scores first, that brings its file to a time.

    Raises:
        SpecError: as :func:`prune_to_latency`.
    """
    return prune_to_latency(
        lambda level: ranked.without(asked.model_copy(update={"macs": None, "layers": level})),
        len(ranked.ranked),
        ranked.module,
        time,
        most,
    )


def channels_in_time(
    ranked: RankedChannels, asked: ChannelPruning, time: Callable[[nn.Module], float], most: float
) -> PrunedModule:
    """Return a module without the fewest multiplications, of 64 shares of what can be removed, that brings its file to
    a time.

    Raises:
        SpecError: as :func:`prune_to_latency`.
    """
    # Rounding must not ask for more than there is.
    largest = ranked.most_macs(asked) * (1 - 1e-6)

    def made(level: int, update: str = "none") -> PrunedModule:
        return ranked.without(asked.model_copy(update={"macs": largest * level / _LEVELS, "update": update}))

    # What other weights become takes no part of the time.
    return prune_to_latency(made, _LEVELS, ranked.module, time, most, last=partial(made, update=asked.update))


def milliseconds_of(
    module: nn.Module, *, captured: CapturedModel, use: FileInfo, data: CalibrationInputs, limits: Limits | None
) -> float:
    """Return the median milliseconds of one example on one thread, of the module's file in floating point."""
    again = capture(module, captured.example, names=captured.names, dynamic=captured.axes, train=False)
    contents = CompressedModel.of(deploy_graph(module, again)).contents(use)
    session = Session(pack(contents, coder="raw", limits=limits), threads=1, limits=limits)
    (latency,) = interleave([partial(session.run, first_example(session, data))], seconds=_SECONDS)
    return latency.median_ms


def first_example(session: Session, data: CalibrationInputs) -> dict[str, NDArray[Any]]:
    """Return the first example as a session takes it; the first batch where its size is fixed."""
    one = data.part(data.batches[0], 0, 1) if isinstance(session.inputs[0].shape[0], str) else data.batches[0]
    return {port.name: each.numpy() for port, each in zip(session.inputs, one, strict=True)}


def prune_to_latency(
    made: Callable[[int], PrunedModule],
    levels: int,
    dense: nn.Module,
    time: Callable[[nn.Module], float],
    most: float,
    *,
    last: Callable[[int], PrunedModule] | None = None,
) -> PrunedModule:
    """Return the module of the least level whose file runs in a time, by bisection.

    Args:
        made: a level from 1 to ``levels``, each of which removes more than the one before -> the pruned module.
        levels: their number.
        dense: the untouched module.
        time: milliseconds of a module.
        most: milliseconds it may take.
        last: level -> the module that is returned, if it is another than ``made``, with the same structure.

    Returns:
        The pruned module, with the figure ``milliseconds``: ``[dense, pruned]``.

    Raises:
        SpecError: the untouched module is in time, or no level is; the message has what was measured.

    Example: dense 10 ms, ``most`` 6 ms, 8 levels of 10, 9, 8, 7, 6, 5, 4, 3 ms: level 8 (3 ms), 4 (7), 6 (5), 5 (6).
    """
    before = time(dense)
    if before <= most:
        raise SpecError(f"max_ms={most:g}: the untouched module takes {before:.3g} ms for one example on one thread")
    low, high, best = 0, levels, made(levels)
    after = time(best.module)
    if after > most:
        raise SpecError(
            f"max_ms={most:g}: without all that can be removed it takes {after:.3g} ms for one example on one thread, "
            f"untouched {before:.3g}. The nearest target is max_ms={1.02 * after:.3g}; kernels may take less for "
            "multiples of channels (round_to=8 or 16), or with whole layers removed (unit='layer')"
        )
    while high - low > 1:
        middle = (low + high) // 2
        tried = made(middle)
        milliseconds = time(tried.module)
        if milliseconds <= most:
            high, best, after = middle, tried, milliseconds
        else:
            low = middle
    return replace(best if last is None else last(high), milliseconds=(before, after))
