"""Labels of classes in other forms than one integer for each position."""

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.measure.class_labels import class_labels
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.metric import METRICS, per_class, usual_metric


def one_hot(labels, classes, axis, dtype=np.float32):
    return np.moveaxis(np.eye(classes, dtype=dtype)[labels], -1, axis)


@pytest.mark.parametrize(("shape", "axis"), [((40, 5), -1), ((8, 5, 6, 6), 1), ((8, 12, 5), -1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_one_hot_labels_are_classes_at_the_usual_axis(rng, shape, axis, dtype):
    outputs = rng.normal(size=shape).astype(np.float32)
    labels = outputs.argmax(axis)
    labels[::3] = 0
    targets = one_hot(labels, 5, axis, dtype)
    np.testing.assert_array_equal(class_labels(outputs, targets), labels)
    assert usual_metric(outputs, targets) == "accuracy"
    accuracy, layout = METRICS["accuracy"], ClassLayout(axis % len(shape))
    assert accuracy(outputs, targets) == (outputs.argmax(axis) == labels).mean() < 1
    assert accuracy.chance(outputs, targets) == accuracy.chance(outputs, labels)
    assert per_class(outputs, targets, layout) == per_class(outputs, labels, layout)


@pytest.mark.parametrize(("shape", "axis"), [((40, 5), 1), ((8, 5, 6, 6), 1), ((8, 12, 5), 2)])
def test_an_axis_of_length_one_in_place_of_the_classes_is_left_out(rng, shape, axis):
    outputs = rng.normal(size=shape)
    labels = outputs.argmax(axis)
    labels[::3] = -100
    targets = np.expand_dims(labels, axis)
    assert usual_metric(outputs, targets) == "accuracy"
    assert METRICS["accuracy"](outputs, targets) == 1.0


def test_targets_of_another_meaning_stay(rng):
    outputs = rng.normal(size=(40, 5))
    several = (rng.random((40, 5)) < 0.5).astype(np.int64)
    for targets in (several, outputs * 2, np.zeros((40, 5)), rng.normal(size=(40, 1)), np.zeros(40, np.int64)):
        assert class_labels(outputs, targets) is targets
    assert usual_metric(outputs, several) == "binary_accuracy"
    single = one_hot(np.arange(40) % 5, 5, -1, np.int64)
    # Probabilities that do not exclude each other, or one logit.
    assert usual_metric(1 / (1 + np.exp(-outputs)), single) == "binary_accuracy"
    assert usual_metric(outputs[:, :1], np.ones((40, 1), np.int64)) == "binary_accuracy"
    with pytest.raises(DataError, match="Labels of classes are integers"):
        METRICS["mean_squared_error"](outputs, np.zeros(40))
