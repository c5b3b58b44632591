"""Metrics: what they say of outputs and targets, and of a file on a set."""

import numpy as np
import pytest
from tests.samples import conv_net

from attar._src.artifact.writer import pack
from attar._src.core.errors import DataError, SpecError, UnknownName
from attar._src.measure.metric import METRICS, Guarded, find, per_class, score
from attar._src.runtime.session import Session


def test_accuracy_is_the_share_of_largest_elements_at_the_target():
    outputs = np.array([[0.0, 1], [2, 1], [0, 3], [5, 0]])
    assert METRICS["accuracy"](outputs, np.array([1, 0, 0, 0])) == 0.75


def test_accuracy_counts_every_position_of_a_sequence():
    outputs = np.eye(3)[np.array([[0, 1], [2, 2]])]
    assert METRICS["accuracy"](outputs, np.array([[0, 1], [2, 0]])) == 0.75


@pytest.mark.parametrize("targets", [np.array([0.0, 1]), np.array([0, 1, 1]), np.array([[0, 1]])])
def test_accuracy_refuses_targets_that_do_not_fit(targets):
    with pytest.raises(DataError, match="accuracy of outputs"):
        METRICS["accuracy"](np.zeros((2, 2)), targets)


def test_mean_squared_error_is_over_every_element():
    assert METRICS["mean_squared_error"](np.array([[1.0], [3.0]]), np.array([0.0, 1.0])) == 2.5
    with pytest.raises(DataError, match="mean squared error"):
        METRICS["mean_squared_error"](np.zeros((2, 2)), np.zeros(2))


def test_a_metric_is_a_word_a_file_s_or_a_function(tmp_path):
    (tmp_path / "m.py").write_text("def worst(outputs, targets):\n    return -1.0\n")
    assert find("accuracy") == ("accuracy", Guarded("accuracy", METRICS["accuracy"]))
    name, own = find(f"{tmp_path}/m.py:worst")
    assert (name, own(None, None)) == ("worst", -1.0)
    assert find(own.metric) == ("worst", own)
    with pytest.raises(UnknownName, match="accuracy"):
        find("acuracy")
    with pytest.raises(SpecError, match="a function of outputs and targets"):
        find(3)


def test_per_class_shares_are_of_each_label_s_own():
    outputs = np.eye(3)[[0, 0, 1, 2]]
    assert per_class(outputs, np.array([0, 1, 1, 2])) == {"0": 1.0, "1": 0.5, "2": 1.0}
    assert per_class(outputs, np.zeros(4)) == {}
    assert per_class(outputs[:, 0], np.zeros(4, int)) == {}


def test_targets_that_the_losses_leave_out_are_not_counted():
    outputs, targets = np.eye(3)[[0, 0, 1, 2]], np.array([0, 1, -100, -100])
    assert METRICS["accuracy"](outputs, targets) == 0.5
    assert per_class(outputs, targets) == {"0": 1.0, "1": 0.0}
    with pytest.raises(DataError, match="every target is negative"):
        METRICS["accuracy"](outputs, np.full(4, -100))


def test_one_number_scores_no_classes():
    assert per_class(np.zeros((3, 1)), np.array([0, 1, 2])) == {}


def _raises(outputs, targets):
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            _raises,
            r"metric '_raises' of outputs float64\(2, 3\) and targets int64\(2,\) raised KeyError: 'no such thing'",
        ),
        (lambda outputs, targets: outputs, "metric '<lambda>' returned ndarray; one number is needed"),
        (lambda outputs, targets: None, "returned NoneType; one number is needed"),
    ],
)
def test_a_metric_that_fails_is_said_by_name(metric, message):
    with pytest.raises(SpecError, match=message):
        find(metric)[1](np.zeros((2, 3)), np.zeros(2, int))


def test_a_file_is_scored_by_any_metric(rng):
    session = Session(pack(conv_net()))
    x = rng.normal(size=(10, 3, 8, 8)).astype(np.float32)
    y = session.run(x).argmax(-1)
    halves = [((x[:6],), y[:6]), ((x[6:],), y[6:])]
    found = score(session, halves, METRICS["accuracy"])
    assert (found.value, found.examples) == (1.0, 10)
    assert set(found.per_class) == {str(label) for label in np.unique(y)}
    assert score(session, halves, METRICS["accuracy"], classes=False).per_class == {}
    assert score(session, halves, lambda outputs, targets: float(len(outputs))).value == 10.0
    with pytest.raises(DataError, match="no examples"):
        score(session, [], METRICS["accuracy"])
