"""Training examples and teachers as users give them to a search, as parts of its recipes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import SpecError
from attar._src.model.forms.as_module import as_module
from attar._src.search.training.parts import TrainingParts, divide


def training_parts(
    module: Any,
    data: Any,
    validation: Any,
    preprocessing: Preprocessing | None,
    train: Any,
    teacher: Any,
    augment: Sequence[Any],
    epochs: Any,
) -> tuple[Any, Any, Preprocessing | None, TrainingParts | None]:
    """Return calibration data, validation, preprocessing, and the parts of the recipes; None if nothing is trained.

    Args:
        module, data, validation, preprocessing, train, teacher, augment, epochs: of ``attar.compress``.

    Raises:
        SpecError: they do not fit each other.
        DataError: as :func:`divide`.
    """
    if isinstance(train, TrainingParts):
        return data, validation, preprocessing, train
    if train is None or train is False:
        if teacher is not None or augment or epochs is not None:
            raise SpecError("teacher=, augment= and epochs= are of a training; add train=(x, y), or train=True")
        return data, validation, preprocessing, None
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, Integral) or epochs < 1):
        raise SpecError(f"epochs={epochs!r}: give how often a training sees its examples, 1 or more, or none")
    if train is True and validation is not None:
        raise SpecError("train=True holds validation examples out of data; give train=(x, y) beside validation=")
    if train is not True and validation is None:
        raise SpecError(
            "train=(x, y) needs validation=, examples that neither train nor data have; or give all as data, with "
            "train=True, which holds a tenth out"
        )
    if preprocessing is not None:
        raise SpecError(
            "preprocessing= is of raw examples, and training takes inputs; give train an attar.extend.Dataset of raw "
            "examples with this preprocessing"
        )
    divided = divide(data if train is True else train, validation, augment)
    source = {"factory": as_module(module)[0]}
    taught = None if teacher is None else {"factory": as_module(teacher)[0]}
    parts = TrainingParts(divided.data, source, taught, None if epochs is None else int(epochs))
    if train is True:
        return divided.calibration, divided.validation, divided.preprocessing, parts
    return data, divided.validation, divided.preprocessing, parts
