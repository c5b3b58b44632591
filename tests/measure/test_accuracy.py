"""Accuracy: right predictions counted, and what cannot be judged refused."""

import numpy as np
import pytest
from tests.runtime.reference import file_of, node

from attar._src.core.errors import DataError
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.measure.metric import METRICS, per_class
from attar._src.runtime.session import Session


@pytest.fixture(scope="module")
def echo():
    """A file whose scores are its inputs."""
    return Session(file_of([node("Identity", "x", "y")], {}, x=("batch", 3), y=("batch", 3)))


def scores(*labels):
    return np.eye(3, dtype=np.float32)[list(labels)]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_right_predictions_are_counted_whatever_the_batch(echo, batch):
    found = evaluate_accuracy(echo, scores(0, 1, 2, 2, 1), np.array([0, 1, 2, 0, 0]), batch=batch)
    assert (found.accuracy, found.correct, found.examples, found.predictions) == (0.6, 3, 5, 5)
    assert found.per_class == {"0": 1 / 3, "1": 1.0, "2": 1.0}
    assert found.standard_error == pytest.approx((0.6 * 0.4 / 5) ** 0.5)
    assert vars(found)["accuracy"] == 0.6


def test_a_fixed_batch_is_filled_up_and_the_filling_not_counted():
    fixed = Session(file_of([node("Identity", "x", "y")], {}, x=(4, 3), y=(4, 3)))
    found = evaluate_accuracy(fixed, scores(0, 1, 2, 2, 1), np.array([0, 1, 2, 0, 0]), batch=100)
    assert (found.correct, found.examples) == (3, 5)


def test_one_example_may_have_many_labels():
    session = Session(file_of([node("Identity", "x", "y")], {}, x=("batch", 2, 3), y=("batch", 2, 3)))
    found = evaluate_accuracy(session, scores(0, 1, 2, 2).reshape(2, 2, 3), np.array([[0, 1], [2, 0]]))
    assert (found.accuracy, found.examples, found.predictions) == (0.75, 2, 4)


@pytest.mark.parametrize(
    ("raw", "labels", "batch", "message"),
    [
        (scores(0), None, 1, "no labels"),
        (scores(0, 1), np.array([0]), 1, "2 examples came with 1 labels"),
        (scores(), np.zeros(0, np.int64), 1, "at least one"),
        (scores(0), np.array([0]), 0, "batch of 0"),
        (scores(0), np.array([3]), 1, "labels up to 3 were given for 3 outputs"),
        (scores(0), np.array([-1]), 1, "every target is negative"),
        (scores(0), np.array([[0, 0]]), 1, r"accuracy of outputs \(1, 3\) by targets int64\(1, 2\)"),
        (scores(0) * np.float32(np.nan), np.array([0]), 1, "not finite"),
        (np.zeros((1, 4), np.float32), np.array([0]), 1, "axis 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(echo, raw, labels, batch, message):
    with pytest.raises(DataError, match=message):
        evaluate_accuracy(echo, raw, labels, batch=batch)


def test_negative_labels_are_not_counted_as_in_the_metric(echo):
    outputs, labels = scores(0, 1, 2, 2), np.array([0, -100, 2, 1])
    found = evaluate_accuracy(echo, outputs, labels, batch=3)
    assert (found.accuracy, found.examples, found.predictions) == (2 / 3, 4, 3)
    assert found.accuracy == METRICS["accuracy"](outputs, labels)
    assert found.per_class == per_class(outputs, labels)
