"""The registry of stages, and the type of a stage in a recipe."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.core.spec import build_spec
from attar._src.methods.finetune import Finetune
from attar._src.methods.presets import Compress, Distill, PruneStage, QuantizeStage, Train
from attar._src.methods.prune.channels.stage import PruneChannels
from attar._src.methods.prune.layers.stage import PruneLayers
from attar._src.methods.prune.weights.stage import PruneWeights
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.work.stage import Stage

#: In the order of the documentation.
STAGES: tuple[type[Stage], ...] = (
    Train,
    Distill,
    PruneStage,
    PruneChannels,
    PruneWeights,
    PruneLayers,
    QuantizeStage,
    PostTrainingQuantize,
    Reconstruct,
    Compress,
    Finetune,
)

_TRAINED = "quantize with epochs"
#: Fields of the training ``quantize`` that the post-training one lacks.
_TRAINING_ONLY = QuantizeStage.model_fields.keys() - PostTrainingQuantize.model_fields.keys()


def _name(stage: type[Stage]) -> str:
    return str(stage.model_fields["stage"].default)


def _tag(value: Any) -> str:
    fields = value if isinstance(value, dict) else vars(value) if hasattr(value, "__dict__") else {}
    stage = str(fields.get("stage"))
    trains = any(name in _TRAINING_ONLY or _is_near_epochs(str(name)) for name in fields)
    return _TRAINED if stage == "quantize" and trains else stage


def _is_near_epochs(name: str) -> bool:
    """Return whether a key is a misspelt ``epochs``, so that the error suggests it."""
    unknown = name not in PostTrainingQuantize.model_fields
    return unknown and bool(difflib.get_close_matches(name.lower(), ["epochs"], cutoff=0.75))


def _custom(value: Any, check: Callable[[Any], Any]) -> Any:
    """Accept a user's own stage: an object, or ``file.py:name`` of a class."""
    if isinstance(value, Stage) and not isinstance(value, STAGES):
        return value
    if not isinstance(value, dict):
        return check(value)
    name = value.get("stage")
    if not isinstance(name, str):
        words = ", ".join(dict.fromkeys(map(_name, STAGES)))
        raise PydanticCustomError(
            "stage", "{why}", {"why": f"the key stage is missing; add one, as in stage: train (known: {words})"}
        )
    if ":" not in name:
        return check(value)
    custom = load_object(name)
    if not isinstance(custom, type) or not issubclass(custom, Stage):
        raise SpecError(f"{name} is not a stage; give a subclass of attar.extend.Stage")
    return build_spec(custom, where=name, **value)


_OWN_STAGE = {"type": "object", "properties": {"stage": {"type": "string", "pattern": ":"}}, "required": ["stage"]}

if TYPE_CHECKING:
    StageChoice = Stage
else:
    _KNOWN = Annotated[
        reduce(or_, [Annotated[each, Tag(_TRAINED if each is QuantizeStage else _name(each))] for each in STAGES]),
        Discriminator(_tag),
    ]
    #: The type of a stage in a recipe. A ``quantize`` with ``epochs`` or another field of training is QuantizeStage.
    StageChoice = Annotated[
        _KNOWN,
        WrapValidator(_custom, json_schema_input_type=_KNOWN | Annotated[dict[str, Any], WithJsonSchema(_OWN_STAGE)]),
    ]
