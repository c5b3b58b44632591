"""Base of the losses that compare layers of a student with layers of its teacher."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.soft_targets import IgnoreIndex
from attar._src.work.objective import LossInputs
from attar._src.work.term import Term


class PairedLayersTerm(Term):
    """A loss on intermediate layers. Maps of different sizes are average-pooled to the smaller height and width.

    Attributes:
        teacher: the name of a model that is a program; files and teacher caches hold outputs alone.
        layers: path of a module of the student, such as ``layer3.1`` -> path of a module of the teacher.
        ignore_index: target of examples, or of positions, to ignore; by default the recipe's.
    """

    teacher: str
    layers: Annotated[dict[str, str], Field(min_length=1)]
    ignore_index: IgnoreIndex = None

    def teachers(self) -> tuple[str, ...]:
        return (self.teacher,)

    def features(self) -> tuple[str, ...]:
        return tuple(self.layers)

    def teacher_features(self) -> dict[str, tuple[str, ...]]:
        return {self.teacher: tuple(dict.fromkeys(self.layers.values()))}

    def pairs(self, sources: LossInputs) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the values of student and teacher, channels last ``(N, ..., C)``, at the same positions.

        Channels are axis 1 of maps ``(N, C, H, W)`` and the last axis otherwise.

        Raises:
            SpecError: the shapes of a pair do not match.
        """
        return [self._pair(sources, *names) for names in self.layers.items()]

    def _pair(self, sources: LossInputs, ours: str, theirs: str) -> tuple[torch.Tensor, torch.Tensor]:
        student, teacher = sources.features[ours], sources.teacher_features[self.teacher][theirs].detach()
        if student.dim() == teacher.dim() == 4:
            height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
            student, teacher = (_pooled(each, (height, width)).movedim(1, -1) for each in (student, teacher))
        if student.dim() not in (2, 3, 4) or student.shape[:-1] != teacher.shape[:-1]:
            raise SpecError(
                f"layer {ours!r} of shape {tuple(sources.features[ours].shape)} and {theirs!r} of teacher "
                f"{self.teacher!r}, {tuple(sources.teacher_features[self.teacher][theirs].shape)}, cannot be compared; "
                "both should output maps, sequences of one length, or vectors"
            )
        return student, teacher


def _pooled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return maps if tuple(maps.shape[2:]) == size else torch.nn.functional.adaptive_avg_pool2d(maps, size)
