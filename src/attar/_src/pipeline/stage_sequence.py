"""The stages of one model in order, with the conversion between learner and compressed model that each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attar._src.methods.quantize.solved_grids import adopt
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


class StageSequence:
    """A model going through its stages.

    Args:
        learner: the model before its first stage.
        stages: all stages of the model.
        deploy: makes a compressed model; by default ``learner.deployed``. Called with ``fold=False`` if a training
            stage follows, because folded batch-norms cannot be trained.
    """

    def __init__(
        self, learner: Learner, stages: Sequence[Stage], deploy: Callable[..., CompressedModel] | None = None
    ) -> None:
        self.learner, self.stages = learner, stages
        self._deploy = deploy or learner.deployed
        self._before: CompressedModel | None = None
        self._compressed: CompressedModel | None = None

    def apply(self, index: int, do: Callable[[Any], Any]) -> None:
        """Apply the next stage in order.

        Args:
            index: its position.
            do: called with a Learner or a CompressedModel, as its ``works_on`` says; returns the same type.
        """
        if self.stages[index].works_on is CompressedModel:
            if self._compressed is None:
                trained_later = any(each.works_on is Learner for each in self.stages[index + 1 :])
                self._before = self._compressed = self._deploy(fold=not trained_later)
            self._compressed = do(self._compressed)
            return
        if self._compressed is not None and self._before is not None:
            adopt(self.learner, self._before, self._compressed)
            self._before = self._compressed = None
        do(self.learner)

    def compressed(self) -> CompressedModel:
        """Return the compressed model to be packed."""
        return self._compressed or self._deploy(fold=True)
