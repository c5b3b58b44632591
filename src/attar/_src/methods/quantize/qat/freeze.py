"""The rule that freezes oscillating weights at their mean code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.methods.layer_selection import select_weights
from attar._src.methods.quantize.grid_constraint import positions_on_grids
from attar._src.train.schedule import Schedule, Scheduled, value_at
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.parametrization import GridPositions, Parametrization
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView


class Freeze(Rule):
    """Freeze a weight at one code once its code oscillates too often (Nagel et al. 2022, "Overcoming oscillations in
    quantization-aware training", section 4.3).

    Before every step, with q the code of a weight and D the direction of its last change,

        o = 1 if q changed against D, else 0;    f <- m o + (1 - m) f;    e <- m q + (1 - m) e

    and a weight with f > threshold is frozen at code ``round(e)``, whatever the optimizer does to it. Its step is still
    learned from the other weights. The rule acts behind masks (a zero stays zero) and before a grid, which must be
    attached already: list it after ``lsq`` or ``quantize``. Narrowing or replacing the grid unfreezes all weights.

    Attributes:
        threshold: threshold of f, 0 to 1; it should fall over the stage, as the default does, so that few weights are
            frozen early.
        momentum: m.
        keep: globs of layers or weights that are never frozen.
    """

    after_grid: ClassVar[bool] = True

    name: Literal["freeze"] = "freeze"
    threshold: Scheduled = Schedule(start=0.04, stop=0.01, shape="cosine")
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.01
    keep: tuple[str, ...] = ()

    def attach(self, learner: Learner) -> Constraint:
        gridded = positions_on_grids(learner, "freeze")
        chosen = select_weights(learner, True, {}, keep=self.keep)
        weights = {name: FrozenWeight(learner.tensor(name).detach()) for name in chosen if name in gridded}
        if not weights:
            raise SpecError("freeze: no weight is on an evenly spaced grid but those in keep; remove one from keep")
        return FreezeConstraint(self, weights)


class FrozenWeight(Parametrization):
    """A weight with some frozen elements. Buffers have the weight's shape, ``top`` is 0-d.

    Attributes:
        codes: code before the last step, or the frozen code.
        direction: sign of the last change of code, 0 before the first.
        frequency, mean: running frequency of oscillation, running mean of the code.
        frozen: whether an element is frozen.
        top: largest code of the grid that these refer to; 0 before the first step on a grid.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        # In a list, because its parameters must not be registered here too.
        self._grid: list[Parametrization] = []
        # int32, because Gloo, which connects ranks on CPUs, lacks int16.
        self.codes = nn.Buffer(torch.zeros_like(weight, dtype=torch.int32))
        self.direction = nn.Buffer(torch.zeros_like(weight, dtype=torch.int8))
        self.frequency = nn.Buffer(torch.zeros_like(weight))
        self.mean = nn.Buffer(torch.zeros_like(weight))
        self.frozen = nn.Buffer(torch.zeros_like(weight, dtype=torch.bool))
        self.top = nn.Buffer(torch.tensor(0))

    def rebind(self, grid: Parametrization) -> None:
        """Act before ``grid`` from now on. A new grid unfreezes all elements, because codes belong to the old one."""
        if [grid] != self._grid:
            self._grid = [grid]
            self.top.zero_()
            self.frozen.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, frozen elements at the centre of their code and without gradient."""
        positions = self._positions(x)
        if positions is None:
            return x
        fixed = self.frozen & (x != 0) & (self.top == positions.high)
        with torch.no_grad():
            near = torch.where(fixed, x + (self.codes - positions.at) * positions.scale, x)
            # Rounded by the grid itself, because one float beyond the last code would count as clipped.
            read = self._grid[0](near)
        return torch.where(fixed, read, x)

    def watch(self, value: torch.Tensor, threshold: float, momentum: float) -> None:
        """Update the statistics with the codes of ``value``, and freeze elements above ``threshold``."""
        positions = self._positions(value)
        if positions is None:
            return
        now = positions.codes()
        if int(self.top) != positions.high:
            self.top.fill_(positions.high)
            self.codes.copy_(now)
            self.mean.copy_(now)
            for each in (self.direction, self.frequency, self.frozen):
                each.zero_()
            return
        now = torch.where(self.frozen, self.codes, now)
        change = (now - self.codes).sign()
        self.frequency.lerp_((change * self.direction < 0).to(self.frequency), momentum)
        self.mean.lerp_(now, momentum)
        self.direction.copy_(torch.where(change != 0, change, self.direction))
        swings = (self.frequency > threshold) & ~self.frozen
        self.codes.copy_(torch.where(swings, self.mean.round(), now))
        self.frozen.logical_or_(swings)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        # In practice the grid behind this stores the weight.
        return Dense(self(value).detach().cpu().numpy().copy())

    def _positions(self, value: torch.Tensor) -> GridPositions | None:
        """Return the positions of ``value`` on the grid, without gradient; None without an evenly spaced grid."""
        with torch.no_grad():
            return self._grid[0].grid_positions(value.detach()) if self._grid else None


class FreezeConstraint(Constraint):
    """The frozen weights of a :class:`Freeze`; its order is that of masks, which are attached, and so act, earlier."""

    def __init__(self, rule: Freeze, weights: Mapping[str, FrozenWeight]) -> None:
        super().__init__(weights)
        self.rule = rule

    def rebind(self, weights: WeightView) -> None:
        for name, each in self._frozen().items():
            each.rebind(weights.parametrizations(name)[-1])

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Update the statistics of the codes, and undo the optimizer's step on frozen weights."""
        threshold = value_at(self.rule.threshold, progress.fraction)
        with torch.no_grad():
            for name, each in self._frozen().items():
                each.watch(weights.effective(name, each), threshold, self.rule.momentum)
                # Behind a mask or a normalization, the frozen value differs from the stored weight.
                if weights.parametrizations(name)[0] is each:
                    value = weights.value(name)
                    value.copy_(each(value))

    def report(self) -> dict[str, Any]:
        """Return the share of frozen weights, ``{"frozen": 0.01}``."""
        frozen = [each.frozen for each in self._frozen().values()]
        return {"frozen": sum(int(each.sum()) for each in frozen) / max(sum(each.numel() for each in frozen), 1)}

    def _frozen(self) -> dict[str, FrozenWeight]:
        return {name: each for name, each in self.weights.items() if isinstance(each, FrozenWeight)}
