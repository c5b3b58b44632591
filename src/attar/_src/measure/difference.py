"""Difference: how far one output of a file is from the output it should have, in the measure that fits the output.

An output of integers or booleans (winners, lengths, tokens) is judged by the share of equal elements. Of floating-point
outputs, *scores* and *decisions* are judged by the share of equal predictions, and all others (embeddings, regression,
maps of values) by their signal to noise. The main output has decisions, yes or no for each element, if the labels are 0
or 1, one for each, or if it has one element and ``task`` is ``classification`` or ``segmentation``: yes is above 0, or
above 0.5 if all elements lie between 0 and 1. An output has scores if, whichever of these decides first,

1. ``task`` is ``classification`` or ``segmentation`` and it is the main output; with another task no output has;
2. the file has class names, or the data integer labels, and it is the main output;
3. it is called ``logits``, or its elements are probabilities along the class axis, or their logarithms;
4. it is the main output, has two axes or four and more, and its softmax is confident: the largest probability is 0.5 or
   more on average, and not always of the same class. (Boxes ``(N, 10, 4)`` in pixels would be confident, too.)

The class axis of the main output is the one that labels tell: 1 of outputs (8, 5, 30) and labels (8, 30). Without
labels it is axis 1 of outputs with four or more axes, ``(N, C, H, W)``, and the last axis of others. It has two classes
or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.measure.class_layout import usual_axis

#: Words of ``task`` whose main output has one score for each class.
SCORE_TASKS = ("classification", "segmentation")
#: Two scores this close, relative to the largest, are a tie: either is the prediction.
TIE = 1e-6
#: Mean of the largest softmax probability from which an output counts as scores.
_CONFIDENT = 0.5

SCORES, DECISIONS, VALUES, INTEGERS = "scores", "decisions", "values", "integers"
#: Thresholds of logits and of probabilities.
_THRESHOLDS = (0.0, 0.5)


def class_axis(shape: tuple[int, ...], axis: int | None = None) -> int | None:
    """Return the class axis of an output, by the rule above or as given; None if it has no two classes."""
    if len(shape) < 2:
        return None
    axis = (usual_axis(len(shape)) if axis is None else axis) % len(shape)
    return axis if shape[axis] > 1 else None


def kind_of_output(
    output: NDArray[Any],
    name: str = "",
    *,
    main: bool = True,
    task: str | None = None,
    classes: bool = False,
    yes_or_no: bool = False,
) -> str:
    """Return ``scores``, ``decisions``, ``values`` or ``integers``, by the rule above.

    Args:
        output: values of the floating module on real inputs.
        name: of the output.
        main: whether it is the output that metrics read.
        task: what the model is for, if known.
        classes: whether there are class names or integer labels.
        yes_or_no: whether there is a label 0 or 1 for each element of the main output.
    """
    if output.dtype.kind not in "f":
        return INTEGERS
    axis = class_axis(output.shape)
    if main and (yes_or_no or (axis is None and task in SCORE_TASKS)):
        return DECISIONS
    if axis is None or not output.size:
        return VALUES
    if task is not None:
        return SCORES if main and task in SCORE_TASKS else VALUES
    if classes:
        return SCORES if main else VALUES
    known = name == "logits" or _are_probabilities(output, axis)
    guessed = main and output.ndim != 3 and _is_confident(output, axis)
    return SCORES if known or guessed else VALUES


def are_shares(output: NDArray[Any]) -> bool:
    """Return whether all elements lie between 0 and 1, as probabilities do."""
    return bool(((output >= 0) & (output <= 1)).all())


def same_winner(got: NDArray[Any], want: NDArray[Any], axis: int, tie: float = 0.0) -> NDArray[np.bool_]:
    """Return at which positions the largest element of ``got`` is also the largest of ``want``, or within ``tie``."""
    won = np.take_along_axis(want, got.argmax(axis, keepdims=True), axis)
    tolerance = max(tie, TIE * float(np.abs(want).max(initial=0.0)))
    return np.asarray(won >= want.max(axis, keepdims=True) - tolerance)


@dataclass
class Difference:
    """What accumulates over the batches of one output.

    Attributes:
        axis: the class axis; None for the usual one.
        largest, largest_output: absolute difference, and absolute element wanted.
        elements, equal: number of elements, and of those that are equal.
        positions, agreeing: positions with a winner along the class axis, and those with the same or a tied one.
        decided: positions with the same winner, or one whose lead over it is within twice the mean difference.
        same_sides: elements on the same side of 0, and of 0.5, as the one wanted, or tied there.
        shares: whether all elements wanted lie between 0 and 1.
        finite: whether no element is NaN or infinite where the wanted one is not.
    """

    axis: int | None = None
    largest: float = 0.0
    largest_output: float = 0.0
    absolute: float = 0.0
    absolute_output: float = 0.0
    squared: float = 0.0
    elements: int = 0
    equal: int = 0
    positions: int = 0
    agreeing: int = 0
    decided: int = 0
    same_sides: tuple[int, ...] = (0, 0)
    shares: bool = True
    finite: bool = True
    cosines: float = 0.0
    examples: int = 0
    _count: int = 0
    _sum: Any = 0.0
    _squares: Any = field(default=0.0)

    def add(self, got: NDArray[Any], want: NDArray[Any]) -> None:
        """Add a batch of the output, and what it should be."""
        exact, wanted = got.astype(np.float64), want.astype(np.float64)
        # Equal infinities differ by NaN; a mask of -inf is no fault.
        with np.errstate(invalid="ignore"):
            difference = np.where(exact == wanted, 0.0, np.abs(exact - wanted))
        self.finite = self.finite and bool(np.isfinite(difference).all())
        wanted = np.where(np.isfinite(wanted), wanted, 0.0)
        self.largest = max(self.largest, float(difference.max(initial=0.0)))
        self.largest_output = max(self.largest_output, float(np.abs(wanted).max(initial=0.0)))
        self.absolute += float(difference.sum())
        self.absolute_output += float(np.abs(wanted).sum())
        self.squared += float(np.square(difference).sum())
        self.elements += difference.size
        self.equal += int(np.sum(got == want))
        if want.size:
            self._spread(wanted)
            self._directions(np.where(np.isfinite(exact), exact, 0.0), wanted)
            self._winners(got, want, float(difference.mean()))
        if want.dtype.kind == "f":
            self._sides(got, want)

    def _spread(self, wanted: NDArray[np.float64]) -> None:
        """Add sums of each channel, so that what all examples share is no signal."""
        axis = class_axis(wanted.shape, self.axis)
        channels = np.moveaxis(wanted, axis, -1).reshape(-1, wanted.shape[axis]) if axis else wanted.reshape(-1, 1)
        if np.ndim(self._sum) and len(self._sum) != channels.shape[1]:
            # The axis varies in length, so that there is nothing that each of its elements shares.
            self._sum, self._squares = np.sum(self._sum, keepdims=True), np.sum(self._squares, keepdims=True)
            channels = channels.reshape(-1, 1)
        self._sum = self._sum + channels.sum(0)
        self._squares = self._squares + np.square(channels).sum(0)
        self._count += wanted.size

    def _directions(self, got: NDArray[np.float64], want: NDArray[np.float64]) -> None:
        if want.ndim < 2 or want[0].size < 2:
            return
        got, want = got.reshape(len(got), -1), want.reshape(len(want), -1)
        lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
        same = np.where(lengths > 0, (got * want).sum(1) / np.where(lengths > 0, lengths, 1.0), 1.0)
        self.cosines, self.examples = self.cosines + float(same.sum()), self.examples + len(same)

    def _winners(self, got: NDArray[Any], want: NDArray[Any], mean_difference: float) -> None:
        axis = class_axis(want.shape, self.axis)
        if axis is None or want.dtype.kind != "f":
            return
        same = same_winner(got, want, axis)
        self.positions, self.agreeing = self.positions + same.size, self.agreeing + int(same.sum())
        self.decided += int(same_winner(got, want, axis, 2 * mean_difference).sum())

    def _sides(self, got: NDArray[Any], want: NDArray[Any]) -> None:
        self.shares = self.shares and are_shares(want)
        tie = TIE * float(np.abs(want).max(initial=0.0))
        same = (((got > t) == (want > t)) | (np.abs(want - t) <= tie) for t in _THRESHOLDS)
        self.same_sides = tuple(before + int(each.sum()) for before, each in zip(self.same_sides, same, strict=True))

    @property
    def mean(self) -> float:
        """Mean absolute difference of an element."""
        return self.absolute / max(self.elements, 1)

    @property
    def mean_output(self) -> float:
        """Mean absolute element wanted."""
        return self.absolute_output / max(self.elements, 1)

    @property
    def equal_predictions(self) -> float | None:
        """Share of positions with the same or a tied winner; None without classes."""
        return self.agreeing / self.positions if self.positions else None

    @property
    def equal_decisions(self) -> float:
        """Share of elements with the same decision, yes or no, as the one wanted; 1 of none."""
        return self.same_sides[self.shares] / self.elements if self.elements else 1.0

    @property
    def equal_elements(self) -> float:
        """Share of equal elements, 1 of none."""
        return self.equal / self.elements if self.elements else 1.0

    @property
    def cosine(self) -> float | None:
        """Mean over the examples of the cosine between the two outputs; None of outputs with one element."""
        return self.cosines / self.examples if self.examples else None

    @property
    def relative_error(self) -> float | None:
        """``|got - want| / |want|`` in the Euclidean norm; None if ``want`` is zero."""
        power = float(np.sum(self._squares))
        return math.sqrt(self.squared / power) if power > 0 else None

    @property
    def signal_to_noise_db(self) -> float | None:
        """``10 log10`` of the variance of ``want`` about the mean of each channel, over the mean squared difference.

        What all examples share is no signal: of outputs near 1000 that vary by 1, an error of 1 leaves 0 dB. None if
        the outputs are equal, or do not vary, or the difference is not finite.
        """
        if not self.squared or not self._count or not math.isfinite(self.squared):
            return None
        rows = self._count / max(np.size(self._sum), 1)
        signal = self._squares - np.square(self._sum) / rows
        # Rounding of the sums leaves a trace of a signal in channels that have none, as those of a mask.
        signal = float(np.sum(np.where(signal > 1e-12 * self._squares, signal, 0.0)))
        return 10 * math.log10(signal / self.squared) if signal > 0 else None

    def equal_share(self, kind: str) -> float | None:
        """Return the share that judges an output of this kind; None of values."""
        shares = {SCORES: self.equal_predictions, DECISIONS: self.equal_decisions, INTEGERS: self.equal_elements}
        return shares.get(kind)

    def figures(self, kind: str) -> dict[str, Any]:
        """Return the figures that fit the output's kind, as JSON values."""
        if kind == INTEGERS:
            return {"kind": kind, "equal": self.equal_elements}
        found: dict[str, Any] = {"kind": kind, "signal_to_noise_db": self.signal_to_noise_db}
        found |= {"relative_error": self.relative_error, "cosine": self.cosine}
        return found if kind == VALUES else found | {"equal_predictions": self.equal_share(kind)}


def decibels(error: float) -> float | None:
    """Return the signal to noise, ``-10 log10(error)``: 20 for 0.01; None if that is not finite."""
    return -10 * math.log10(error) if 0 < error < math.inf else None


def relative_noise(seen: Difference) -> float:
    """Return the squared error over the variance of what was wanted; over its square, if it does not vary.

    Infinity if an output is not finite.
    """
    if not seen.finite:
        return float("inf")
    decibel = seen.signal_to_noise_db
    if decibel is not None:
        return float(10 ** (-decibel / 10))
    return (seen.relative_error or 0.0) ** 2


def divergence(got: NDArray[Any], want: NDArray[Any], axis: int, *, shares: bool = False) -> NDArray[np.float64]:
    """Return ``KL(p_want || p_got)`` in nats at each position.

    Scores and logarithms of probabilities have the same softmax; probabilities themselves are ``shares``.

    Example:
        >>> divergence(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]), 1, shares=True).round(4).tolist()
        [0.1308]
    """
    before, after = (_log_probabilities(each, axis, shares=shares) for each in (want, got))
    return np.asarray((np.exp(before) * (before - after)).sum(axis))


def _log_probabilities(outputs: NDArray[Any], axis: int, *, shares: bool) -> NDArray[np.float64]:
    exact = np.nan_to_num(outputs.astype(np.float64))
    if shares:
        return np.asarray(np.log(np.maximum(exact, 1e-12)))
    exact = exact - exact.max(axis, keepdims=True)
    return np.asarray(exact - np.log(np.exp(exact).sum(axis, keepdims=True)))


def _are_probabilities(output: NDArray[Any], axis: int) -> bool:
    for each in (output, np.exp(np.minimum(output, 1.0))):
        if (each >= 0).all() and (each <= 1 + 1e-4).all() and np.allclose(each.sum(axis), 1, atol=1e-3):
            return True
    return False


def _is_confident(output: NDArray[Any], axis: int) -> bool:
    powers = np.exp(output.astype(np.float64) - output.max(axis, keepdims=True))
    winners = output.argmax(axis)
    return bool((1 / powers.sum(axis)).mean() >= _CONFIDENT and winners.min() != winners.max())
