"""What a constant answer reaches, by which a model is at chance."""

import numpy as np
import pytest
from tests.samples import conv_net

from attar._src.artifact.writer import pack
from attar._src.measure.accuracy import AccuracyMetric
from attar._src.measure.binary import F1, BinaryAccuracy
from attar._src.measure.chance import share_of
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.metric import METRICS, find, score
from attar._src.runtime.session import Session


@pytest.mark.parametrize("name", tuple(METRICS))
@pytest.mark.parametrize("seed", range(3))
def test_no_constant_answer_is_better_and_a_good_model_is(name, seed):
    make = np.random.default_rng(seed)
    if name == "accuracy":
        targets = make.choice(4, 200, p=[0.5, 0.2, 0.2, 0.1])
        constant = [np.tile(np.eye(4)[label], (200, 1)) for label in range(4)]
        good = np.eye(4)[targets]
    elif name == "mean_squared_error":
        targets = make.normal(3, 2, (200, 2)).astype(np.float32)
        constant = [np.full((200, 2), value) for value in (0.0, 3.0, targets.mean())]
        good = targets + 0.1
    else:
        targets = make.integers(0, 2, (200, 3)) * make.integers(0, 2, (200, 3))
        constant = [np.full((200, 3), value) for value in (-1.0, 1.0)]
        good = 2.0 * targets - 1
    metric = METRICS[name]
    chance = metric.chance(good, targets)
    found = [metric(outputs, targets) for outputs in constant]
    assert all(chance.explains(each) for each in found)
    assert not chance.explains(metric(good, targets))
    if name != "mean_squared_error":
        assert max(found) == pytest.approx(chance.value)


def test_the_margin_is_three_standard_errors_of_a_share():
    chance = share_of("class 1", 0.1, 900)
    assert chance.limit == pytest.approx(0.1 + 3 * np.sqrt(0.1 * 0.9 / 900))
    assert chance.explains(0.129)
    assert not chance.explains(0.131)


def test_guessing_is_within_the_margin_but_for_one_in_a_thousand():
    make, outside = np.random.default_rng(0), 0
    for _ in range(400):
        targets, guesses = make.integers(0, 10, (2, 359))
        metric, outputs = AccuracyMetric(), np.eye(10)[guesses]
        outside += not metric.chance(outputs, targets).explains(metric(outputs, targets))
    assert outside <= 2


def test_ignored_targets_are_no_answer():
    targets, layout = np.array([255] * 7 + [0, 0, 1]), ClassLayout(ignore_index=255)
    assert AccuracyMetric(layout).chance(np.zeros((10, 2)), targets).value == pytest.approx(2 / 3)
    assert BinaryAccuracy(layout).chance(np.zeros(10), targets).answer == "no"
    assert F1(layout).chance(np.zeros(10), targets).value == pytest.approx(0.5)


def test_a_metric_of_ones_own_may_tell_its_chance(rng):
    class Own:
        name = "own"

        def __call__(self, outputs, targets):
            return 0.5

        def chance(self, outputs, targets):
            return share_of("nothing", 0.5, len(targets))

    session = Session(pack(conv_net()))
    batches = [((rng.normal(size=(4, 3, 8, 8)).astype(np.float32),), np.zeros(4, int))]
    assert score(session, batches, find(Own())[1]).chance.explains(0.5)
    assert score(session, batches, find(lambda outputs, targets: 0.5)[1]).chance is None
