import numpy as np
import pytest

from attar._src.measure.difference import (
    DECISIONS,
    INTEGERS,
    SCORES,
    VALUES,
    Difference,
    class_axis,
    kind_of_output,
    same_winner,
)


def seen(got, want, batches=1):
    found = Difference()
    for one, other in zip(np.array_split(got, batches), np.array_split(want, batches), strict=True):
        found.add(one, other)
    return found


def test_ties_are_equal_and_images_are_judged_along_their_channels():
    want = np.array([[1.0, 1.0, 0.0], [3.0, 0.0, 2.0]])
    got = np.array([[0.9, 1.1, 0.0], [0.0, 0.0, 1.0]])
    assert same_winner(got, want, 1).reshape(-1).tolist() == [True, False]
    image = np.zeros((1, 2, 3, 4))
    image[0, 1] = 1.0
    assert class_axis(image.shape) == 1
    assert same_winner(image, image, 1).shape == (1, 1, 3, 4)
    other = image.copy()
    other[0, 0, 0, 0] = 5.0
    assert same_winner(other, image, 1).sum() == 11


def test_what_all_examples_share_is_no_signal(rng):
    want = 1000 + rng.normal(size=(4000, 3))
    got = want + 0.1 * rng.normal(size=want.shape)
    found = seen(got, want, batches=7)
    assert found.signal_to_noise_db == pytest.approx(20, abs=0.3)
    assert found.relative_error == pytest.approx(1e-4, rel=0.05)
    maps = 1000 * np.arange(1, 5).reshape(1, 4, 1, 1) + rng.normal(size=(8, 4, 16, 16))
    assert seen(maps + 0.1 * rng.normal(size=maps.shape), maps).signal_to_noise_db == pytest.approx(20, abs=0.3)


def test_batches_of_different_length_are_one_signal(rng):
    found, noise = Difference(), []
    for length in (5, 9, 5):
        want = rng.normal(size=(50, length))
        noise.append(0.1 * rng.normal(size=want.shape))
        found.add(want + noise[-1], want)
    assert found.signal_to_noise_db == pytest.approx(20, abs=1)


def test_equal_and_constant_outputs_have_no_ratio(rng):
    want = rng.normal(size=(10, 4))
    assert seen(want, want).signal_to_noise_db is None
    assert seen(want, want).relative_error == 0
    constant = np.full((10, 4), 3.0)
    assert seen(constant + 0.3, constant).signal_to_noise_db is None
    assert seen(constant + 0.3, constant).relative_error == pytest.approx(0.1)
    assert seen(constant, np.zeros((10, 4))).relative_error is None


def test_cosines_are_those_of_examples():
    want = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert seen(np.array([[1.0, 1.0], [0.0, 5.0]]), want).cosine == pytest.approx((np.sqrt(0.5) + 1) / 2)
    assert seen(np.ones((4, 1)), np.ones((4, 1))).cosine is None


@pytest.mark.parametrize(
    ("output", "options", "kind"),
    [
        (np.zeros((4, 3), np.int64), {"task": "classification"}, INTEGERS),
        (np.zeros(4, np.bool_), {}, INTEGERS),
        (np.zeros(4), {"task": "classification"}, DECISIONS),
        (np.zeros((4, 1)), {"task": "classification"}, DECISIONS),
        (np.zeros((4, 3)), {"yes_or_no": True}, DECISIONS),
        (np.zeros(4), {"task": "regression"}, VALUES),
        (np.zeros((4, 3)), {"task": "classification"}, SCORES),
        (np.zeros((4, 3, 8, 8)), {"task": "segmentation"}, SCORES),
        (np.zeros((4, 3)), {"task": "classification", "main": False}, VALUES),
        (10 * np.eye(3), {"task": "regression"}, VALUES),
        (np.zeros((4, 3)), {"classes": True}, SCORES),
        (np.zeros((4, 3)), {"name": "logits"}, SCORES),
        (np.full((4, 5), 0.2), {}, SCORES),
        (np.log(np.full((4, 5), 0.2)), {}, SCORES),
        (10 * np.eye(3), {}, SCORES),
        (10 * np.eye(3), {"main": False}, VALUES),
        # Boxes in pixels: the largest coordinate is no class.
        (np.tile(100 * np.eye(4), (2, 1, 1)), {}, VALUES),
        (np.full((2, 6, 4), 0.25), {}, SCORES),
        (10 * np.eye(3)[[0, 0, 0]], {}, VALUES),
        (np.zeros((4, 3)), {}, VALUES),
        (np.zeros((0, 3)), {}, VALUES),
    ],
)
def test_which_outputs_have_scores(output, options, kind):
    assert kind_of_output(output, **options) == kind


def test_a_sentence_embedding_has_no_scores(rng):
    embedding = rng.normal(size=(64, 384)).astype(np.float32)
    assert kind_of_output(embedding) == VALUES
    assert kind_of_output(embedding / np.linalg.norm(embedding, axis=1, keepdims=True)) == VALUES


def test_the_figures_fit_the_kind(rng):
    want = rng.normal(size=(20, 5))
    assert set(seen(want + 0.1, want).figures(SCORES)) == {
        "kind",
        "signal_to_noise_db",
        "relative_error",
        "cosine",
        "equal_predictions",
    }
    assert "equal_predictions" not in seen(want + 0.1, want).figures(VALUES)
    found = seen(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 900])).figures(INTEGERS)
    assert found == {"kind": INTEGERS, "equal": 0.75}
