"""Stage: one step of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attar._src.core.spec import Spec
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context, Trial
from attar._src.work.learner import Learner
from attar._src.work.size_budget import SizeBudget


class Stage(Spec):
    """One step of a model's compression.

    It trains a :class:`Learner` in place or makes a new compressed model. Between two stages that work on different
    things the run converts: a learner is deployed, and a compressed model becomes a learner on the grids it has.

    Attributes:
        works_on: ``Learner`` or ``CompressedModel``.
        needs: what the stage requires, of ``labels`` and ``gradients``.
    """

    works_on: ClassVar[type[Learner] | type[CompressedModel]] = Learner
    needs: ClassVar[frozenset[str]] = frozenset()

    stage: str

    def check(self, before: Sequence[Stage]) -> None:
        """Check the order of stages; ``before`` are those of the same model before this one.

        Raises:
            SpecError: this stage cannot follow them.
        """

    def check_behind(self, behind: Sequence[Stage]) -> None:
        """Check the order of stages; ``behind`` are those of the same model after this one.

        Raises:
            SpecError: one of them undoes what this stage promises.
        """

    def required(self) -> frozenset[str]:
        """Return what the stage requires as it is configured, of ``labels`` and ``gradients``."""
        return self.needs

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models the stage learns from."""
        return ()

    def inspected_teachers(self) -> Mapping[str, tuple[str | int, ...]]:
        """Return teachers whose layers the stage reads -> path of the field that names the layers."""
        return {}

    def compresses(self) -> bool:
        """Return whether the stage rounds or prunes: the model before the first such stage is in floating point."""
        return self.works_on is CompressedModel

    def size_budget(self) -> SizeBudget | None:
        """Return the upper bound of the file's size, None without a budget."""
        return None

    def ignored_targets(self) -> tuple[int, ...]:
        """Return the targets that losses of the stage ignore, of those that give one."""
        return ()

    def compares_losses(self) -> bool:
        """Return whether the loss means the same in every epoch, so that it should fall."""
        return False

    def batch_size(self) -> int | None:
        """Return the examples of a training step over all ranks, None if the stage does not train."""
        return None

    def try_on(self, model: Any, trial: Trial) -> Any:
        """Do once on an untrained model what can fail in :meth:`run`, in seconds; return the model for the next trial.

        Raises:
            SpecError: the stage cannot work on this model.
        """
        return model

    def run(self, model: Any, context: Context) -> Any:
        """Do the stage and return the model after it, of the same class, with the stage in its record.

        Args:
            model: a Learner or a CompressedModel, as ``works_on`` says.
            context: a ``TrainingContext`` in a run; ``attar.quantize`` gives a plain ``Context``.
        """
        raise NotImplementedError
