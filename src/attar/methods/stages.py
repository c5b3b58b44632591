"""The stages there are; a recipe's stage is one of them, by its ``stage``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag

from attar.methods.finetune import Finetune
from attar.methods.presets import Distill, PruneStage, QuantizeStage, Train
from attar.methods.quantize.stage import Quantize
from attar.work.context import Training

#: Stages that train, in the order in which documents name them.
TRAINING: tuple[type[Training], ...] = (Train, Distill, PruneStage, QuantizeStage, Finetune)

_TRAINED = "quantize with epochs"


def _tag(given: Any) -> str:
    fields = given if isinstance(given, dict) else vars(given) if hasattr(given, "__dict__") else {}
    stage = str(fields.get("stage"))
    return _TRAINED if stage == "quantize" and "epochs" in fields else stage


if TYPE_CHECKING:
    StageChoice = Training | Quantize
else:
    #: The type of a stage in a recipe: ``quantize`` trains where it has ``epochs``, and rounds afterwards where not.
    StageChoice = Annotated[
        Annotated[Train, Tag("train")]
        | Annotated[Distill, Tag("distill")]
        | Annotated[PruneStage, Tag("prune")]
        | Annotated[QuantizeStage, Tag(_TRAINED)]
        | Annotated[Quantize, Tag("quantize")]
        | Annotated[Finetune, Tag("finetune")],
        Discriminator(_tag),
    ]
