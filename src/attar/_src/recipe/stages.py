"""Stages of a recipe: those there are, and a user's own ``file.py:name`` or object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WrapValidator
from pydantic_core import PydanticCustomError

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.core.spec import build_spec
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.stages import TRAINING, StageChoice
from attar._src.work.context import Training


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
        raise SpecError(f"{name} is no stage; a subclass of attar._src.work.context.Training was expected")
    return build_spec(found, where=name, **given)


if TYPE_CHECKING:
    Stage = Training | PostTrainingQuantize
else:
    #: The type of a stage in a recipe.
    Stage = Annotated[StageChoice, WrapValidator(_own)]
