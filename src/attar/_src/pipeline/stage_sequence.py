"""The stages of one model in order, with the conversion between learner and compressed model that each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attar._src.methods.quantize.fixed_grids import adopt
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


class StageSequence:
    """A model going through its stages.

    ``deploy`` makes a compressed model, by default ``learner.deployed``. It is called with ``fold=False`` if a training
    stage follows, because folded batch-norms cannot be trained.
    """

    def __init__(
        self, learner: Learner, stages: Sequence[Stage], deploy: Callable[..., CompressedModel] | None = None
    ) -> None:
        self.learner, self.stages = learner, stages
        self._deploy = deploy or learner.deployed
        self._before: CompressedModel | None = None
        self._compressed: CompressedModel | None = None

    def apply(self, index: int, do: Callable[[Stage, Any], Any]) -> None:
        """Apply the stage at ``index``, the next in order.

        ``do`` gets the stage and a Learner or CompressedModel, as the stage's ``works_on`` says, and returns the same.
        """
        stage = self.stages[index]
        if stage.works_on is CompressedModel:
            if self._compressed is None:
                trained_later = any(each.works_on is Learner for each in self.stages[index + 1 :])
                self._before = self._compressed = self._deploy(fold=not trained_later)
            self._compressed = do(stage, self._compressed)
            return
        if self._compressed is not None and self._before is not None:
            adopt(self.learner, self._before, self._compressed)
            self._before = self._compressed = None
        do(stage, self.learner)

    def compressed(self) -> CompressedModel:
        """Return the compressed model to be packed."""
        return self._compressed or self._deploy(fold=True)
