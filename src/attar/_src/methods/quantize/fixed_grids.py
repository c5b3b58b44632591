"""Training after post-training quantization: a learner constrained to the grids of a compressed model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import SpecError
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, round_to_grid
from attar._src.methods.quantize.grid_constraint import GridConstraint
from attar._src.methods.quantize.polino.uniform import straight_through
from attar._src.methods.quantize.qat.fake_quantize import fake_quantize_activation, fake_quantize_weight
from attar._src.model.weights import find_weights
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization


def adopt(learner: Learner, before: CompressedModel, after: CompressedModel) -> None:
    """Continue a learner from its compressed model after stages have changed that.

    Quantized weights get their decoded values and a fixed grid: training changes codes, not scales or zero points.
    Other tensors, such as equalized weights that are kept in floating point, are copied. Quantized activations keep
    their grids, and dynamic layers stay dynamic. Values that a mask of an earlier stage changes (a code other than zero
    of a pruned element) are masked, and a warning of the model tells how many.

    Args:
        before: compressed model of the learner, without folded batch-norms.
        after: ``before`` as changed by stages; tensors that are the same objects in both are skipped.

    Raises:
        SpecError: a tensor is stored in a form that cannot be trained, or a parametrization from before does not reach
            its values.
    """
    changed = {name: tensor for name, tensor in after.tensors.items() if tensor is not before.tensors.get(name)}
    weights = {
        name: _grid_of(name, tensor, levels=name in after.schemes)
        for name, tensor in changed.items()
        if name in learner.weights and not isinstance(tensor, Dense)
    }
    for name in changed.keys() - weights.keys():
        if isinstance(changed[name], Quantized | Codebook):
            raise SpecError(
                f"{name!r} multiplies no data, so a training cannot hold it to a grid; move the stage that quantizes "
                "it (overrides) behind the training"
            )
    for sentence in after.warnings:
        learner.warn(sentence)
    own = {**dict(learner.module.named_parameters()), **dict(learner.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in changed.items():
            values = torch.from_numpy(np.array(tensor.dense()))
            if name in own and (found := _reachable(learner, name, values, weights.get(name))) is not None:
                own[name].copy_(found)
                if moved := int((found != values).sum()):
                    learner.warn(
                        f"{name!r}: the mask of an earlier stage sets {moved:,} of its {values.numel():,} elements to "
                        "zero that quantization had moved off it; quantize after the training instead"
                    )
    activations: dict[str, Parametrization] = {}
    nodes = after.main.traced.computed_by()
    for place in learner.places(weights):
        grids = [after.main.activations.get(nodes.get(source, "")) for source in place.sources]
        if grids[0] is not None and all(grid is not None for grid in grids):
            activations |= dict.fromkeys(place.sources, FixedActivationGrid(grids[0]))
    origins = learner.traced.origins
    floating = frozenset(origins[name] for name in after.main.floating if name in origins)
    if weights or activations or floating or after.main.dynamic != before.main.dynamic or after.main.rows:
        constraint = GridConstraint(weights, activations, floating)
        readers = find_weights(after.main.traced.graph).values()
        constraint.dynamic, constraint.rows = (
            frozenset(each.name for each in readers if not which.isdisjoint(each.readers))
            for which in (after.main.dynamic, after.main.rows)
        )
        learner.attach(constraint)
    learner.record[:] = [dict(each) for each in after.record]


def _reachable(learner: Learner, name: str, values: torch.Tensor, grid: Parametrization | None) -> torch.Tensor | None:
    """Return what a weight should be for the parametrizations before its grid to map it to ``values``, or as near as
    masks allow; None if its own value does already, as a normalized one does."""

    def reached(weight: torch.Tensor) -> torch.Tensor:
        for constraint in learner.constraints:
            if name in constraint.weights and constraint.order < GridConstraint.order:
                weight = constraint.weights[name](weight)
        return weight

    masked = reached(values)
    if torch.equal(masked, values):
        return values
    if grid is not None and torch.equal(grid(reached(learner.tensor(name))), values):
        return None
    if torch.equal(reached(masked), masked):
        return masked
    raise SpecError(
        f"{name!r}: what a stage made of it cannot be trained further, as a constraint from before (normalize) changes "
        "these values; move the stage behind the training, or end the constraint before it"
    )


def _grid_of(name: str, tensor: CompressedTensor, *, levels: bool) -> Parametrization:
    match tensor:
        case Quantized() if levels:
            return FixedLevels(tensor)
        case Quantized():
            return FixedAffineGrid(tensor)
        case Codebook():
            return FixedCodebook(tensor)
    raise SpecError(
        f"{name!r} is stored as {type(tensor).__name__}, which cannot be trained further; quantize it, or move the "
        "stage that stores it so behind the training"
    )


class FixedAffineGrid(Parametrization):
    """A weight rounded to the affine grid of ``tensor``; the gradient passes where the weight is in range."""

    def __init__(self, tensor: Quantized) -> None:
        super().__init__()
        self.tensor = tensor
        index = tensor.scheme.granularity.index(tensor.shape)
        zero = np.zeros(tensor.scale.shape, np.float32) if tensor.zero_point is None else tensor.zero_point
        self.scale = nn.Buffer(torch.from_numpy(np.array(tensor.scale[index])))
        self.zero = nn.Buffer(torch.from_numpy(np.array(zero[index], np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scheme = self.tensor.scheme
        return fake_quantize_weight(x, self.scale, scheme.qmin - self.zero, scheme.qmax - self.zero)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        values, tensor = np.ascontiguousarray(value.detach().cpu().numpy()), self.tensor
        return replace(tensor, codes=round_to_grid(values, tensor.scale, tensor.zero_point, tensor.scheme).codes)


class FixedLevels(Parametrization):
    """A weight rounded to the nearest of the codes that ``tensor`` uses; the gradient passes where it is in range."""

    def __init__(self, tensor: Quantized) -> None:
        super().__init__()
        self.tensor = tensor
        self.scale = nn.Buffer(torch.from_numpy(np.array(tensor.scale[tensor.scheme.granularity.index(tensor.shape)])))
        self.levels = nn.Buffer(torch.from_numpy(np.unique(tensor.codes).astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = self.levels[:1] * self.scale, self.levels[-1:] * self.scale
        return straight_through(x.clamp(low, high), lambda value: self._nearest(value) * self.scale)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        codes = self._nearest(value.detach()).cpu().numpy().astype(np.int8)
        return replace(self.tensor, codes=np.ascontiguousarray(codes))

    def _nearest(self, x: torch.Tensor) -> torch.Tensor:
        middles = (self.levels[1:] + self.levels[:-1]) / 2
        return self.levels[torch.bucketize((x / self.scale).contiguous(), middles)]


class FixedCodebook(Parametrization):
    """A weight rounded to the nearest point of the codebook ``tensor``; the gradient passes unchanged."""

    def __init__(self, tensor: Codebook) -> None:
        super().__init__()
        self.tensor, self.order = tensor, np.argsort(tensor.points, kind="stable")
        index = tensor.granularity.index(tensor.shape)
        self.points = nn.Buffer(torch.from_numpy(tensor.points[self.order]))
        self.scale = nn.Buffer(torch.from_numpy(np.array(tensor.scale[index])))
        self.offset = nn.Buffer(torch.from_numpy(np.array(tensor.offset[index])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return straight_through(x, self._read)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        codes = self.order[self._nearest(value.detach()).cpu().numpy()].astype(np.uint8)
        return replace(self.tensor, codes=np.ascontiguousarray(codes))

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.points[self._nearest(x)] + self.offset

    def _nearest(self, x: torch.Tensor) -> torch.Tensor:
        at = (x - self.offset) / torch.where(self.scale == 0, 1, self.scale)
        return torch.bucketize(at.contiguous(), (self.points[1:] + self.points[:-1]) / 2)


class FixedActivationGrid(Parametrization):
    """Activations of a site rounded to a fixed grid; the gradient passes where they are in range."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.scale = nn.Buffer(torch.tensor(activation.scale, dtype=torch.float32))
        self.zero = nn.Buffer(torch.tensor(float(activation.zero_point)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize_activation(x, self.scale, self.zero, self.activation.qmin, self.activation.qmax)

    def grid(self, value: str) -> Activation:
        return self.activation.model_copy(update={"value": value})
