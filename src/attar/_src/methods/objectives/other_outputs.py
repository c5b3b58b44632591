"""Mean squared error of all outputs but the main one against a teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.measure.difference import class_axis
from attar._src.methods.objectives.soft_targets import IgnoreIndex, at_least_float32, valid_positions
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term

#: Variance, relative to the mean square, from which a channel is taken to vary.
_VARIES = 1e-10
#: Elements beyond this are those of a mask.
_MASK = 1e18


class OtherOutputs(Term):
    """Squared error of each other output over its variance, averaged over these outputs: with u of the student, v of
    the teacher and m the mean of v for each channel in the batch

        1/outputs sum |u - v|^2 / |v - m|^2

    which is 1 - R^2, so that outputs of any unit weigh the same: 0.01 is a signal to noise of 20 dB. The variance is
    the mean over the batches so far, as one batch may have next to none; that of an output that does not vary is its
    mean square. All other losses read the main output alone: without this term, what only another output reads is not
    trained, and a rate takes its weights for free.

    Outputs are paired by name, those of tuples by their place. Those of integers are left out, and so is what a module
    returns in training alone, or a second time.

    Attributes:
        teacher: the name of a model that is a program; files and teacher caches hold the main output alone.
        ignore_index: target of positions to ignore, in outputs that have the positions of the targets; by default the
            recipe's.
    """

    name: Literal["other_outputs"] = "other_outputs"
    teacher: str
    ignore_index: IgnoreIndex = None

    def teachers(self) -> tuple[str, ...]:
        return (self.teacher,)

    def teacher_features(self) -> dict[str, tuple[str, ...]]:
        return {self.teacher: ()}

    def pairs(self, sources: LossInputs) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return the other outputs of student and teacher by name, ``(positions, channels)``, without padding.

        Raises:
            SpecError: the teacher has none of them, or one of another shape.
        """
        theirs = sources.teacher_outputs[self.teacher]
        ours = {
            name: each
            for name, each in zip(sources.names, sources.every, strict=True)
            if each is not sources.outputs and each.is_floating_point()
        }
        found = {name: (each, theirs[name].detach()) for name, each in ours.items() if name in theirs}
        if ours and not found:
            raise SpecError(
                f"teacher {self.teacher!r} has none of the student's outputs {', '.join(map(repr, ours))} but the main "
                "one; leave this term out, or name a teacher that has them"
            )
        for name, (own, wanted) in found.items():
            if own.shape != wanted.shape:
                raise SpecError(
                    f"output {name!r} of shape {tuple(own.shape)} is {tuple(wanted.shape)} in teacher "
                    f"{self.teacher!r}; both must return the same outputs"
                )
        return {name: (self._rows(own, sources), self._rows(wanted, sources)) for name, (own, wanted) in found.items()}

    def _rows(self, output: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        axis = class_axis(tuple(output.shape))
        channels_last = output.unsqueeze(-1) if axis is None else output.movedim(axis, -1)
        valid = valid_positions(sources, tuple(channels_last.shape[:-1]), self.ignore_index)
        rows = channels_last.reshape(-1, channels_last.shape[-1])
        return at_least_float32(rows if valid is None else rows[valid.reshape(-1)])

    def build(self, learner: Learner) -> Objective:
        return _OtherOutputs(self)


class _OtherOutputs(Objective):
    def __init__(self, term: OtherOutputs) -> None:
        super().__init__()
        self.term = term
        self.names: tuple[str, ...] = ()
        # By place, because names may have dots: the sum of the variances of batches, and how many these were.
        self.variances = nn.Buffer(torch.zeros(0, 2, dtype=torch.float64))

    def prepare(self, sources: LossInputs) -> None:
        pairs = self.term.pairs(sources)
        self.names = tuple(pairs)
        device = sources.outputs.device
        self.variances = nn.Buffer(torch.zeros(len(pairs), 2, dtype=torch.float64, device=device))
        self._add(pairs)

    def forward(self, sources: LossInputs) -> torch.Tensor:
        # What training alone returns was not there before.
        pairs = {name: each for name, each in self.term.pairs(sources).items() if name in self.names}
        if self.training:
            self._add(pairs)
        if not pairs:
            return sources.outputs.sum() * 0.0
        signals = (self.variances[:, 0] / self.variances[:, 1].clamp(min=1)).unbind()
        losses = [_share(*each, signals[self.names.index(name)]) for name, each in pairs.items()]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _add(self, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        for name, (_, wanted) in pairs.items():
            if len(wanted):
                self.variances[self.names.index(name)] += torch.stack([_variance(wanted), wanted.new_ones(())])


def _variance(wanted: torch.Tensor) -> torch.Tensor:
    """Return the variance of ``(positions, channels)`` about each channel's mean, or their mean square without any."""
    known = wanted.abs() < _MASK
    count = known.sum().clamp(min=1)
    own = torch.where(known, wanted, 0.0)
    mean = own.sum(0) / known.sum(0).clamp(min=1)
    power, spread = own.square().sum(0), torch.where(known, own - mean, 0.0).square().sum(0)
    varies = torch.where(spread > _VARIES * power, spread, 0.0).sum()
    return torch.where(varies > 0, varies, power.sum()) / count


def _share(ours: torch.Tensor, wanted: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over the variance; 0 of an output that was nothing but 0 so far."""
    if not len(wanted):
        return ours.sum() * 0.0
    # Equal infinities, as of a mask, are no error.
    error = torch.where(ours == wanted, 0.0, ours - wanted).square().mean()
    known = torch.where(signal > 0, signal, 1.0).to(error.dtype)
    return torch.where(signal > 0, error / known, error * 0.0)
