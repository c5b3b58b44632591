"""The rule that learns its grids: scales are parameters, trained with the weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.integer_bias import with_integer_biases
from attar._src.methods.quantize.lsq.activation import LsqActivation
from attar._src.methods.quantize.lsq.weight import LsqWeight
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Lsq(Rule):
    """Weights on symmetric grids whose steps are learned with them (Esser et al. 2020, "Learned step size
    quantization").

    With v = w / s, the forward pass is ``s clip(round(v), qmin, qmax)``; the gradient passes to w within the range, and
    to s as

        d/ds = round(v) - v   inside,   qmin or qmax   outside,   times g = 1 / sqrt(N qmax)

    with N the elements that share the step (section 2.2). Steps begin at ``2 mean|w| / sqrt(qmax)`` (section 2.1) of
    the weights as they are, with what earlier constraints have made of them; where some are zero, pruned ones above
    all, the mean is over all that share the step or over the others, whichever leaves the smaller squared error.
    Prefer it to ``quantize`` at 4 bits and fewer: large values may be clipped where that pays. Not to be confused with
    ``quantize``, whose scales follow the weights.

    With ``offset``, what code 0 stands for is learned too (Bhalgat et al. 2020, "LSQ+: Improving low-bit quantization
    through learnable offsets and better initialization", section 3.1): v = (w - b) / s, and ``d/db`` is 0 inside and 1
    outside, times g. b begins at the mean of the weights and s at ``3 sd / 2^(bits - 1)``, theirs for a weight whose
    mean is taken out (section 3.2). Such a weight is a codebook: stored in as few bits, dequantized when the file is
    opened. Zeros that were pruned are not on such a grid.

    ``activations`` lie on unsigned grids with a learned step. Where they go below zero an offset is learned with
    LSQ+'s gradients, rounded to the zero point that integer kernels take. Both begin where the squared error over the
    first batch is least (LSQ+, section 3.2), which each rank looks at for itself until the end of the epoch. N of their
    g is the number of elements of one example (LSQ, section 2.2: the features of the layer).

    Where ``through`` names bits, grids are wider first: at each change the steps (and offsets) begin anew from the
    weights as they are then. The optimizer's momentum of the steps is left as it is. A grid never becomes wider
    again, also in later stages.

    Attributes:
        bits: bits of a weight.
        granularity: which weights share a step, as in ``quantize``; None is one for each index of the weight's own
            output axis.
        narrow_range: leave out the most negative code, so that two bits are -1, 0 and 1.
        keep: globs of layers or weights left in floating point.
        overrides: glob of layers or weights -> bits; of several that match, the last holds.
        through: bits the grids have before, wider first, each for an equal part of the time; a weight whose own bits
            are more keeps these.
        until: the share of the stage by which ``bits`` is reached.
        offset: whether weights have a learned offset.
        activations: bits of an activation, or None to leave activations in floating point.
    """

    name: Literal["lsq"] = "lsq"
    bits: GridBits = 4
    granularity: GranularityChoice = None
    narrow_range: bool = True
    keep: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    through: tuple[GridBits, ...] = ()
    until: Annotated[float, Field(gt=0, lt=1)] = 0.5
    offset: bool = False
    activations: GridBits | None = None

    @model_validator(mode="after")
    def _descends(self) -> Lsq:
        widths = (*self.through, self.bits)
        if any(wide <= narrow for wide, narrow in itertools.pairwise(widths)):
            raise ValueError(f"through {list(self.through)} must go down to bits {self.bits}, wider first")
        return self

    def least(self, progress: float) -> int:
        """Return the bits below which no grid may be yet."""
        if not self.through or progress >= self.until:
            return 0
        return self.through[int(progress / self.until * len(self.through))]

    def attach(self, learner: Learner) -> Constraint:
        """Return the grids of the weights, and the sites, that are chosen.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: a scheme does not fit a weight.
        """
        bits = select_weights(learner, self.bits, self.overrides, keep=self.keep)
        weights, view = {}, learner.weight_view()
        for name, width in bits.items():
            granularity = self.granularity or PerChannel(axis=learner.weights[name].axis)
            scheme = Scheme(bits=width, granularity=granularity, narrow_range=self.narrow_range)
            first = max(width, self.least(0)) if self.through else None
            try:
                weights[name] = LsqWeight(view.effective(name), scheme, shifted=self.offset, first=first)
            except SpecError as error:
                raise SpecError(f"lsq at {name!r}: {error}") from error
        values: dict[str, LsqActivation] = {}
        if self.activations is not None:
            places = learner.places(bits)
            for place in places:
                values |= dict.fromkeys(place.sources, LsqActivation(self.activations))
        return LsqConstraint(self, weights, values)


class LsqConstraint(Constraint):
    """The grids of an :class:`Lsq`."""

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"

    def __init__(
        self,
        rule: Lsq,
        weights: Mapping[str, Parametrization],
        values: Mapping[str, Parametrization],
    ) -> None:
        super().__init__(weights, values)
        self.rule = rule

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Become narrower where it is time, and keep zero on the grids of activations."""
        self._turn(self.rule.least(progress.fraction), weights)
        for grid in self.parametrizations:
            if isinstance(grid, LsqActivation):
                grid.bound()

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Average what each rank began from its own first batch."""
        with torch.no_grad():
            for grid in self.parametrizations:
                if isinstance(grid, LsqActivation):
                    for each in (grid.step, grid.offset, grid.below):
                        each.copy_(mean(each.detach()))
                    grid.below.copy_(grid.below > 0)

    def finalize(self, weights: WeightView) -> None:
        """Reach the bits that are asked, after a stage too short to."""
        self._turn(0, weights)

    def finish(self, piece: CompressedModel) -> CompressedModel:
        """Return the workpiece with the biases of integer layers on the grid that their kernels add on."""
        return with_integer_biases(piece)

    def _turn(self, least: int, weights: WeightView) -> None:
        for name, grid in self.weights.items():
            if isinstance(grid, LsqWeight) and grid.narrows:
                bits = max(least, grid.last.bits)
                if bits < grid.scheme.bits:
                    grid.turn(bits, weights.effective(name, grid))
