"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.objectives.soft_targets import (
    IgnoreIndex,
    at_least_float32,
    classes_last,
    ignored_target,
    mean_over_valid,
)
from attar._src.methods.objectives.stateless import StatelessTerm
from attar._src.work.objective import LossInputs


class CrossEntropy(StatelessTerm):
    """``-log softmax(z)[y]``, averaged over positions.

    Outputs are logits, targets int64 of their shape without the class axis: ``(N,)`` for ``(N, C)``, ``(N, H, W)`` for
    ``(N, C, H, W)``.

    Attributes:
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, "Rethinking the
            inception architecture", section 7).
        ignore_index: target of positions to ignore, such as padding; by default the recipe's.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ignore_index: IgnoreIndex = None

    def loss(self, sources: LossInputs) -> torch.Tensor:
        targets = sources.batch.targets
        if targets is None:
            raise SpecError("cross_entropy needs labels and the batch has none; label the data or use a teacher's loss")
        if targets.is_floating_point():
            raise SpecError(
                f"cross_entropy takes integer targets, one class each; {targets.dtype} of {tuple(targets.shape)} "
                "arrived. For labels that mean yes or no for each output use binary_cross_entropy"
            )
        logits = at_least_float32(classes_last(sources.outputs, sources, self.name))
        if targets.shape != logits.shape[:-1]:
            raise SpecError(
                f"cross_entropy takes integer targets of the shape of the outputs without the class axis, "
                f"{tuple(logits.shape[:-1])}; {targets.dtype} of {tuple(targets.shape)} arrived"
            )
        return mean_over_valid(self._losses(logits, targets, sources), sources, self.ignore_index)

    def _losses(self, logits: torch.Tensor, targets: torch.Tensor, sources: LossInputs) -> torch.Tensor:
        """Return the loss at each position, of the targets' shape."""
        ignored = ignored_target(sources, self.ignore_index)
        try:
            losses = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                targets.reshape(-1),
                ignore_index=ignored,
                reduction="none",
                label_smoothing=self.label_smoothing,
            )
        except IndexError as error:
            raise SpecError(
                f"targets lie between {int(targets.min())} and {int(targets.max())}, but the outputs have "
                f"{logits.shape[-1]} classes and ignore_index is {ignored}; targets that are no class are left out "
                "with an ignore_index in the recipe"
            ) from error
        return losses.reshape(targets.shape)
