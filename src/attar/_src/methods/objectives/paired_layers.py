"""Layers: what the losses that compare a student's layers with its teacher's share."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.soft_targets import IGNORE_INDEX
from attar._src.work.objective import LossInputs
from attar._src.work.term import Term

#: A module of the student by its path, such as ``layer3.1`` -> one of the teacher.
LayerPairs = Annotated[dict[str, str], Field(min_length=1)]


class PairedLayersTerm(Term):
    """A loss that looks inside student and teacher.

    Attributes:
        teacher: a model's name. It has to be a program: a file and a cache know outputs alone.
        layers: modules of the student by their paths, such as ``layer3.1`` -> modules of the teacher.
        ignore_index: the target of examples, or of positions as they are compared, that do not count.
    """

    teacher: str
    layers: LayerPairs
    ignore_index: int = IGNORE_INDEX

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return (self.teacher,)

    def features(self) -> tuple[str, ...]:
        """Return the layers of the student it looks at."""
        return tuple(self.layers)

    def teacher_features(self) -> dict[str, tuple[str, ...]]:
        """Return the layers of teachers it looks at."""
        return {self.teacher: tuple(dict.fromkeys(self.layers.values()))}

    def pairs(self, sources: LossInputs) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the values of student and teacher, channels last ``(n, ..., c)``, at the same positions.

        Channels are the second of four axes and the last of two or three. Maps of different sizes are averaged down to
        the smaller one along each axis (``adaptive_avg_pool2d``).

        Raises:
            SpecError: a pair cannot be compared.
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
                "name layers that give both maps, both sequences of one length or both vectors"
            )
        return student, teacher


def _pooled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return maps if tuple(maps.shape[2:]) == size else torch.nn.functional.adaptive_avg_pool2d(maps, size)
