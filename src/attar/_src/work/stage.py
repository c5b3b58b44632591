"""Stage: one step of a model's compression. A recipe lists the stages of each model in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attar._src.core.describe import to_record
from attar._src.core.spec import Spec
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context, Trial
from attar._src.work.learner import Learner


class Stage(Spec):
    """One step of a model's compression.

    A stage works either on a program being trained (a :class:`Learner`, changed in place) or on a compressed model
    (replaced by a new one). Between two stages that work on different things the run converts: a learner is
    deployed, and a compressed model that is trained further holds its learner to the grids it has.

    Attributes:
        works_on: ``Learner`` or ``CompressedModel``.
        needs: what the stage requires, of ``labels`` and ``gradients``.
    """

    works_on: ClassVar[type[Learner] | type[CompressedModel]] = Learner
    needs: ClassVar[frozenset[str]] = frozenset()

    stage: str

    def check(self, before: Sequence[Stage]) -> None:
        """Refuse an order of stages that cannot work.

        Args:
            before: the stages of the same model before this one.

        Raises:
            SpecError: this stage cannot follow them.
        """

    def required(self) -> frozenset[str]:
        """Return what the stage requires as it is configured, of ``labels`` and ``gradients``."""
        return self.needs

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models the stage learns from."""
        return ()

    def inspected_teachers(self) -> Mapping[str, tuple[str | int, ...]]:
        """Return the teachers whose layers the stage reads -> the path of the field that names the layers."""
        return {}

    def size_budget(self) -> float | None:
        """Return the bits per weight the file should not exceed, or None if the stage has no budget."""
        return None

    def batch_size(self) -> int | None:
        """Return the examples of a training step over all ranks, or None if the stage does not train."""
        return None

    def try_on(self, model: Any, trial: Trial) -> Any:
        """Do once on an untrained model what can fail in :meth:`run`, in seconds.

        Args:
            model: a Learner or a CompressedModel, as ``works_on`` says.
            trial: a few examples, and untrained teachers.

        Returns:
            The model for the next stage's trial.

        Raises:
            SpecError: the stage cannot work on this model.
        """
        return model

    def run(self, model: Any, context: Context) -> Any:
        """Do the stage.

        Args:
            model: a Learner or a CompressedModel, as ``works_on`` says.
            context: a ``TrainingContext`` in a run; ``attar.quantize`` gives a plain ``Context``.

        Returns:
            The model after the stage, of the same class. It remembers the stage in its record.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the entry of the record in the file: the fields that differ from their defaults."""
        return to_record(self)
