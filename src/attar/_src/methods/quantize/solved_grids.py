"""Training on after post-training quantization: a learner held to the grids that a compressed model has."""

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
    """Let a learner go on from what stages made of its compressed model.

    Weights get the values they were quantized to, and a fixed grid: scales and zero points stay, codes follow the
    weights as they are trained. A rule of a later stage that puts another grid on a weight takes over. Biases and
    other tensors are copied. Quantized activations keep their grids.

    Args:
        learner: changed in place.
        before: its compressed model, without folded batch-norms.
        after: what stages made of ``before``; tensors and grids that are the same objects are left alone.

    Raises:
        SpecError: a weight was given a form that cannot be trained on.
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
    """Return whether what acts on a weight before its grid (masks, say) leaves these values as they are."""
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
        f"{name!r} was stored as {type(tensor).__name__}, which cannot be trained further; quantize it, or "
        "put the stage that stores it so after the training"
    )


class FixedAffineGrid(Parametrization):
    """A weight rounded to an affine grid whose scales and zero points stay as they are.

    The gradient passes where the weight is in range (straight-through estimator).

    Args:
        tensor: the grid; its codes are not used.
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
        given, tensor = np.ascontiguousarray(value.detach().cpu().numpy()), self.tensor
        codes = round_to_grid(given, tensor.scale, tensor.zero_point, tensor.scheme).codes
        return replace(tensor, codes=codes)


class FixedCodebook(Parametrization):
    """A weight read at the nearest point of a codebook that stays as it is; the gradient passes unchanged.

    Args:
        tensor: the codebook; its codes are not used.
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
        """Return ``scale * point + offset`` of the point nearest to ``(x - offset) / scale``."""
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
    """The values of a site rounded to a grid that stays as it is.

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
        """Return ``x`` on the grid; the gradient passes in its range."""
        return fake_quantize_activation(x, self.scale, self.zero, self.activation.qmin, self.activation.qmax)

    def grid(self, value: str) -> Activation:
        """Return the grid under the name ``value``."""
        return self.activation.model_copy(update={"value": value})


class SolvedGrids(Constraint):
    """The fixed grids that :func:`adopt` puts on a learner."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the model with the biases of integer layers in whole steps, as their kernels add them."""
        return with_integer_biases(piece)
