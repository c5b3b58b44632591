"""Change of a metric: labels that fit are judged, whatever their lengths; others have a reason."""

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.metric import find, join_batches, score
from attar._src.measure.metric_change import metric_change


def tagged(lengths, classes=4, axis=-1, ignored=-100, seed=0):
    """Outputs of a tagger that is right at 3 of 4 positions, those of its file, and labels whose last is ignored."""
    rng, batches = np.random.default_rng(seed), []
    for length in lengths:
        labels = rng.integers(0, classes, (16, length))
        outputs = np.eye(classes, dtype=np.float32)[np.where(rng.random((16, length)) < 0.75, labels, 0)]
        labels[:, -1] = ignored
        outputs = np.moveaxis(outputs, -1, axis)
        batches.append((outputs, outputs * 0.9, labels))
    return batches


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(("lengths", "ignored"), [((30, 30), -100), ((30, 25, 12), -100), ((30, 25, 12), 255)])
def test_labels_of_each_length_are_judged(lengths, ignored, axis):
    batches = tagged(lengths, axis=axis, ignored=ignored)
    found = metric_change(None, batches, ClassLayout(None, ignored), given=False)
    right = np.concatenate([(np.moveaxis(o, axis, -1).argmax(-1) == y)[:, :-1].ravel() for o, _, y in batches])
    assert (found.name, found.floating, found.file) == ("accuracy", pytest.approx(right.mean()), found.floating)
    assert found.examples == 16 * len(lengths)


def test_a_label_that_is_no_class_is_named():
    with pytest.raises(DataError, match=r"labels up to 255 were given for 4 outputs.*ignore_index"):
        metric_change(None, tagged([30], ignored=255), ClassLayout(), given=True)


def test_labels_of_something_else_are_told_from_those_of_the_module():
    outputs = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    batch = (outputs, outputs, np.arange(200) % 4)
    with pytest.raises(DataError, match="no better than class 0 each time"):
        metric_change(None, [batch], ClassLayout(), given=False)
    assert metric_change(None, [batch], ClassLayout(), given=True).name == "accuracy"


def test_numbers_of_other_lengths_have_no_metric():
    with pytest.raises(DataError, match="one length"):
        join_batches([(np.zeros((2, 5)), np.zeros((2, 5))), (np.zeros((2, 4)), np.zeros((2, 4)))])
    with pytest.raises(DataError, match="cannot be judged by one metric"):
        join_batches([(np.zeros((2, 5)), np.zeros(2)), (np.zeros((2, 4, 1)), np.zeros(2))])


def test_a_file_is_scored_on_batches_of_each_length():
    class File:
        inputs, main_output = [type("Port", (), {"name": "x", "shape": ("batch", "length", 4)})], "y"

        def run(self, feed):
            return {"y": feed["x"]}

    batches = [((outputs,), labels) for outputs, _, labels in tagged((20, 9))]
    assert (
        score(File(), batches, find("accuracy")[1]).value
        == metric_change(None, tagged((20, 9)), ClassLayout(), given=True).floating
    )
