"""The stages there are; a recipe's stage is one of them, by its ``stage``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag

from attar._src.methods.finetune import Finetune
from attar._src.methods.presets import Compress, Distill, PruneStage, QuantizeStage, Train
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.work.context import Training

#: Stages that train, in the order in which documents name them.
TRAINING: tuple[type[Training], ...] = (Train, Distill, PruneStage, QuantizeStage, Compress, Finetune)

_TRAINED = "quantize with epochs"
#: Fields that only the ``quantize`` that trains has.
_TRAINING_ONLY = QuantizeStage.model_fields.keys() - PostTrainingQuantize.model_fields.keys()


def _tag(given: Any) -> str:
    fields = given if isinstance(given, dict) else vars(given) if hasattr(given, "__dict__") else {}
    stage = str(fields.get("stage"))
    trains = any(name in _TRAINING_ONLY or _is_near_epochs(str(name)) for name in fields)
    return _TRAINED if stage == "quantize" and trains else stage


def _is_near_epochs(name: str) -> bool:
    """True for a misspelling: the message shall then say so."""
    return name not in PostTrainingQuantize.model_fields and bool(
        difflib.get_close_matches(name.lower(), ["epochs"], cutoff=0.75)
    )


if TYPE_CHECKING:
    StageChoice = Training | PostTrainingQuantize
else:
    #: The type of a stage in a recipe: ``quantize`` trains where it has ``epochs`` or another field of
    #: training, and rounds afterwards where not.
    StageChoice = Annotated[
        Annotated[Train, Tag("train")]
        | Annotated[Distill, Tag("distill")]
        | Annotated[PruneStage, Tag("prune")]
        | Annotated[QuantizeStage, Tag(_TRAINED)]
        | Annotated[PostTrainingQuantize, Tag("quantize")]
        | Annotated[Compress, Tag("compress")]
        | Annotated[Finetune, Tag("finetune")],
        Discriminator(_tag),
    ]
