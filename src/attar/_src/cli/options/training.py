"""Options of commands that may train: what the recipes of a search are made of."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from attar._src.cli.options.calibration import ChosenInputs, DataChoice
from attar._src.core.errors import SpecError

#: Share of the examples that is held out to judge files where something may be trained, as recipes do.
HELD_OUT = 0.1
#: Data set -> the augmentation that its networks are usually trained with.
USUAL_AUGMENTATION: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "digits": ({"name": "crop", "padding": 1},),
    "mnist": ({"name": "crop", "padding": 2},),
    "cifar10": ({"name": "crop", "padding": 4}, {"name": "flip"}),
}


@dataclass(frozen=True)
class TrainingChoice:
    """What the options say about training.

    Attributes:
        train: whether to train; None if the data have labels.
        choice: of the data.
        arguments, weights: of the module.
        teacher: reference of the function of another module to learn from.
        teacher_arguments, teacher_weights: of it.
        augment: texts of ``--augment``; None for what is usual.
        epochs: of a whole training.
        said: why nothing is trained, to be told.
    """

    train: bool | None
    choice: DataChoice
    arguments: Mapping[str, Any]
    weights: Path | None
    teacher: str | None = None
    teacher_arguments: Mapping[str, Any] = field(default_factory=dict)
    teacher_weights: Path | None = None
    augment: Sequence[str] | None = None
    epochs: int | None = None
    said: list[str] = field(default_factory=list)

    def options(self, chosen: ChosenInputs) -> dict[str, Any]:
        """Return ``train`` of ``attar.compress`` for these data.

        Raises:
            SpecError: training was asked for, and the data cannot be trained on.
        """
        if self.train is False:
            return {}
        why = chosen.not_held_out
        if not why and (self.choice.preprocess or "").startswith("{"):
            why = "a recipe takes a preprocessing by its name, and --preprocessing is JSON"
        if why and self.train:
            raise SpecError(f"--train: {why}; write a recipe (attar run), or --no-train")
        if why:
            self.said.append(f"nothing was trained: {why}")
            return {}
        data: dict[str, Any] = {
            "source": self.choice.data,
            "validation": self.choice.hold_out,
            "preprocessing": self.choice.preprocess,
            "augment": parse_augmentations(self.augment, self.choice.data),
            "calibration": self.choice.examples,
        }
        model = _source(self.choice.model, self.arguments, self.weights)
        taught = None if self.teacher is None else _source(self.teacher, self.teacher_arguments, self.teacher_weights)
        # Imported with the search, after PyTorch.
        parts = importlib.import_module("attar._src.search.training.parts").TrainingParts
        return {"train": parts(data, model, taught, self.epochs)}


def parse_augmentations(texts: Sequence[str] | None, data: str) -> list[dict[str, Any]]:
    """Return ``["crop:4", "flip"]`` as a recipe has it; without any, what is usual for the data set; ``none``: none.

    Raises:
        typer.BadParameter: a text cannot be read.
    """
    if texts is None:
        return [dict(each) for each in USUAL_AUGMENTATION.get(data, ())]
    if list(texts) == ["none"]:
        return []
    found: list[dict[str, Any]] = []
    for text in texts:
        name, _, padding = text.partition(":")
        if name == "none" or (padding and not (name == "crop" and padding.isdigit() and int(padding))):
            raise typer.BadParameter(f"--augment {text!r}: write crop:PADDING, flip, noise or cutmix; or none alone")
        found.append({"name": name} | ({"padding": int(padding)} if padding else {}))
    return found


def _source(factory: str, arguments: Mapping[str, Any], weights: Path | None) -> dict[str, Any]:
    return {
        "factory": factory,
        "arguments": dict(arguments),
        **({} if weights is None else {"weights": str(weights)}),
    }
