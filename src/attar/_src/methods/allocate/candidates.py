"""Candidates: every tensor at several levels, as a stage rounds it or as pruning leaves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from attar._src.artifact.packing import AUTO
from attar._src.core.tensors import CompressedTensor, Dense, Sparse
from attar._src.methods.allocate.coded_bytes import coded_bytes
from attar._src.methods.allocate.level import Level
from attar._src.methods.prune.masks import Mask, prune_to_count
from attar._src.methods.prune.scores import SCORES, ScoredWeight
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.work.compressed_model import CompressedModel

#: A level -> the model with every chosen tensor at it, such as a run of the stage ``quantize`` with so many bits.
AtLevel = Callable[[Level], CompressedModel]


@dataclass(frozen=True)
class Candidate:
    """A tensor at one level.

    Attributes:
        tensors: it, and those that change with it, such as the corrected bias of its layer; by name.
        bytes: of the tensor itself in a file, entropy-coded.
        beside: bytes of those that change with it.
        macs: multiplications of the whole network for one example; None if they do not change.
    """

    tensors: Mapping[str, CompressedTensor]
    bytes: float
    beside: float = 0.0
    macs: int | None = None


def candidates(
    model: CompressedModel, names: Sequence[str], levels: Sequence[Level], at: AtLevel, coder: str = AUTO
) -> dict[str, dict[Level, Candidate]]:
    """Return tensor -> level -> the candidate, whose bytes are those that ``coder`` makes.

    What else a run of a stage changes belongs to the tensor of the same layer: ``conv1.bias`` to ``conv1.weight``. All
    have as few digits as in a file.
    """
    found: dict[str, dict[Level, Candidate]] = {name: {} for name in names}
    for level in levels:
        changed = changed_tensors(model, names, at(level))
        sizes = coded_bytes({key: each for own in changed.values() for key, each in own.items()}, coder)
        for name, own in changed.items():
            found[name][level] = Candidate(own, sizes[name], sum(sizes[key] for key in own if key != name))
    return found


def changed_tensors(
    model: CompressedModel, names: Sequence[str], made: CompressedModel
) -> dict[str, dict[str, CompressedTensor]]:
    """Return tensor -> it, and what else of its layer is not as in ``model``, with as few digits as in a file."""
    before, after = model.stored(), shorten_numbers(made).stored()
    others = {key: each for key, each in after.items() if key not in names and each is not before.get(key)}
    moved = {key: each for key, each in others.items() if not _equal(each, before.get(key))}
    found = {}
    for name in names:
        owner = name.rpartition(".")[0]
        found[name] = {name: after[name]} | {key: e for key, e in moved.items() if key.rpartition(".")[0] == owner}
    return found


def pruned(model: CompressedModel, names: Sequence[str], level: Level, score: str = "l1") -> CompressedModel:
    """Return the model with the share ``level.value`` of each of these tensors pruned, those with the lowest scores."""
    state, tensors = model.state(), dict(model.tensors)
    for name in names:
        known = tensors.get(name)
        value = state[name] if known is None else torch.from_numpy(np.array(known.dense()))
        mask = Mask(torch.ones_like(value))
        scores = SCORES[score].score(ScoredWeight(value))
        prune_to_count({name: mask}, {name: scores}, round(level.value * value.numel()))
        array, left = np.ascontiguousarray(value.numpy()), mask.mask.numpy()
        tensors[name] = Sparse(left, Dense(array[left]))
    return CompressedModel(model.graphs, tensors)


def _equal(one: CompressedTensor, other: CompressedTensor | None) -> bool:
    return other is not None and np.array_equal(one.dense(), other.dense())
