"""Calibration inputs of whatever ``--data`` names, for commands that work on a PyTorch module."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import SpecError
from attar._src.data.axes import Dynamic
from attar._src.data.dataset import Dataset, holdout
from attar._src.data.huggingface import HF
from attar._src.data.preprocessing import parse_preprocessing
from attar._src.data.registry import load_examples
from attar._src.data.texts import Texts
from attar._src.data.tokenizer import Tokenizer
from attar._src.runtime.preprocess import preprocess as preprocess_examples

#: Examples on which a drop is measured by default, and the most of them that a small bound asks for.
VALIDATION, _MOST = 2000, 10_000
#: Share of predictions that a file changes which nearly holds a small bound.
_CHANGED = 0.005


@dataclass(frozen=True)
class DataChoice:
    """What the options say about the data.

    Attributes:
        data: of ``--data``.
        split: of it.
        model: whose tokenizer texts take by default.
        preprocess: name or JSON of the preprocessing; None for that of the data set.
        tokenizer, max_length: for texts.
        fixed_batch: batch size of a module that cannot vary it.
        axes: of variable length.
        examples, seed: how many are drawn, and how.
        hold_out: share of a data set with labels that is held out as a recipe does, so that the others may be trained
            on; the examples that calibrate, and those on which a drop is measured, are drawn from the two parts.
        validation: how many others of a data set are drawn on which a drop is measured; where there are too few for
            both all but those that calibrate, or half of it if that is more. None: of a data set as many as ``bound``
            asks for; other data are divided later.
        bound: points that may be lost on these (:func:`examples_for_bound`); None if that is not known.
        metric: that judges instead of the data set's.
    """

    data: str
    split: str
    model: str
    preprocess: str | None = None
    tokenizer: str | None = None
    max_length: int | None = None
    fixed_batch: int | None = None
    axes: Dynamic = None
    examples: int = 512
    seed: int = 0
    validation: int | None = 0
    bound: float | None = None
    hold_out: float = 0.0
    metric: str | None = None


def examples_for_bound(bound: float | None) -> int:
    """Return how many examples tell a loss of ``bound`` points, 2,000 at least and 10,000 at most.

    Of n examples, of which a share c is predicted otherwise, one standard error is ``100 sqrt(c / n)`` points. It is
    the bound with ``n = c (100 / bound)^2``, where a file changes one prediction in 200.

    Example: half a point is told by 2,000, for which 200 were enough; 0.1 points by 5,000.

        >>> examples_for_bound(0.5), examples_for_bound(0.1), examples_for_bound(0.01)
        (2000, 5000, 10000)
    """
    return VALIDATION if not bound else min(max(VALIDATION, math.ceil(_CHANGED * (100 / bound) ** 2)), _MOST)


@dataclass(frozen=True)
class ChosenInputs:
    """Inputs of a module, and what is known of them.

    Attributes:
        inputs: as ``attar.quantize`` takes them.
        about: labels, task, class names and metric.
        preprocessing: from raw examples to inputs.
        axes: of variable length.
        not_held_out: why no examples were held out as a recipe does; empty if they were, or were not to be.
    """

    inputs: Any
    about: dict[str, Any]
    preprocessing: Preprocessing | None
    axes: Dynamic
    not_held_out: str = ""


def chosen_inputs(choice: DataChoice) -> ChosenInputs:
    """Load, draw and preprocess the examples.

    Raises:
        SpecError: an option does not fit the data.
    """
    dataset = load_examples(choice.data, choice.split)
    if choice.validation and not isinstance(dataset, Dataset):
        raise SpecError(
            f"--validation draws from a data set, and {choice.data} gives a {type(dataset).__name__}; leave it out: "
            "a part of the examples is held out, so raise --examples"
        )
    preprocessing = parse_preprocessing(choice.preprocess) if choice.preprocess else None
    inputs: Any = dataset
    about: dict[str, Any] = {}
    axes = choice.axes
    if isinstance(dataset, Texts):
        tokenizer = _tokenizer(choice.tokenizer, choice.model, choice.max_length)
        drawn = dataset.subset(choice.examples, choice.seed)
        inputs, about = _tokenized(drawn, tokenizer, choice.fixed_batch or 64, axes)
        # Without a word, any number of texts of any length.
        axes = (0, 1) if axes is None else axes
    elif choice.tokenizer or choice.max_length:
        raise SpecError(f"--tokenizer and --max-length are for texts, --data text:PATH; {choice.data} is none")
    refused = (
        f"{choice.data} gives a {type(dataset).__name__} that is no pair of examples and one class for each, and "
        "training takes labels; with others return attar.extend.Dataset(x, y, name, split, task='segmentation')"
    )
    if isinstance(dataset, Dataset):
        refused = "the examples have no labels" if dataset.y is None else ""
        preprocessing = preprocessing if choice.preprocess else _usual_preprocessing(dataset)
        some, rest = _divided(dataset, choice, hold_out=bool(choice.hold_out) and not refused)
        inputs, *held = [
            preprocess_examples(preprocessing, each.x) if preprocessing else each.x for each in (some, *rest)
        ]
        about = {"validation": held[0] if some.y is None else (held[0], rest[0].y)} if rest else {}
        about |= {
            "labels": some.y,
            "task": dataset.task,
            "class_names": dataset.class_names,
            "metric": dataset.metric,
        }
    elif preprocessing is not None:
        raise SpecError(f"--preprocessing: {choice.data} gives a {type(dataset).__name__}, not arrays; prepare there")
    if choice.metric is not None:
        about["metric"] = choice.metric
    return ChosenInputs(inputs, about, preprocessing, axes, refused)


def _divided(dataset: Dataset, choice: DataChoice, *, hold_out: bool) -> tuple[Dataset, list[Dataset]]:
    """Return the examples that calibrate, and those on which a drop is measured, if any are asked for."""
    asked = examples_for_bound(choice.bound) if choice.validation is None else choice.validation
    if hold_out:
        kept, held = holdout(dataset, choice.hold_out)
        calibrating = kept.subset(min(choice.examples, len(kept)), choice.seed)
        return calibrating, [held.subset(min(asked, len(held)), choice.seed)]
    others = min(asked, max(len(dataset) - choice.examples, len(dataset) // 2))
    count = min(choice.examples, len(dataset) - others)
    some = dataset.subset(count + others, choice.seed)
    place = np.arange(len(some))
    return some.take(place[:count]), [some.take(place[count:])] if others else []


def call_with_data(
    function: str,
    choice: DataChoice,
    arguments: Mapping[str, Any],
    weights: Path | None,
    about_data: Callable[[ChosenInputs], Mapping[str, Any]] | None = None,
    **options: Any,
) -> Any:
    """Call a function that takes a module and inputs, as ``attar.quantize`` does, and return what it returns.

    Args:
        function: ``package.module:name``, imported now: most commands run without PyTorch.
        choice: of the data.
        arguments: of the function or class that makes the module ``choice.model``.
        weights: of the module; None for those that it has.
        about_data: returns further options that follow from the data.
        options: of the function.

    Raises:
        SpecError: an option does not fit the data.
    """
    build = importlib.import_module("attar._src.deploy.build_module")
    place, _, name = function.partition(":")
    made = getattr(importlib.import_module(place), name)
    chosen = chosen_inputs(choice)
    more = about_data(chosen) if about_data else {}
    takes = {"preprocessing": chosen.preprocessing} if "preprocessing" in signature(made).parameters else {}
    return made(
        build.build_module(build.find_model(choice.model), arguments, weights),
        chosen.inputs,
        examples=choice.examples,
        batch=choice.fixed_batch or 64,
        dynamic=chosen.axes,
        **takes,
        **chosen.about,
        **options,
        **more,
    )


def _tokenizer(folder: str | None, model: str, max_length: int | None) -> Tokenizer:
    if folder is None and not model.startswith(HF):
        raise SpecError(
            f"--data text:PATH takes the tokenizer of a model hf:FOLDER, and {model} is none; add --tokenizer FOLDER"
        )
    return Tokenizer(folder or model, max_length)


def _tokenized(
    texts: Texts, tokenizer: Tokenizer, batch: int, axes: Dynamic
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return batches of inputs, and what ``attar.quantize`` should know of their labels."""
    targets = texts.targets(tokenizer.classes)
    every = axes.values() if isinstance(axes, Mapping) else [axes]
    one_length = not any(each is None or 1 in each for each in every)
    classes = targets is not None and targets.dtype.kind == "i"
    about = {"task": "classification", "class_names": tokenizer.class_names, "metric": "accuracy"} if classes else {}
    return tokenizer.batches(texts, batch, fixed=one_length), about | {"labels": targets}


def _usual_preprocessing(dataset: Dataset) -> Preprocessing | None:
    """Return the data set's own preprocessing, or None if its examples are inputs.

    Bytes and booleans rarely are: they store images and masks. Integers of other types are taken as tokens.
    """
    kind = dataset.x.dtype
    if dataset.preprocessing is None and kind in (np.uint8, np.bool_):
        example = '{"layout": "NC"' + (', "scale": 0.00392' if kind == np.uint8 else "") + "}"
        raise SpecError(
            f"{dataset.name}: the examples are {kind} of shape {dataset.x.shape} and have no preprocessing to float32; "
            f"add --preprocessing: unit divides images (NCHW) by 255, '{example}' suits examples with other axes, "
            "none is for a module that takes raw examples"
        )
    return dataset.preprocessing
