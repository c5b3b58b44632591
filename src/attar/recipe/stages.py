"""Stages of a recipe: those there are, and a user's own ``file.py:name`` or object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WrapValidator
from pydantic_core import PydanticCustomError

from attar.core.errors import SpecError
from attar.core.registry import load_object
from attar.core.spec import build
from attar.methods.quantize.stage import Quantize
from attar.methods.stages import TRAINING, StageChoice
from attar.work.context import Training


def _own(given: Any, check: Callable[[Any], Any]) -> Any:
    if isinstance(given, Training) and not isinstance(given, TRAINING):
        return given
    if not isinstance(given, dict):
        return check(given)
    name = given.get("stage")
    if not isinstance(name, str):
        words = ", ".join(dict.fromkeys(str(each.model_fields["stage"].default) for each in TRAINING))
        raise PydanticCustomError("stage", "{why}", {"why": f"no key stage; write stage: train ({words})"})
    if ":" not in name:
        return check(given)
    found = load_object(name)
    if not isinstance(found, type) or not issubclass(found, Training):
        raise SpecError(f"{name} is no stage; a subclass of attar.work.context.Training was expected")
    return build(found, where=name, **given)


if TYPE_CHECKING:
    Stage = Training | Quantize
else:
    #: The type of a stage in a recipe.
    Stage = Annotated[StageChoice, WrapValidator(_own)]
