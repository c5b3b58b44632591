"""Base of the losses without trainable parameters."""

from __future__ import annotations

import torch

from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term


class StatelessTerm(Term):
    """A term whose objective has no parameters: the loss is a method."""

    def loss(self, sources: LossInputs) -> torch.Tensor:
        """Return the loss, a scalar: the mean over the examples of the batch."""
        raise NotImplementedError

    def build(self, learner: Learner) -> Objective:
        return _Stateless(self)


class _Stateless(Objective):
    def __init__(self, term: StatelessTerm) -> None:
        super().__init__()
        self.term = term

    def forward(self, sources: LossInputs) -> torch.Tensor:
        return self.term.loss(sources)
