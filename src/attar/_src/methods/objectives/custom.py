"""A user's own loss, from a file or an object of Python."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from pydantic import field_serializer
from pydantic.json_schema import SkipJsonSchema
from torch import nn

from attar._src.core.describe import reference_name
from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.methods.objectives.soft_targets import Teachers, teacher_shares
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective, Term


class CustomLoss(Term):
    """A loss of one's own: ``{name: losses.py:focal, arguments: {gamma: 2}}``.

    It is either called as ``loss(outputs, targets)`` with the student's main output and the targets: a function, a
    ``torch.nn.Module`` or its class; or it is an ``Objective`` or its class, which is
    called with all ``LossInputs`` and may own parameters to train. An object is copied for each
    stage that trains with it, and is not changed itself.

    Attributes:
        name: ``file.py:name``, ``package.module:name`` or the object.
        arguments: keyword arguments: of a class when it is made, of a function whenever it is called.
        teacher: models whose outputs an Objective looks at.
        labels: whether it needs targets.
    """

    name: str | SkipJsonSchema[Any]
    arguments: dict[str, Any] = {}
    teacher: Teachers = ()
    labels: bool = True

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What it needs: ``labels``, unless it says that it does not."""
        return frozenset({"labels"} if self.labels else ())

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models whose outputs it needs."""
        return tuple(teacher_shares(self.teacher)) if self.teacher else ()

    def build(self, learner: Learner) -> Objective:
        """Return the loss as an objective.

        Raises:
            SpecError: the name leads to nothing that can be called.
        """
        found = load_object(self.name) if isinstance(self.name, str) else self.name
        what = reference_name(self.name)
        made = isinstance(found, type)
        arguments = copy_object(self.arguments, what)
        found = found(**arguments) if made else copy_object(found, what)
        if not made and self.arguments and isinstance(found, nn.Module):
            raise SpecError(f"{what} is made already and takes no arguments; name its class, or leave them out")
        if isinstance(found, Objective):
            return found
        if not callable(found):
            raise SpecError(f"{what} is a {type(found).__name__}; a loss is called as loss(outputs, targets)")
        called = functools.partial(found, **arguments) if arguments and not made else found
        return _Called(called, what)

    @field_serializer("name")
    def _written(self, name: Any) -> str:
        return reference_name(name)


def copy_object(found: Any, what: str) -> Any:
    """Return a copy of a user's object: what one stage, seed or model makes of it, no other gets.

    Raises:
        SpecError: it cannot be copied.
    """
    try:
        return copy.deepcopy(found)
    except Exception as error:
        raise SpecError(f"{what} cannot be copied ({type(error).__name__}: {error}); name its class instead") from error


class _Called(Objective):
    def __init__(self, loss: Callable[..., Any], what: str) -> None:
        super().__init__()
        # Where it is a module, its parameters are trained with the student's.
        self.loss, self.what = loss, what

    def forward(self, sources: LossInputs) -> torch.Tensor:
        found = self.loss(sources.outputs, sources.batch.targets)
        if not isinstance(found, torch.Tensor) or found.dim():
            raise SpecError(f"{self.what} returned {_shape(found)}; a loss is one number: the mean over the batch")
        return found


def _shape(found: Any) -> str:
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
