"""Training after post-training quantization: a learner constrained to the grids of a compressed model."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from attar._src.artifact.manifest import Activation
from attar._src.core.errors import SpecError
from attar._src.core.tensors import Codebook, CompressedTensor, Quantized, round_to_grid
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.polino.uniform import ReadThrough
from attar._src.methods.quantize.qat.fake_quantize import fake_quantize_activation, fake_quantize_weight
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization


def adopt(learner: Learner, before: CompressedModel, after: CompressedModel) -> None:
    """Continue a learner from its compressed model after stages have changed that.

    Quantized weights get their decoded values and a fixed grid: training changes codes, not scales or zero points. A
    grid of a rule in a later stage replaces it. Other tensors are copied. Quantized activations keep their grids.

    Args:
        learner: changed in place.
        before: compressed model of the learner, without folded batch-norms.
        after: ``before`` as changed by stages; tensors that are the same objects in both are skipped.

    Raises:
        SpecError: a weight is stored in a form that cannot be trained.
    """
    changed = {name: tensor for name, tensor in after.tensors.items() if tensor is not before.tensors.get(name)}
    weights = {name: _grid_of(name, tensor) for name, tensor in changed.items() if name in learner.weights}
    own = {**dict(learner.module.named_parameters()), **dict(learner.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in changed.items():
            values = torch.from_numpy(np.array(tensor.dense()))
            if name in own and _reaches_unchanged(learner, name, values):
                own[name].copy_(values)
    activations: dict[str, Parametrization] = {}
    for place in learner.places(weights):
        grids = [after.activations.get(name) for name in place.site.sources]
        if grids[0] is not None and all(grid is not None for grid in grids):
            activations |= dict.fromkeys(place.sources, FixedActivationGrid(grids[0]))
    if weights or activations:
        learner.attach(SolvedGrids(weights, activations))
    learner.record[:] = [dict(each) for each in after.record]


def _reaches_unchanged(learner: Learner, name: str, values: torch.Tensor) -> bool:
    """Return whether the parametrizations before a weight's grid, such as masks, map ``values`` to themselves."""
    reached = values
    for constraint in learner.constraints:
        parametrization = constraint.weights.get(name)
        if parametrization is not None and constraint.order < SolvedGrids.order:
            reached = parametrization(reached)
    return torch.equal(reached, values)


def _grid_of(name: str, tensor: CompressedTensor) -> Parametrization:
    match tensor:
        case Quantized():
            return FixedAffineGrid(tensor)
        case Codebook():
            return FixedCodebook(tensor)
    raise SpecError(
        f"{name!r} is stored as {type(tensor).__name__}, which cannot be trained further; quantize it, or move the "
        "stage that stores it so behind the training"
    )


class FixedAffineGrid(Parametrization):
    """A weight rounded to an affine grid with fixed scales and zero points.

    The gradient passes where the weight is in range (straight-through estimator).

    Args:
        tensor: the grid; its codes are ignored.
    """

    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, tensor: Quantized) -> None:
        super().__init__()
        self.tensor = tensor
        index = tensor.scheme.granularity.index(tensor.shape)
        zero = np.zeros(tensor.scale.shape, np.float32) if tensor.zero_point is None else tensor.zero_point
        self.register_buffer("scale", torch.from_numpy(np.array(tensor.scale[index])))
        self.register_buffer("zero", torch.from_numpy(np.array(zero[index], np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``scale * (clip(round(x / scale) + zero_point, qmin, qmax) - zero_point)``."""
        scheme = self.tensor.scheme
        return fake_quantize_weight(x, self.scale, scheme.qmin - self.zero, scheme.qmax - self.zero)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the codes of ``value`` on the grid."""
        values, tensor = np.ascontiguousarray(value.detach().cpu().numpy()), self.tensor
        return replace(tensor, codes=round_to_grid(values, tensor.scale, tensor.zero_point, tensor.scheme).codes)


class FixedCodebook(Parametrization):
    """A weight rounded to the nearest point of a fixed codebook; the gradient passes unchanged.

    Args:
        tensor: the codebook; its codes are ignored.
    """

    points: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, tensor: Codebook) -> None:
        super().__init__()
        self.tensor, self.order = tensor, np.argsort(tensor.points, kind="stable")
        index = tensor.granularity.index(tensor.shape)
        self.register_buffer("points", torch.from_numpy(tensor.points[self.order]))
        self.register_buffer("scale", torch.from_numpy(np.array(tensor.scale[index])))
        self.register_buffer("offset", torch.from_numpy(np.array(tensor.offset[index])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``scale * point + offset`` with the point nearest to ``(x - offset) / scale``."""
        read: torch.Tensor = ReadThrough.apply(x, self._read)  # type: ignore[no-untyped-call]
        return read

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return the codes of ``value`` in the codebook."""
        codes = self.order[self._nearest(value.detach()).cpu().numpy()].astype(np.uint8)
        return replace(self.tensor, codes=np.ascontiguousarray(codes))

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.points[self._nearest(x)] + self.offset

    def _nearest(self, x: torch.Tensor) -> torch.Tensor:
        at = (x - self.offset) / torch.where(self.scale == 0, 1, self.scale)
        return torch.bucketize(at.contiguous(), (self.points[1:] + self.points[:-1]) / 2)


class FixedActivationGrid(Parametrization):
    """Activations of a site rounded to a fixed grid.

    Args:
        activation: the grid.
    """

    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.register_buffer("scale", torch.tensor(activation.scale, dtype=torch.float32))
        self.register_buffer("zero", torch.tensor(float(activation.zero_point)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid; the gradient passes where ``x`` is in range."""
        return fake_quantize_activation(x, self.scale, self.zero, self.activation.qmin, self.activation.qmax)

    def grid(self, value: str) -> Activation:
        """Return the grid for the value of this name."""
        return self.activation.model_copy(update={"value": value})


class SolvedGrids(Constraint):
    """The fixed grids that :func:`adopt` attaches to a learner."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the model with the biases of integer layers in whole steps, as their kernels add them."""
        return with_integer_biases(piece)
