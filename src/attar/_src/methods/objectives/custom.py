"""A user's own loss, from a file or a Python object."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from pydantic import field_serializer
from pydantic.json_schema import SkipJsonSchema
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.core.spec import reference_name
from attar._src.methods.objectives.soft_targets import Teachers, teacher_shares
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term


class CustomLoss(Term):
    """A user's own loss: ``{name: losses.py:focal, arguments: {gamma: 2}}``.

    A function, a ``torch.nn.Module`` or its class is called as ``loss(outputs, targets)`` with the student's main
    output. An ``Objective`` or its class is called with ``LossInputs`` and may have trainable parameters. Objects are
    copied for each stage, never changed.

    Attributes:
        name: ``file.py:name``, ``package.module:name`` or the object.
        arguments: keyword arguments: to a class at construction, to a function at every call.
        teacher: models whose outputs an Objective reads.
        labels: whether it needs targets.
    """

    name: str | SkipJsonSchema[Any]
    arguments: dict[str, Any] = {}
    teacher: Teachers = ()
    labels: bool = True

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """``{"labels"}`` if ``labels`` is set."""
        return frozenset({"labels"} if self.labels else ())

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the teachers; none by default."""
        return tuple(teacher_shares(self.teacher)) if self.teacher else ()

    def build(self, learner: Learner) -> Objective:
        """Return the loss as an objective.

        Raises:
            SpecError: the object is not callable, cannot be copied, or is an instance and got arguments.
        """
        found = load_object(self.name) if isinstance(self.name, str) else self.name
        what = reference_name(self.name)
        made = isinstance(found, type)
        arguments = copy_object(self.arguments, what)
        found = found(**arguments) if made else copy_object(found, what)
        if not made and self.arguments and isinstance(found, nn.Module):
            raise SpecError(f"{what} is an instance and takes no arguments; name its class or drop the arguments")
        if isinstance(found, Objective):
            return found
        if not callable(found):
            raise SpecError(f"{what} is a {type(found).__name__}, not callable as loss(outputs, targets)")
        called = functools.partial(found, **arguments) if arguments and not made else found
        return _Called(called, what)

    @field_serializer("name")
    def _written(self, name: Any) -> str:
        return reference_name(name)


def copy_object(found: Any, what: str) -> Any:
    """Return a deep copy of a user's object, so that stages, seeds and models do not share its state.

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
        # If it is a module, its parameters are trained with the student's.
        self.loss, self.what = loss, what

    def forward(self, sources: LossInputs) -> torch.Tensor:
        found = self.loss(sources.outputs, sources.batch.targets)
        if not isinstance(found, torch.Tensor) or found.dim():
            raise SpecError(f"{self.what} returned {_shape(found)}; a loss is one number: the mean over the batch")
        return found


def _shape(found: Any) -> str:
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
