"""Mean squared error of all outputs but the main one against a teacher's."""

from __future__ import annotations

from typing import Literal

import torch

from attar._src.core.errors import SpecError
from attar._src.measure.difference import class_axis
from attar._src.methods.objectives.soft_targets import IgnoreIndex, at_least_float32, valid_positions
from attar._src.methods.objectives.stateless import StatelessTerm
from attar._src.work.objective import LossInputs

#: Variance, relative to the mean square, from which an output is taken to vary.
_VARIES = 1e-6


class OtherOutputs(StatelessTerm):
    """Squared error of each other output over its variance, averaged over these outputs: with u of the student, v of
    the teacher and m the mean of v for each channel in the batch

        1/outputs sum |u - v|^2 / |v - m|^2

    which is 1 - R^2, so that outputs of any unit weigh the same: 0.01 is a signal to noise of 20 dB. An output that
    does not vary is compared with its square. All other losses read the main output alone: without this term, what
    only another output reads is not trained, and a rate takes its weights for free.

    Outputs are paired in order; integers are left out. What a module returns in training alone comes last and is left
    out, too.

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

    def loss(self, sources: LossInputs) -> torch.Tensor:
        theirs = sources.teacher_outputs[self.teacher]
        losses = [
            _share(self._rows(ours, sources), self._rows(wanted.detach(), sources))
            for ours, wanted in zip(sources.every[: len(theirs)], theirs, strict=False)
            if ours is not sources.outputs and self._fits(ours, wanted)
        ]
        if not losses:
            raise SpecError(
                f"student and teacher {self.teacher!r} have no output in common but the main one; leave this term out"
            )
        return torch.stack(losses).mean()

    def _rows(self, output: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        """Return an output as ``(positions, channels)``, of those that are no padding."""
        axis = class_axis(tuple(output.shape))
        channels_last = output.unsqueeze(-1) if axis is None else output.movedim(axis, -1)
        valid = valid_positions(sources, tuple(channels_last.shape[:-1]), self.ignore_index)
        rows = channels_last.reshape(-1, channels_last.shape[-1])
        return at_least_float32(rows if valid is None else rows[valid.reshape(-1)])

    def _fits(self, ours: torch.Tensor, wanted: torch.Tensor) -> bool:
        if ours.shape != wanted.shape:
            raise SpecError(
                f"an output of shape {tuple(ours.shape)} is {tuple(wanted.shape)} in teacher {self.teacher!r}; both "
                "must return the same outputs in the same order"
            )
        return ours.is_floating_point()


def _share(ours: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the squared error of ``(positions, channels)`` over the variance of what is wanted."""
    if not len(wanted):
        return ours.sum()
    whole, varies = wanted.square().mean(), (wanted - wanted.mean(0)).square().mean()
    signal = torch.where(varies > _VARIES * whole, varies, whole)
    return (ours - wanted).square().mean() / signal.clamp(min=torch.finfo(signal.dtype).tiny)
