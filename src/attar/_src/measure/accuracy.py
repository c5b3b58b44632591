"""Accuracy of a decoded file on a data set. Part of ``measure``."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError
from attar._src.core.progress import track
from attar._src.runtime.session import Session


@dataclass(frozen=True)
class Accuracy:
    """How often the largest output is at the label.

    Attributes:
        accuracy: share of right predictions, 0 to 1.
        examples: how many examples were seen.
        predictions: how many predictions were judged; more than ``examples`` where an example has several labels.
        correct: how many were right.
        standard_error: ``sqrt(p (1 - p) / n)`` of the share over the predictions: what another test set of the same
            size might change.
        per_class: label -> share of right predictions among its own.
    """

    accuracy: float
    examples: int
    predictions: int
    correct: int
    standard_error: float
    per_class: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def evaluate_accuracy(
    session: Session, raw: NDArray[Any], labels: NDArray[np.int64] | None, *, batch: int = 256
) -> Accuracy:
    """Run every example through a file and count where the main output is largest at the label.

    Args:
        session: the decoded file, of one input.
        raw: raw examples along axis 0; the file's own preprocessing turns them into inputs.
        labels: int64, one for each position the output has besides its last axis: ``(n,)``, ``(n, time)``, ...
        batch: how many examples run at once, where the graph leaves it open.

    Raises:
        DataError: examples, labels and outputs do not fit each other.
    """
    if labels is None:
        raise DataError("there are no labels to judge predictions by; choose a split or data set that has them")
    if len(labels) != len(raw) or not len(raw):
        raise DataError(f"{len(raw)} examples came with {len(labels)} labels; at least one of each is needed")
    if batch < 1:
        raise DataError(f"a batch of {batch} was asked for; use 1 or more")
    axis = session.inputs[0].shape[0] if session.inputs[0].shape else None
    if isinstance(axis, int):
        batch = axis
    right: list[NDArray[np.bool_]] = []
    for start in track(range(0, len(raw), batch), "evaluating"):
        wanted = labels[start : start + batch]
        scores = _scores(session, raw[start : start + batch], batch if isinstance(axis, int) else None)[: len(wanted)]
        if scores.shape[:-1] != wanted.shape:
            raise DataError(f"outputs of shape {scores.shape} cannot be judged by labels of shape {wanted.shape}")
        if int(wanted.min(initial=0)) < 0 or int(wanted.max(initial=0)) >= scores.shape[-1]:
            raise DataError(
                f"labels from {wanted.min()} to {wanted.max()} were given for {scores.shape[-1]} outputs; "
                "is this the data the model was made for?"
            )
        right.append(scores.argmax(-1) == wanted)
    hits = np.concatenate(right)
    share = float(hits.mean())
    return Accuracy(
        accuracy=share,
        examples=len(raw),
        predictions=hits.size,
        correct=int(hits.sum()),
        standard_error=math.sqrt(share * (1 - share) / hits.size),
        per_class={str(label): float(hits[labels == label].mean()) for label in np.unique(labels)},
    )


def _scores(session: Session, raw: NDArray[Any], exactly: int | None) -> NDArray[Any]:
    """Return the main output, the batch filled up with copies of its last example where its size is fixed."""
    if exactly is not None and len(raw) < exactly:
        raw = np.concatenate([raw, np.repeat(raw[-1:], exactly - len(raw), axis=0)])
    found = session.run({session.inputs[0].name: session.preprocess(raw)})
    scores: NDArray[Any] = found[session.main_output]
    if not np.isfinite(scores).all():
        raise DataError(f"output {session.main_output!r} is not finite; no prediction can be read from it")
    return scores
