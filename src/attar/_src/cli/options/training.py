"""Options of commands that may train: what the recipes of a search are made of."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from attar._src.cli.options.calibration import ChosenInputs, DataChoice
from attar._src.cli.options.shared import ModuleOptions
from attar._src.cli.options.texts import parse_arguments
from attar._src.core.errors import SpecError

#: Under which ``--help`` lists the options of a training.
TRAINING_PANEL = "Training"
#: Share of the examples that is held out to judge files where something may be trained, as recipes do.
HELD_OUT = 0.1
#: Data set -> the augmentation that its networks are usually trained with.
USUAL_AUGMENTATION: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "digits": ({"name": "crop", "padding": 1},),
    "mnist": ({"name": "crop", "padding": 2},),
    "cifar10": ({"name": "crop", "padding": 4}, {"name": "flip"}),
}


@dataclass(frozen=True)
class SearchOptions(ModuleOptions):
    """Options of commands that search for files, and may train them."""

    validation: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Examples of a data set that judge files, of the same split; 2000 by default, up to 10000 for a loss "
            "of less than a sixth of a point.",
        ),
    ] = None
    keep: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Layers in floating point; repeatable.")] = None
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, stored in the files.")] = None
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Module that trained files learn from; the model itself by default.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None
    teacher_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the teacher.", rich_help_panel=TRAINING_PANEL)
    ] = None
    teacher_arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher-arg",
            metavar="NAME=VALUE",
            help="As --arg, of the teacher.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="crop:N|flip|...|none",
            help="Random changes of training examples; repeatable. By default those usual for digits, mnist, cifar10.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs of one training; by default 20 or 30, or what --time allows.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None

    @property
    def of_training(self) -> list[str]:
        """The options that were given and are of a training."""
        given = {
            "--teacher": self.teacher,
            "--teacher-weights": self.teacher_weights,
            "--teacher-arg": self.teacher_arguments,
            "--augment": self.augment,
            "--epochs": self.epochs,
        }
        return [name for name, value in given.items() if value]

    def search_choice(self, train: bool | None, fix: str, bound: float | None) -> TrainingChoice:
        """Return what the options say about the data and about training.

        Args:
            train: whether anything may be trained; None if the data have labels.
            fix: what allows it.
            bound: points that a file may lose, if that is bounded.

        Raises:
            typer.BadParameter: options contradict each other.
        """
        if self.teacher is None and (self.teacher_weights or self.teacher_arguments):
            raise typer.BadParameter("--teacher-weights and --teacher-arg are of a --teacher MODEL; add it")
        if train is False and self.of_training:
            raise typer.BadParameter(f"{', '.join(self.of_training)}: only for a training; {fix}")
        if self.split != "train" and train is not False:
            if train:
                raise typer.BadParameter(
                    f"--train: recipes train on the split train, not {self.split}; leave out --split"
                )
            if self.of_training:
                raise typer.BadParameter(
                    f"{', '.join(self.of_training)}: only for a training, on the split train; leave out --split"
                )
            train = False
        parse_augmentations(self.augment, self.data)
        choice = self.choice(self.validation, 0.0 if train is False else HELD_OUT, bound)
        return TrainingChoice(train, self, choice)


@dataclass(frozen=True)
class TrainingChoice:
    """What the options say about training.

    Attributes:
        train: whether to train; None if the data have labels.
        of: the options.
        choice: of the data.
        said: why nothing is trained, to be told.
    """

    train: bool | None
    of: SearchOptions
    choice: DataChoice
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
            "augment": parse_augmentations(self.of.augment, self.choice.data),
            "calibration": self.choice.examples,
        }
        of = self.of
        model = _source(of.model, of.passed, of.weights)
        arguments = parse_arguments(of.teacher_arguments or [])
        taught = None if of.teacher is None else _source(of.teacher, arguments, of.teacher_weights)
        # Imported with the search, after PyTorch.
        parts = importlib.import_module("attar._src.search.training.parts").TrainingParts
        return {"train": parts(data, model, taught, of.epochs)}


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
