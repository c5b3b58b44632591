"""Metrics of outputs that mean yes or no."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from attar._src.core.errors import DataError
from attar._src.measure.binary import F1, BinaryAccuracy
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.metric import find

LOGITS, LABELS = np.array([[2.0, -1, 3], [-2, -1, 1]]), np.array([[1, 0, 0], [1, 0, 1]])


def test_an_output_above_0_is_yes():
    assert BinaryAccuracy()(LOGITS, LABELS) == pytest.approx(4 / 6)
    assert BinaryAccuracy()(LOGITS, LABELS.astype(np.float32)) == pytest.approx(4 / 6)
    assert BinaryAccuracy()(np.array([[1.0], [-1.0]]), np.array([1, 1])) == 0.5
    assert BinaryAccuracy()(np.zeros(4), np.zeros(4, int)) == 1.0


def test_f1_is_that_of_scikit_learn(rng):
    outputs, targets = rng.normal(size=(50, 4)), rng.integers(0, 2, (50, 4))
    assert F1()(outputs, targets) == pytest.approx(f1_score(targets, outputs > 0, average="micro"))
    assert F1()(-np.ones(3), np.zeros(3)) == 0.0


@pytest.mark.parametrize("metric", [BinaryAccuracy, F1])
def test_what_is_ignored_does_not_count(metric):
    ignored = LABELS.copy()
    ignored[:, 1] = 255
    expected = metric()(LOGITS[:, ::2], LABELS[:, ::2])
    assert metric(ClassLayout(ignore_index=255))(LOGITS, ignored) == expected
    assert find(metric.name, ClassLayout(ignore_index=255))[1](LOGITS, ignored) == expected
    ignored[:, 1] = -100
    assert metric()(LOGITS, ignored.astype(np.float32)) == expected


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (LOGITS, np.array([0, 1]), "a target, 0 or 1, for each output was expected"),
        (LOGITS, LABELS.T, "for each output was expected"),
        (LOGITS, LABELS + 1, "lie between 1 and 2"),
        (LOGITS, LABELS * 0.5, "lie between 0 and 0.5"),
        (LOGITS, LABELS * 0 - 1, "nothing is left to judge"),
    ],
)
def test_other_targets_are_refused(outputs, targets, message):
    for metric in (BinaryAccuracy(), F1()):
        with pytest.raises(DataError, match=f"{metric.name}.*{message}"):
            metric(outputs, targets)
