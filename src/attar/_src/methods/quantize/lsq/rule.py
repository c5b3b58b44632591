"""The rule ``lsq``: grids whose scales are parameters, trained with the weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from attar._src.core.errors import prefixed_errors
from attar._src.core.scheme import Scheme
from attar._src.core.spec import refusing_at
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.activation_bits import check_own_bits, own_value_bits, site_bits
from attar._src.methods.quantize.field_types import GranularityChoice, GridBits
from attar._src.methods.quantize.grid_constraint import GridConstraint
from attar._src.methods.quantize.lsq.activation import LsqActivation
from attar._src.methods.quantize.lsq.weight import LsqWeight
from attar._src.work.compressed_model import MAIN
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Lsq(Rule):
    """Train weights on symmetric grids with learned steps (Esser et al. 2020, "Learned step size quantization").

    With v = w / s the forward pass is ``s clip(round(v), qmin, qmax)``. The gradient passes to w within the range, and

        d/ds = g (round(v) - v) inside,   g qmin or g qmax outside,   g = 1 / sqrt(N qmax)

    with N the number of elements that share the step (section 2.2). Steps start at ``2 mean|w| / sqrt(qmax)`` (section
    2.1); if some w are zero, such as pruned ones, the mean is over all or over the nonzero elements, whichever gives
    the smaller squared error. At 4 bits and fewer it should be preferred to ``quantize``, whose scales follow the
    weights, because it can clip large values.

    With ``offset``, the value b of code 0 is learned too (Bhalgat et al. 2020, "LSQ+: Improving low-bit quantization
    through learnable offsets and better initialization", section 3.1): v = (w - b) / s, and d/db is 0 inside and g
    outside. b starts at the mean of the weights and s at ``3 sd / 2^(bits - 1)``, the paper's value for zero mean
    (section 3.2). Such a weight is stored as a codebook; pruned zeros are not on its grid.

    ``activations`` get unsigned grids with learned steps, and with learned offsets if they can be negative, rounded to
    the zero points of integer kernels. Both start at the least squared error over the first batch (LSQ+, section 3.2)
    of each rank and are averaged after the epoch. Their N is the number of elements of one example (LSQ, section 2.2).

    With ``through``, grids start wider. At each change, steps and offsets start again from the current weights. A grid
    never becomes wider again, not even in later stages.

    Attributes:
        bits: bits of a weight.
        granularity, keep, keep_activations, overrides, activations, activation_overrides: as in ``quantize``.
        narrow_range: leave out the most negative code, so that 2 bits are -1, 0 and 1.
        through: bits before ``bits``, wider first, for equal shares of the time until ``until``: ``through: [8, 6],
            bits: 4`` is 8 bits for the first quarter of a stage, 6 for the second, then 4. A weight with more bits of
            its own keeps those.
        until: share of the stage after which grids have ``bits``.
        offset: whether weights have a learned offset.
    """

    name: Literal["lsq"] = "lsq"
    bits: GridBits = 4
    granularity: GranularityChoice = None
    narrow_range: bool = True
    keep: tuple[str, ...] = ()
    keep_activations: tuple[str, ...] = ()
    overrides: dict[str, GridBits] = {}
    activation_overrides: dict[str, GridBits] = {}
    through: tuple[GridBits, ...] = ()
    until: Annotated[float, Field(gt=0, lt=1)] = 0.5
    offset: bool = False
    activations: GridBits | None = None

    @model_validator(mode="after")
    def _descends(self) -> Lsq:
        widths = (*self.through, self.bits)
        if any(wide <= narrow for wide, narrow in itertools.pairwise(widths)):
            raise ValueError(f"through {list(self.through)} must be descending and above bits {self.bits}")
        return self

    @model_validator(mode="after")
    def _check_own_bits(self) -> Lsq:
        with refusing_at("activation_overrides"):
            check_own_bits(self.activations, self.activation_overrides)
        return self

    def minimum_bits(self, progress: float) -> int:
        """Return the smallest bits that a grid may have at ``progress`` (0 to 1) of the stage, 0 for any."""
        if not self.through or progress >= self.until:
            return 0
        return self.through[int(progress / self.until * len(self.through))]

    def attach(self, learner: Learner) -> Constraint:
        bits = select_weights(learner, self.bits, self.overrides, keep=self.keep)
        weights, view = {}, learner.weight_view()
        for name, width in bits.items():
            granularity = self.granularity or learner.weights[name].channels
            scheme = Scheme(bits=width, granularity=granularity, narrow_range=self.narrow_range)
            first = max(width, self.minimum_bits(0)) if self.through else None
            with prefixed_errors(f"lsq at {name!r}"):
                weights[name] = LsqWeight(view.effective(name), scheme, shifted=self.offset, first=first)
        values: dict[str, LsqActivation] = {}
        floating = learner.floating_values(self.keep_activations)
        if self.activations is not None:
            own = own_value_bits({MAIN: learner.traced.graph}, self.activation_overrides)[MAIN]
            for place in learner.places(bits, floating):
                width = site_bits(place.site, self.activations, own)
                values |= dict.fromkeys(place.sources, LsqActivation(width))
        return LsqConstraint(self, weights, values, floating)


class LsqConstraint(GridConstraint):
    """The grids of an :class:`Lsq`."""

    def __init__(
        self,
        rule: Lsq,
        weights: dict[str, LsqWeight],
        values: dict[str, LsqActivation],
        floating: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(weights, values, floating)
        self.rule = rule

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Narrow grids on schedule, and keep zero on the grids of activations."""
        self._narrow(self.rule.minimum_bits(progress.fraction), weights)
        for grid in self.parametrizations:
            if isinstance(grid, LsqActivation):
                grid.clamp_offset()

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Average the activations' grids, which each rank initialized from its own first batch."""
        with torch.no_grad():
            for grid in self.parametrizations:
                if isinstance(grid, LsqActivation):
                    for each in (grid.step, grid.offset, grid.below):
                        each.copy_(mean(each.detach()))
                    grid.below.copy_(grid.below > 0)

    def finalize(self, weights: WeightView) -> None:
        """Narrow grids to their final bits if the stage was too short for the schedule."""
        self._narrow(0, weights)

    def _narrow(self, minimum: int, weights: WeightView) -> None:
        for name, grid in self.weights.items():
            if isinstance(grid, LsqWeight) and (bits := max(minimum, grid.last.bits)) < grid.scheme.bits:
                grid.narrow(bits, weights.effective(name, grid))
