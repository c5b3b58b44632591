import pytest

from attar.core.errors import ParityError
from attar.recipe.parity import Parity


def parity(**changes):
    figures = {"largest_difference": 1e-6, "largest_output": 10.0, "mean_difference": 1e-7, "equal_predictions": 1.0}
    return Parity(examples=100, **{**figures, **changes})


def test_floating_point_may_differ_by_the_order_of_summation_only():
    assert parity().demand("f", integers=False)
    with pytest.raises(ParityError, match=r"differ by up to 0\.5"):
        parity(largest_difference=0.5).demand("f", integers=False)


def test_integers_may_tip_but_predictions_agree():
    assert parity(largest_difference=0.5).demand("f", integers=True)
    with pytest.raises(ParityError, match=r"97\.00%"):
        parity(equal_predictions=0.97).demand("f", integers=True)


@pytest.mark.parametrize("integers", [True, False])
def test_nothing_infinite_passes(integers):
    with pytest.raises(ParityError, match="not finite"):
        parity(largest_difference=float("inf")).demand("f", integers=integers)
