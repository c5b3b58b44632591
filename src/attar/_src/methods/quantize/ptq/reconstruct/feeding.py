"""Batches of calibration inputs for reconstruction: shuffled, split, augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from attar._src.core.errors import prefixed_errors
from attar._src.train.augment import Augmentation, apply_endless, apply_finite, count_finite_variants
from attar._src.train.seeds import derive_seed
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs

#: Share of the batches that only judge; from ``FEWEST`` batches on.
HELD_OUT, FEWEST = 1 / 8, 4
#: Examples of a part that judges, at least: errors are relative to the spread of a part.
_SMALLEST = 4


def shuffled(inputs: CalibrationInputs, batch: int, seed: int) -> CalibrationInputs:
    """Return the examples in random order in batches of at most ``batch``.

    Where examples of different batches differ in shape, as padded sentences do, batches stay together.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = inputs.batch_axes
    shapes = {
        tuple((*x.shape[:a], *x.shape[a + 1 :]) for x, a in zip(each, axes, strict=True)) for each in inputs.batches
    }
    if len(shapes) > 1:
        parts = inputs.in_parts(batch).batches
        return replace(
            inputs, batches=tuple(parts[k] for k in torch.randperm(len(parts), generator=generator)), targets=()
        )
    joined = tuple(map(torch.cat, zip(*inputs.batches, strict=True), axes))
    order = torch.randperm(joined[0].shape[axes[0]], generator=generator)
    mixed = tuple(x.index_select(axis, order) for x, axis in zip(joined, axes, strict=True))
    return replace(inputs, batches=(mixed,), targets=()).in_parts(batch)


def held_out(inputs: CalibrationInputs) -> int:
    """Return how many of the last batches judge and are not trained on; 0 if there are few: then all do both."""
    count = len(inputs.batches)
    return max(1, round(count * HELD_OUT)) if count >= FEWEST else 0


def in_small_parts(inputs: CalibrationInputs, count: int) -> tuple[CalibrationInputs, int]:
    """Return inputs whose ``count`` last batches, which judge, are quarters, so that they tell more; and their number.

    ``parts_that_judge`` tells which they are.
    """
    cut = len(inputs.batches) - count
    last = replace(inputs, batches=inputs.batches[cut:], targets=())
    parts = [part for each in last.batches for part in _quarters(last, each)] if count else []
    return replace(inputs, batches=(*inputs.batches[:cut], *parts), targets=()), len(parts)


def parts_that_judge(count: int, held_out: int) -> tuple[range, range]:
    """Return the places of batches that are trained on and compared, too, and of those that judge.

    Args:
        count: of all batches.
        held_out: how many of the last only judge; with 0, all do both.
    """
    trained = count - held_out
    return range(min(trained, max(held_out // 2, 1)) if held_out else count), range(trained if held_out else 0, count)


def _quarters(inputs: CalibrationInputs, batch: BatchInputs) -> list[BatchInputs]:
    size = max(_SMALLEST, inputs.count(batch) // 4)
    return [inputs.part(batch, at, at + size) for at in range(0, inputs.count(batch), size)]


def endless_batches(
    inputs: CalibrationInputs, batch: int, augment: Sequence[Augmentation], seed: int, *, mixes: bool
) -> Iterator[BatchInputs]:
    """Yield batches without end, in a new order after each pass; the first input is augmented.

    Args:
        mixes: whether examples may change batches; a graph with a fixed batch size takes the batches as they are.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "augment"))
    count, passes = count_finite_variants(augment), 0
    while True:
        order = torch.randperm(len(inputs.batches), generator=generator).tolist()
        again = (
            shuffled(inputs, batch, derive_seed(seed, passes)).batches if mixes else [inputs.batches[k] for k in order]
        )
        for first, *others in again:
            if augment:
                with prefixed_errors("stage reconstruct: augment"):
                    first = apply_finite(augment, first, torch.randint(count, (len(first),), generator=generator))
                    first = apply_endless(augment, first, generator)
            yield (first, *others)
        passes += 1
