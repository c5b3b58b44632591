"""A user's own loss, from a file or a Python object."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import PlainSerializer
from pydantic.json_schema import SkipJsonSchema
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.core.spec import reference_name
from attar._src.methods.objectives.soft_targets import Teachers, teacher_shares
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term

#: A user's object, or where it is: ``file.py:name`` or ``package.module:name``; in records its name.
ObjectName = Annotated[str | SkipJsonSchema[Any], PlainSerializer(reference_name)]


class CustomLoss(Term):
    """A user's own loss: ``{name: losses.py:focal, arguments: {gamma: 2}}``.

    A function, a ``torch.nn.Module`` or its class is called as ``loss(outputs, targets)`` with the student's main
    output; an ``Objective`` or its class is called with ``LossInputs``. Objects are copied for each stage.

    Attributes:
        arguments: keyword arguments: to a class at construction, to a function at every call.
        teacher: models whose outputs an Objective reads.
        labels: whether it needs targets.
    """

    name: ObjectName
    arguments: dict[str, Any] = {}
    teacher: Teachers = ()
    labels: bool = True

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"labels"} if self.labels else ())

    def teachers(self) -> tuple[str, ...]:
        return tuple(teacher_shares(self.teacher)) if self.teacher else ()

    def build(self, learner: Learner) -> Objective:
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


def copy_object(found: Any, what: str) -> Any:
    """Return a deep copy of a user's object, so that stages, seeds and models do not share its state."""
    try:
        return copy.deepcopy(found)
    except Exception as error:
        raise SpecError(f"{what} cannot be copied ({type(error).__name__}: {error}); name its class instead") from error


def require_scalar(loss: Any, what: str) -> torch.Tensor:
    """Return the loss, or raise a :class:`SpecError` that ``what`` returned something else than one number."""
    if isinstance(loss, torch.Tensor) and not loss.dim():
        return loss
    arrived = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
    raise SpecError(f"{what} returned {arrived}; a loss is one number: the mean over the batch")


class _Called(Objective):
    def __init__(self, loss: Callable[..., Any], what: str) -> None:
        super().__init__()
        self.loss, self.what = loss, what  # the parameters of a module are trained with the student's

    def forward(self, sources: LossInputs) -> torch.Tensor:
        return require_scalar(self.loss(sources.outputs, sources.batch.targets), self.what)
