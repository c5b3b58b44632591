"""What a search may train with: data and models as parts of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError, SpecError, UnknownName
from attar._src.core.spec import build_spec
from attar._src.data.dataset import Dataset
from attar._src.pipeline.data_splits import load_splits
from attar._src.recipe.parts import DataSpec
from attar._src.runtime.preprocess import preprocess as preprocess_examples
from attar._src.train.augment import AUGMENTATIONS

#: Share of the training examples that is held out to judge files, as recipes do.
HELD_OUT_SHARE = 0.1
#: What may be trained on.
_FORMS = "a training takes arrays (x, y) or a Dataset, with labels and one input"


@dataclass(frozen=True)
class TrainingParts:
    """Parts of the recipes of a search.

    Attributes:
        data: the fields of ``data``.
        model: the fields of the ``source`` of the module that is compressed.
        teacher: those of the teacher's; the module itself if None.
        epochs: of a whole training; chosen by the number of examples and the time if None.
    """

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    teacher: Mapping[str, Any] | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        check_augmentations(self.data.get("augment", ()))


@dataclass(frozen=True)
class DividedData:
    """Training examples divided for a search.

    Attributes:
        calibration: inputs and labels that calibrate; training sees them, too.
        validation: inputs and labels that judge.
        preprocessing: that made the inputs of raw examples.
        data: the fields of ``data`` of a recipe that divides them alike.
    """

    calibration: tuple[Any, Any]
    validation: tuple[Any, Any]
    preprocessing: Preprocessing | None
    data: Mapping[str, Any]


def check_augmentations(augment: Sequence[Any]) -> None:
    """Refuse random changes that there are none of, as the argument that they are, not as a part of a recipe.

    Raises:
        SpecError: the message has the nearest name.
    """
    for each in augment:
        name = each.get("name") if isinstance(each, Mapping) else each
        if isinstance(name, str) and ":" not in name and name not in [*AUGMENTATIONS]:
            raise SpecError(f"augment={name!r}: {UnknownName(AUGMENTATIONS.noun, name, AUGMENTATIONS)}")


def divide(data: Any, validation: Any, augment: Sequence[Any]) -> DividedData:
    """Return training examples in those that train, or calibrate, and those that judge.

    Args:
        data: a :class:`Dataset`, or arrays ``(x, y)`` that the module takes.
        validation: examples that judge, in the same form; None to hold a tenth out.
        augment: of a recipe.

    Raises:
        DataError, SpecError: the data are none of these.
    """
    if hasattr(data, "shape"):
        raise DataError(
            f"{_FORMS}; one array of shape {tuple(data.shape)} came, without targets: those of labels= do not train"
        )
    check_augmentations(augment)
    plain = {} if isinstance(data, Dataset) else {"preprocessing": "none"}
    # A run checks that there is a test split; a search never reads it.
    source = {"train": data, "test": data} | ({} if validation is None else {"validation": validation})
    share = HELD_OUT_SHARE if validation is None else "own"
    fields = {"source": source, "validation": share, "augment": list(augment), **plain}
    splits = load_splits(build_spec(DataSpec, where="train", **fields), Path(), task=None, metric="accuracy")
    train, held = splits.train, splits.validation
    if held is None or train.loader is not None or len(train.inputs) > 1 or train.targets is None:
        raise SpecError(f"{_FORMS}; for loaders and several inputs write a recipe (attar.run)")
    use = splits.use.preprocessing
    pairs = [
        (each.inputs[0] if use is None else preprocess_examples(use, each.inputs[0]), each.targets)
        for each in (train, held)
    ]
    return DividedData(pairs[0], pairs[1], use, fields)
