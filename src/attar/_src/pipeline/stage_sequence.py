"""The stages of one model in order: what each works on is made of what the one before it left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attar._src.methods.quantize.solved_grids import adopt
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


class StageSequence:
    """A model on its way through its stages.

    Args:
        learner: the model before its first stage.
        stages: all of them.
        deploy: what makes a compressed model of the learner; called with ``fold=False`` where training follows.
    """

    def __init__(
        self, learner: Learner, stages: Sequence[Stage], deploy: Callable[..., CompressedModel] | None = None
    ) -> None:
        self.learner, self.stages = learner, stages
        self._deploy = deploy or learner.deployed
        self._before: CompressedModel | None = None
        self._compressed: CompressedModel | None = None

    def apply(self, index: int, do: Callable[[Any], Any]) -> None:
        """Do one stage, the next in order.

        Args:
            index: its position.
            do: called with a Learner or a CompressedModel, as the stage works on; returns the same kind.
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
        """Return the model as its file will hold it."""
        return self._compressed or self._deploy(fold=True)
