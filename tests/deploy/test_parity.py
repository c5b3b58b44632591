import numpy as np
import pytest

from attar._src.core.errors import ParityError
from attar._src.deploy.parity import Parity, _same_winner


def parity(**changes):
    figures = {
        "largest_difference": 1e-6,
        "largest_output": 10.0,
        "mean_difference": 1e-7,
        "equal_predictions": 1.0,
        "mean_output": 2.0,
    }
    return Parity(examples=100, **{**figures, **changes})


def test_floating_point_may_differ_by_the_order_of_summation_only():
    assert parity().check("f", integers=False)
    with pytest.raises(ParityError, match=r"differ by up to 0\.5"):
        parity(largest_difference=0.5).check("f", integers=False)


def test_integers_may_tip_but_predictions_agree():
    assert parity(largest_difference=0.5, mean_difference=0.01).check("f", integers=True)
    with pytest.raises(ParityError, match=r"97\.00%"):
        parity(equal_predictions=0.97).check("f", integers=True)


@pytest.mark.parametrize("integers", [True, False])
def test_nothing_infinite_passes(integers):
    with pytest.raises(ParityError, match="not finite"):
        parity(largest_difference=float("inf")).check("f", integers=integers)


def test_integers_may_not_be_far_off_however_predictions_fall():
    with pytest.raises(ParityError, match=r"differ by 0\.5 on average where their mean is 2"):
        parity(largest_difference=0.5, mean_difference=0.5).check("f", integers=True)


def test_ties_are_equal_and_images_are_judged_along_their_channels():
    want = np.array([[1.0, 1.0, 0.0], [3.0, 0.0, 2.0]])
    got = np.array([[0.9, 1.1, 0.0], [0.0, 0.0, 1.0]])
    assert _same_winner(got, want).reshape(-1).tolist() == [True, False]
    image = np.zeros((1, 2, 3, 4))
    image[0, 1] = 1.0
    assert _same_winner(image, image).shape == (1, 1, 3, 4)
    other = image.copy()
    other[0, 0, 0, 0] = 5.0
    assert _same_winner(other, image).sum() == 11
