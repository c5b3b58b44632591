"""The rule that stops weights which swing between two codes, where they were on average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.core.tensors import CompressedTensor, Dense
from attar._src.methods.overrides import select_weights
from attar._src.methods.quantize.effective_weight import effective_weight
from attar._src.train.schedule import Schedule, Scheduled, value_at
from attar._src.work.constraint import Constraint, GridPositions, Parametrization, Progress, Rule
from attar._src.work.learner import Learner


class Freeze(Rule):
    """Hold a weight to one code for good once its code changes to and fro too often (Nagel et al. 2022, "Overcoming
    oscillations in quantization-aware training", section 4.3).

    Before every step, with q the code of a weight and D the direction of its last change,

        o = 1 where q changed, against D;    f <- m o + (1 - m) f;    e <- m q + (1 - m) e

    and a weight with f > threshold is frozen at ``round(e)``: it is read there whatever the optimizer does to it, and
    its step goes on being learned from the weights that still move. It acts behind masks (a zero stays a zero) and
    before a grid, which has to be there first: list it after ``lsq`` or ``quantize``. A grid that becomes narrower, or
    another that takes its place, sets all weights free.

    Attributes:
        threshold: of the frequency f, from 0 to 1; lower over the stage as the default is, so that few are frozen
            early.
        momentum: m.
        keep: globs of layers or weights whose codes may change for ever.
    """

    after_grid: ClassVar[bool] = True

    name: Literal["freeze"] = "freeze"
    threshold: Scheduled = Schedule(start=0.04, stop=0.01, shape="cosine")
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.01
    keep: tuple[str, ...] = ()

    def attach(self, learner: Learner) -> Constraint:
        """Return what freezes the weights that are on a grid.

        Raises:
            UnknownName: a glob matches no layer.
            SpecError: no weight is on an evenly spaced grid.
        """
        weights, left = {}, {}
        for name in learner.weights:
            with torch.no_grad():
                held = learner.parametrizations(name)
                gridded = bool(held) and held[-1].grid_positions(effective_weight(learner, name)) is not None
            if name not in select_weights(learner, True, {}, keep=self.keep):
                left[name] = "not frozen by request"
            elif gridded:
                weights[name] = FrozenWeight(learner, name)
            else:
                left[name] = "not frozen: on no evenly spaced grid"
        if not weights:
            raise SpecError(
                "freeze: no weight is on an evenly spaced grid, so there are no codes to stop at; list it after a "
                "constraint such as lsq, in this stage or one after that"
            )
        return FreezeConstraint(self, learner, weights, left)


class FrozenWeight(Parametrization):
    """One weight, some elements of which are frozen.

    Attributes:
        codes: int32, the weight's shape: where each element was before the last step, or is frozen.
        direction: int8: the sign of its last change, 0 before there was one.
        frequency, mean: float32: how often it changes to and fro; its mean code. Both are running.
        frozen: bool.
        top: the largest code of the grid all this is about, 0 before there is one.
        about: that grid itself, in a list: it is not this module's own.
    """

    codes: torch.Tensor
    direction: torch.Tensor
    frequency: torch.Tensor
    mean: torch.Tensor
    frozen: torch.Tensor
    top: torch.Tensor

    def __init__(self, learner: Learner, name: str) -> None:
        super().__init__()
        self.learner, self.name = (learner,), name  # in a tuple: it is not this module's own
        self.about = self._now()
        # Checkpoints are written behind a step, which has looked at the grid that the weight is on.
        self.register_load_state_dict_post_hook(_taken_up)  # type: ignore[no-untyped-call]
        weight = learner.tensor(name).detach()
        # Gloo, which brings ranks together on CPUs, has no int16.
        self.register_buffer("codes", torch.zeros_like(weight, dtype=torch.int32))
        self.register_buffer("direction", torch.zeros_like(weight, dtype=torch.int8))
        self.register_buffer("frequency", torch.zeros_like(weight))
        self.register_buffer("mean", torch.zeros_like(weight))
        self.register_buffer("frozen", torch.zeros_like(weight, dtype=torch.bool))
        self.register_buffer("top", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, frozen elements in the middle of their code and without gradient."""
        grid = self._now()
        # Of another grid, or of one that has become narrower since, the codes say nothing.
        positions = _positions(grid, x) if grid == self.about else None
        if positions is None:
            return x
        fixed = self.frozen & (x != 0) & (self.top == positions.high)
        with torch.no_grad():
            near = torch.where(fixed, x + (self.codes - positions.at) * positions.scale, x)
            # As the grid itself computes them: one rounding beyond its end they would count as outside.
            read = grid[0](near)
        return torch.where(fixed, read, x)

    def watch(self, value: torch.Tensor, threshold: float, momentum: float) -> None:
        """Take in the codes of ``value``, and freeze what swings more often than ``threshold``."""
        grid = self._now()
        positions = _positions(grid, value)
        if grid != self.about:
            self.about = grid
            self.top.zero_()
            self.frozen.zero_()
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
        self.frozen |= swings

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        """Return what ``forward`` returns; where a grid follows, which is always so, that one's is stored."""
        return Dense(self(value).detach().cpu().numpy().copy())

    def _now(self) -> list[Parametrization]:
        """Return the grid that the weight is on now."""
        return self.learner[0].parametrizations(self.name)[-1:]


def _positions(grid: list[Parametrization], value: torch.Tensor) -> GridPositions | None:
    """Return where ``value`` lies on a grid, if there is one, without gradient."""
    with torch.no_grad():
        return grid[0].grid_positions(value.detach()) if grid else None


def _taken_up(frozen: FrozenWeight, _keys: object) -> None:
    """Take what was loaded as about the grid that the weight is on now."""
    frozen.about = frozen._now()


class FreezeConstraint(Constraint):
    """The frozen weights of a :class:`Freeze`."""

    #: As masks, and listed after the grid, so directly before it.
    order: ClassVar[int] = 0

    def __init__(
        self, rule: Freeze, learner: Learner, weights: Mapping[str, FrozenWeight], left: Mapping[str, str]
    ) -> None:
        super().__init__(weights, left=left)
        self.rule, self.learner = rule, (learner,)

    def update(self, progress: Progress, weights: Mapping[str, torch.Tensor]) -> None:
        """Look at the codes, and put frozen weights back where the optimizer has moved them."""
        learner, threshold = self.learner[0], value_at(self.rule.threshold, progress.fraction)
        with torch.no_grad():
            for name, held in self._frozen().items():
                held.watch(effective_weight(learner, name, held), threshold, self.rule.momentum)
                # Behind a mask or a normalization the weight itself is not what is frozen.
                if learner.parametrizations(name)[0] is held:
                    weights[name].copy_(held(weights[name]))

    def report(self) -> dict[str, Any]:
        """Return the share of the weights that is frozen."""
        frozen = [held.frozen for held in self._frozen().values()]
        return {"frozen": sum(int(each.sum()) for each in frozen) / max(sum(each.numel() for each in frozen), 1)}

    def _frozen(self) -> dict[str, FrozenWeight]:
        return {name: held for name, held in self.weights.items() if isinstance(held, FrozenWeight)}
