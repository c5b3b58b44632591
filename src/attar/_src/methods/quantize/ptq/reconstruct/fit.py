"""Training of what a block, or the whole network, may change, and the choice of what is better on other inputs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from attar._src.methods.quantize.ptq.reconstruct.code_budget import CodeBudget
from attar._src.methods.quantize.ptq.reconstruct.feeding import parts_that_judge
from attar._src.methods.quantize.ptq.reconstruct.judging import Errors
from attar._src.methods.quantize.ptq.reconstruct.learned import (
    STORED,
    Learned,
    LearnedGrid,
    LearnedWeight,
    Mode,
    mixed,
    set_mode,
)
from attar._src.methods.quantize.ptq.reconstruct.rounding import beta_at, rounding_regulariser
from attar._src.methods.quantize.ptq.reconstruct.scores import ClassScores

#: Share of the steps before the regulariser acts.
WARM_UP = 0.2
#: The values of one batch.
BatchValues = tuple[Tensor, ...]


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam.

    Attributes:
        codes: of v, or of weights in steps of their grid.
        scales, grids: of scales of weights and of activations, as a share of them.
        vectors: biases, and factors and shifts of norms, in units of their root mean square.
    """

    codes: float
    scales: float
    vectors: float
    grids: float


def train(
    parts: Sequence[Learned],
    loss: Callable[[int], Tensor],
    steps: int,
    rates: Rates,
    regulariser: float,
    tick: Callable[[], None],
) -> None:
    """Minimise ``loss(step)`` with Adam over what ``parts`` let be trained; rates fall to zero along half a cosine.

    Args:
        regulariser: factor of the mean of AdaRound's regulariser over all weights; 0 without relaxed weights. With it,
            the rate of the codes stays: v has a way to go until h is 0 or 1.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    parts = [part for part in parts if not part.shared]
    for part in parts:
        for kind, parameters in part.groups().items():
            if parameters:
                groups.setdefault(kind, []).extend(parameters)
    optimizer = torch.optim.Adam([{"params": each, "lr": 0.0, "kind": kind} for kind, each in groups.items()])
    weights = [part for part in parts if isinstance(part, LearnedWeight)]
    count = sum(weight.v.numel() for weight in weights)
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            stays = regulariser > 0 and group["kind"] == "codes"
            group["lr"] = getattr(rates, group["kind"]) * (1 if stays else (1 + math.cos(math.pi * progress)) / 2)
        optimizer.zero_grad(set_to_none=True)
        total = loss(step)
        if regulariser and progress >= WARM_UP:
            beta = beta_at((progress - WARM_UP) / (1 - WARM_UP))
            for weight in weights:
                total = total + rounding_regulariser(weight.v, beta).sum() * (regulariser / count)
        total.backward()
        optimizer.step()
        tick()


def relative_error(made: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return ``sum (y - t)^2 / sum (t - mean t)^2``, the mean over several values; values of integers do not count."""
    errors = []
    for y, t in zip(made, wanted, strict=True):
        if t.is_floating_point():
            spread = (t - t.mean()).square().sum()
            errors.append((y - t).square().sum() / spread.clamp(min=1e-12))
    return torch.stack(errors).mean() if errors else torch.zeros(())


def keep_better(
    parts: Sequence[Learned],
    judge: Callable[[], Errors],
    change: Callable[[], None],
    budget: CodeBudget | None = None,
) -> tuple[float, float]:
    """Let ``change`` train ``parts``, and put back what they stored before unless that improves what ``judge`` gives.

    With a ``budget``, what is within it is better than what is not.

    Returns:
        The mean errors before and after, whatever is kept.
    """
    set_mode(parts, Mode.STORED)
    before, over = judge(), budget.refused() if budget else 0.0
    kept = [{key: getattr(part, key).clone() for key in STORED if hasattr(part, key)} for part in parts]
    change()
    for part in parts:
        part.settle()
    set_mode(parts, Mode.STORED)
    after = judge()
    if not after.plus(budget.refused() if budget else 0.0).improves(before.plus(over)):
        for part, state in zip(parts, kept, strict=True):
            for key, value in state.items():
                getattr(part, key).copy_(value)
    return before.mean, after.mean


def priced(budget: CodeBudget | None) -> Tensor | float:
    """Return what the coded bits add to the loss of a step; nothing without a budget."""
    return budget.penalty() if budget else 0.0


@dataclass(frozen=True)
class BlockFit:
    """A block with the values of all batches.

    Attributes:
        program: of the block.
        parts: its modules.
        quantized, floating: what it reads in the quantized and in the floating-point network, a tuple for each batch.
        wanted: what it makes in the floating-point network.
        held_out: how many of the last batches only judge; none if 0, and then all do both.
        budget: of its codes, if their bytes are counted.
    """

    program: fx.GraphModule
    parts: Sequence[Learned]
    quantized: Sequence[BatchValues]
    floating: Sequence[BatchValues]
    wanted: Sequence[BatchValues]
    held_out: int
    budget: CodeBudget | None = None

    def errors(self) -> Errors:
        """Return the relative errors in the mode of the parts."""
        trained, judging = parts_that_judge(len(self.wanted), self.held_out)
        return Errors(tuple(map(self._error, judging)), statistics.fmean(map(self._error, trained)))

    def _error(self, k: int) -> float:
        with torch.no_grad():
            return float(relative_error(self.program(*self.quantized[k]), self.wanted[k]))

    def run(
        self, steps: int, rates: Rates, regulariser: float, drop: float, seed: int, tick: Callable[[], None]
    ) -> tuple[float, float]:
        """Train the block and keep what is better; return its relative error before and after.

        Args:
            regulariser: factor of AdaRound's, where the error before is 1.
            drop: probability of each element of what the block reads, and of its rounded activations, to be that of the
                floating-point network.
        """
        generator = torch.Generator().manual_seed(seed)
        scale = max(self.error_before(), 1e-9)
        order = _shuffled(len(self.wanted) - self.held_out, generator)

        def loss(_: int) -> Tensor:
            k = next(order)
            read = tuple(
                mixed(q, f, drop, generator) if drop and q is not f and q.is_floating_point() else q
                for q, f in zip(self.quantized[k], self.floating[k], strict=True)
            )
            return relative_error(self.program(*read), self.wanted[k]) / scale + priced(self.budget)

        def change() -> None:
            for part in self.parts:
                if isinstance(part, LearnedWeight):
                    part.relax()
                if isinstance(part, LearnedGrid):
                    part.drop, part.generator = drop, generator
            set_mode(self.parts, Mode.RELAXED)
            if self.budget:
                self.budget.start(1.0)
            train(self.parts, loss, steps, rates, regulariser, tick)

        return keep_better(self.parts, self.errors, change, self.budget)

    def error_before(self) -> float:
        """Return the relative error of what is stored."""
        set_mode(self.parts, Mode.STORED)
        return self.errors().mean


def _shuffled(count: int, generator: torch.Generator) -> Iterator[int]:
    """Yield 0 to ``count - 1`` in random order, again and again."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


@dataclass(frozen=True)
class NetworkFit:
    """The whole network against the outputs of the floating-point network.

    Attributes:
        program: from the inputs to the outputs, as a tuple.
        floating: the floating-point network: its outputs, for the same inputs.
        parts: modules of ``program``.
        loss: outputs, wanted outputs -> loss.
        trained: batches that are trained on, some of them.
        held_out: batches that only judge.
        budget: of the codes, if their bytes are counted.
    """

    program: fx.GraphModule
    floating: Callable[[BatchValues], BatchValues]
    parts: Sequence[Learned]
    loss: Callable[[BatchValues, BatchValues], Tensor]
    trained: Sequence[BatchValues]
    held_out: Sequence[BatchValues]
    budget: CodeBudget | None = None

    def errors(self) -> Errors:
        """Return the losses in the mode of the parts."""
        return Errors(tuple(map(self._error, self.held_out)), statistics.fmean(map(self._error, self.trained)))

    def _error(self, batch: BatchValues) -> float:
        with torch.no_grad():
            return float(self.loss(self.program(*batch), self.floating(batch)))

    def run(
        self, batches: Iterator[BatchValues], steps: int, rates: Rates, tick: Callable[[], None]
    ) -> tuple[float, float]:
        """Train through the rounding, straight through, and keep what is better; return the loss before and after."""

        def loss(_: int) -> Tensor:
            batch = next(batches)
            with torch.no_grad():
                wanted = self.floating(batch)
            return self.loss(self.program(*batch), wanted) + priced(self.budget)

        def change() -> None:
            for part in self.parts:
                if isinstance(part, LearnedWeight):
                    part.straighten()
            if self.budget:
                self.budget.start(self.errors().mean)
            set_mode(self.parts, Mode.STRAIGHT)
            train(self.parts, loss, steps, rates, 0.0, tick)

        return keep_better(self.parts, self.errors, change, self.budget)


def output_loss(scores: Mapping[int, ClassScores]) -> Callable[[BatchValues, BatchValues], Tensor]:
    """Return the loss of outputs: Kullback-Leibler divergence of scores, relative error of others, their sum.

    Args:
        scores: place of an output that has scores -> these.
    """

    def loss(made: BatchValues, wanted: BatchValues) -> Tensor:
        total = torch.zeros(())
        for place, (y, t) in enumerate(zip(made, wanted, strict=True)):
            if place in scores:
                total = total + scores[place].divergence(y, t)
            elif t.is_floating_point():
                total = total + relative_error([y], [t])
        return total

    return loss
