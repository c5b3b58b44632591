import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.report.collapse import compare_classes

TEN = [str(label) for label in range(10)]


def ten(*, n=100, before=0.98, after=0.98, **changed):
    """Ten classes alike, but for those named ``c3=0.5``."""
    new = dict.fromkeys(TEN, after) | {name.removeprefix("c"): value for name, value in changed.items()}
    return compare_classes(dict.fromkeys(TEN, before), new, dict.fromkeys(TEN, n))


def flagged(changes):
    return [change.label for change in changes if change.collapsed]


def test_a_class_that_is_gone_is_found_though_the_mean_hardly_moves():
    assert flagged(ten(c3=0.6)) == ["3"]


def test_nothing_changed_nothing_flagged():
    assert flagged(ten()) == []
    assert flagged(ten(before=1.0, after=1.0, n=1)) == []


def test_what_all_classes_lose_together_is_no_collapse():
    assert flagged(ten(after=0.5)) == []


def test_a_class_that_loses_much_more_than_the_others_is_one():
    assert flagged(ten(after=0.9, c7=0.4)) == ["7"]


def test_less_than_ten_points_is_passed_over_however_sure_it_is():
    assert flagged(ten(n=10**6, c3=0.89)) == []
    assert flagged(ten(n=10**6, c3=0.87)) == ["3"]


def test_few_examples_prove_little():
    # One of five is twenty points, and may be luck.
    assert flagged(ten(n=5, before=1.0, after=1.0, c3=0.8)) == []
    assert flagged(ten(n=500, before=1.0, after=1.0, c3=0.8)) == ["3"]


def test_a_class_that_gains_is_no_collapse_and_does_not_hide_one():
    assert flagged(ten(before=0.8, after=0.99, c3=0.3)) == ["3"]
    assert flagged(ten(before=0.3, after=0.99)) == []


def test_more_classes_ask_for_more_standard_errors():
    loss = 0.188  # 3.1 standard errors of 100 examples

    def many(count):
        labels = [str(label) for label in range(count)]
        new = dict.fromkeys(labels, 0.9) | {"0": 0.9 - loss}
        return compare_classes(dict.fromkeys(labels, 0.9), new, dict.fromkeys(labels, 100))

    assert flagged(many(10)) == ["0"]
    assert flagged(many(1000)) == []


def test_one_class_has_no_others_to_lose_with():
    (only,) = compare_classes({"a": 1.0}, {"a": 0.2}, {"a": 100})
    assert only.collapsed
    assert only.change == pytest.approx(-0.8)


def test_two_classes_are_judged_by_each_other():
    assert flagged(compare_classes({"a": 0.95, "b": 0.95}, {"a": 0.95, "b": 0.6}, {"a": 200, "b": 200})) == ["b"]


def test_labels_that_one_of_them_lacks_are_left_out():
    assert [
        change.label for change in compare_classes({"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0}, {"a": 1, "b": 1})
    ] == ["b"]
    assert compare_classes({"a": 1.0}, {}, {"a": 1}) == ()
    assert compare_classes({}, {}, {}) == ()


def test_a_class_without_examples_is_never_flagged():
    assert flagged(compare_classes({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, {"a": 0, "b": 0})) == []


def test_sampling_alone_seldom_raises_the_alarm(rng):
    alarms = 0
    for _ in range(400):
        right = rng.binomial(40, 0.9, (2, 10)) / 40
        before, after = (dict(zip(TEN, map(float, row), strict=True)) for row in right)
        alarms += bool(flagged(compare_classes(before, after, dict.fromkeys(TEN, 40))))
    assert alarms <= 0.05 * 400


@given(
    st.lists(st.tuples(*[st.floats(0, 1)] * 2, st.integers(0, 10**6)), min_size=1, max_size=12),
)
def test_any_shares_give_finite_figures(classes):
    before = {str(i): old for i, (old, _, _) in enumerate(classes)}
    after = {str(i): new for i, (_, new, _) in enumerate(classes)}
    for change in compare_classes(before, after, {str(i): n for i, (*_, n) in enumerate(classes)}):
        assert np.isfinite([change.excess, change.error]).all()
        assert not change.collapsed or change.change < 0
