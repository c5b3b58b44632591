"""Weights that remain make up for channels that are removed.

A layer of which some input channels are removed reads less, and what it reads was made by layers that changed
themselves. Layer after layer, with x what it read and x' what it reads now, its weight becomes the W' with the least
``E |W x - W' x'|^2`` that is zero at removed channels: optimal brain surgeon
(:mod:`~attar._src.methods.prune.weights.obs`), with one mask for all outputs of a layer, so that one factorization
solves it. Biases take the mean of what is left. He, Zhang and Sun 2017, "Channel pruning for accelerating very deep
neural networks" (arXiv 1707.06168), section 3.1, equation 5, with what is read in the network as it was; here both
networks run in step, so that additions and concatenations of changed values are seen, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from attar._src.core.errors import prefixed_errors
from attar._src.methods.prune.weights.obs import remaining_columns
from attar._src.methods.prune.weights.own_values import OwnValues
from attar._src.methods.prune.weights.row_pruning import SeenInputs
from attar._src.methods.prune.weights.walk import WeightWalk
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.check import of_units
from attar._src.model.dependencies.find import Dependencies
from attar._src.model.trace import deploy_graph
from attar._src.model.weights import find_weights
from attar._src.work.calibration_inputs import CalibrationInputs


@dataclass(frozen=True)
class MadeUp:
    """What weights that remain become.

    Attributes:
        values: parameter -> its new value; what is removed of it has any.
        remarks: what was done otherwise, in sentences: weights that make up for nothing, with the reason.
    """

    values: dict[str, torch.Tensor]
    remarks: str = ""


def make_up(
    module: nn.Module,
    captured: CapturedModel,
    found: Dependencies,
    units: Collection[int],
    inputs: CalibrationInputs,
) -> MadeUp:
    """Return the values with which the module without units errs least, layer by layer.

    Args:
        module: with these units; it stays as it is.
        captured: the module, captured.
        found: what can be removed.
        units: that are.
        inputs: real ones.
    """
    traced = deploy_graph(module, captured)
    own, state = OwnValues(module, captured, traced), traced.state()
    gone = {
        name: of_units(vectors, units)
        for name, vectors in found.state.items()
        if name in state and state[name].shape == tuple(map(len, vectors))
    }
    names = [name for name in find_weights(traced.graph) if name in gone and name not in own.fixed]
    walk = WeightWalk(traced, inputs, names)

    def solved(name: str, seen: SeenInputs | None, aims: torch.Tensor | None) -> torch.Tensor:
        value, cut = state[name], walk.rows[name]
        pruned = cut.rows(gone[name])
        rows = cut.rows(value).double() if aims is None else aims
        if seen is not None:
            rows = rows.clone()
            for group, hessian in enumerate(seen.hessian):
                kept, left = ~pruned[group].all(1), ~pruned[group].all(0)
                if not (kept.any() and left.all()):
                    with prefixed_errors(f"prune at {name!r}"):
                        rows[group, kept] = remaining_columns(rows[group, kept], left, hessian)
        return cut.weight(rows.masked_fill(pruned, 0)).to(value.dtype)

    start = {name: state[name].masked_fill(each, 0) for name, each in gone.items()}
    walk.solve(names, solved, sequential=True, shifts=own.shifts, start=start)
    values = own.of({name: walk.values[name] for name in names if name in own.own}, walk.biases, keep_hidden=True)
    return MadeUp(values, _remarks(walk, gone, own.fixed))


def _remarks(walk: WeightWalk, gone: Mapping[str, torch.Tensor], computed: Mapping[str, str]) -> str:
    """Return in sentences what was done otherwise; empty if nothing was.

    Args:
        walk: over the weights.
        gone: weight -> which of its elements are removed.
        computed: weight that is no parameter -> why it stays.
    """
    stay = dict(computed)
    for name, why in walk.unseen.items():
        rows = walk.rows[name].rows(gone[name])
        if (rows & ~rows.all(2, keepdim=True)).any():
            stay[name] = why
    told = ", ".join(f"{name!r} ({why})" for name, why in stay.items())
    notes = [f"weights that make up for nothing: {told}"] if stay else []
    if walk.apart:
        notes.append(
            "each layer made up for what it lost as if it were alone, as the values of one batch between them take too "
            "much memory; give smaller batches"
        )
    return "; ".join(notes)
