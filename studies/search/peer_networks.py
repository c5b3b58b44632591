"""The networks that ``peers.py`` hands to each tool: trained, with examples to calibrate, to judge and to test on."""

from __future__ import annotations

import gzip
import os
import string
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.registry import load_object
from attar._src.data.dataset import Dataset, holdout
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.checkpoint import read_state
from attar._src.runtime.preprocess import preprocess

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]

import trained  # noqa: E402

#: Inputs ``(N, ...)`` and labels ``(N, ...)``.
Labelled = tuple[NDArray[Any], NDArray[np.int64]]
#: Main output and labels of some examples -> a value of each, the larger the better.
Judged = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float64]]

#: As ``attar compress`` draws them by default, and the share that ``attar run`` holds out.
CALIBRATION, VALIDATION, HELD_OUT = 512, 2000, 0.1
#: Characters of a piece of text, with one more to foretell; pieces that calibrate, and as many others that judge.
LENGTH, PIECES = 129, 256


@dataclass(frozen=True)
class Network:
    """A trained network, its examples, and what a file of it may lose.

    Attributes:
        module: in evaluation mode.
        calibration, validation, test: examples; a tool sees the first two, and labels of the second alone.
        judge: its mean over examples is the figure.
        unit: of a drop of the figure.
        scale: from the figure to this unit.
        max_drop: that a file may lose on the validation examples, in this unit.
        options: of ``attar compress``. A metric of which less is better loses per cent of itself there.
    """

    module: nn.Module
    calibration: Labelled
    validation: Labelled
    test: Labelled
    judge: Judged
    unit: str
    scale: float
    max_drop: float
    options: Mapping[str, Any] = field(default_factory=dict)


def right(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 for each example ``(N, classes)`` whose class is found, else 0."""
    found: NDArray[np.float64] = (scores.argmax(1) == labels).astype(np.float64)
    return found


def minus_bits(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return log2 of the probability of a character, the mean over each piece ``(N, T, characters)``."""
    wide = scores.astype(np.float64)
    wide -= wide.max(2, keepdims=True)
    likely = wide - np.log(np.exp(wide).sum(2, keepdims=True))
    found: NDArray[np.float64] = np.take_along_axis(likely, labels[:, :, None], 2).mean((1, 2)) / np.log(2)
    return found


def bits_a_character(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean over all characters, as a metric of ``attar compress``."""
    return -float(minus_bits(scores, labels).mean())


bits_a_character.larger_is_better = False  # type: ignore[attr-defined]


def images(factory: str, weights: str, data: str, usual: str | None, *, held_out: bool, **arguments: Any) -> Network:
    """Return a classifier of images.

    Args:
        factory: of the module, below the repository.
        weights: a file; ``$ATTAR_DATA`` and paths below the repository are resolved.
        data: name of a data set.
        usual: name of the preprocessing; None for that of the data set.
        held_out: whether a tenth of the training images was held out of the training; it judges then.
        arguments: of the factory.
    """
    module: nn.Module = load_object(f"{ROOT}/{factory}")(**arguments)
    module.load_state_dict(read_state(ROOT / os.path.expandvars(weights), module))
    train, test = (load_dataset(data, split) for split in ("train", "test"))
    if held_out:
        kept, held = holdout(train, HELD_OUT)
        calibration, validation = kept.subset(CALIBRATION), held.subset(min(VALIDATION, len(held)))
    else:
        drawn, place = train.subset(CALIBRATION + VALIDATION), np.arange(CALIBRATION + VALIDATION)
        calibration, validation = drawn.take(place[:CALIBRATION]), drawn.take(place[CALIBRATION:])
    how = train.preprocessing if usual is None else find_preprocessing(usual)
    examples = _inputs(how, calibration), _inputs(how, validation), _inputs(how, test)
    return Network(module.eval(), *examples, right, "points", 100.0, 0.5)


def characters() -> Network:
    """Return a GRU of two layers that writes Shakespeare, and pieces of 128 characters; the last tenth tests it."""
    module = trained.CharacterGru()
    data = Path(os.environ["ATTAR_DATA"])
    module.load_state_dict(read_state(data / "weights" / "char_gru_2x200.npz", module))
    text = gzip.decompress((data / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode()
    codes = np.array([string.printable.index(each) for each in text], np.int64)
    last = len(codes) * 9 // 10
    learned, tested = _pieces(codes[:last]), _pieces(codes[last:])
    drawn = learned[np.random.default_rng(0).permutation(len(learned))[: 2 * PIECES]]
    examples = _foretold(drawn[:PIECES]), _foretold(drawn[PIECES:]), _foretold(tested)
    options = {"dynamic": (0, 1), "metric": f"{HERE / 'peer_networks.py'}:bits_a_character"}
    return Network(module.eval(), *examples, minus_bits, "bits a character", 1.0, 0.02, options)


def _inputs(how: Preprocessing | None, part: Dataset) -> Labelled:
    assert part.y is not None
    return (part.x if how is None else preprocess(how, part.x)), part.y


def _foretold(pieces: NDArray[np.int64]) -> Labelled:
    return pieces[:, :-1], pieces[:, 1:]


def _pieces(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    return codes[: len(codes) // LENGTH * LENGTH].reshape(-1, LENGTH)


#: Name -> what loads it. The weights of the first two are made by the commands in ``peers.md``.
NETWORKS: dict[str, Callable[[], Network]] = {
    "digits": partial(
        images,
        "examples/digits.py:DigitNet",
        "runs/peers/digits/state/seed-0/teacher/0-train/epoch-000015.safetensors",
        "digits",
        None,
        held_out=True,
        width=64,
    ),
    "LeNet-5": partial(
        images,
        "studies/lenet/models.py:lenet5",
        "runs/peers/lenet5/state/seed-0/lenet5/0-train/epoch-000006.safetensors",
        "mnist",
        None,
        held_out=True,
    ),
    **{
        name: partial(
            images,
            f"examples/resnet.py:{short}",
            f"$ATTAR_DATA/weights/cifar10_{short}.safetensors",
            "cifar10",
            "imagenet",
            held_out=False,
        )
        for name, short in (("ResNet-20", "resnet20"), ("ResNet-56", "resnet56"))
    },
    "character GRU": characters,
}
