"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.soft_targets import IGNORE_INDEX, at_least_float32, mean_over_valid
from attar._src.methods.objectives.stateless import StatelessTerm
from attar._src.work.objective import LossInputs


class CrossEntropy(StatelessTerm):
    """``-log softmax(z)[y]``, averaged over positions.

    Outputs are logits ``(N, ..., classes)``, targets int64 ``(N, ...)``.

    Attributes:
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, "Rethinking the
            inception architecture", section 7).
        ignore_index: target of positions to ignore, such as padding.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ignore_index: int = IGNORE_INDEX

    def loss(self, sources: LossInputs) -> torch.Tensor:
        logits, targets = at_least_float32(sources.outputs), sources.batch.targets
        if targets is None:
            raise SpecError("cross_entropy needs labels and the batch has none; label the data or use a teacher's loss")
        if targets.is_floating_point() or targets.shape != logits.shape[:-1]:
            raise SpecError(
                f"cross_entropy takes integer targets of the shape of the outputs without the class axis, "
                f"{tuple(logits.shape[:-1])}; {targets.dtype} of {tuple(targets.shape)} arrived"
            )
        try:
            losses = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                targets.reshape(-1),
                ignore_index=self.ignore_index,
                reduction="none",
                label_smoothing=self.label_smoothing,
            )
        except IndexError as error:
            raise SpecError(
                f"targets lie between {int(targets.min())} and {int(targets.max())}, but the outputs have "
                f"{logits.shape[-1]} classes and ignore_index is {self.ignore_index}"
            ) from error
        return mean_over_valid(losses.reshape(targets.shape), sources, self.ignore_index)
