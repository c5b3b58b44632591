import pytest

from attar._src.report import wording

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (wording.count, 1234567, "1,234,567"),
        (wording.count, None, "–"),
        (wording.share, 0.98333, "98.3 %"),
        (wording.share, NAN, "–"),
        (wording.times, 31.24, "31.2×"),
        (wording.times, 1.034, "1.03×"),
        (wording.times, 9.96, "10.0×"),
        (wording.times, INF, "–"),
        (wording.number, 2.90123, "2.901"),
        (wording.number, None, "–"),
        (wording.milliseconds, 0.08312, "0.0831 ms"),
        (wording.milliseconds, None, "–"),
        (wording.points, -0.0123, "−1.2"),
        (wording.points, 0.05, "+5.0"),
        (wording.points, -0.0001, "0.0"),
    ],
)
def test_a_number_is_written(write, value, text):
    assert write(value) == text


def test_accuracy_is_a_percentage_and_other_metrics_are_not():
    assert wording.metric(0.98753, "accuracy") == "98.75 %"
    assert wording.metric(0.0123456, "mean_squared_error") == "0.01235"
    assert wording.metric(None, "accuracy") == "–"


def test_a_long_name_keeps_both_its_ends():
    name = "a" * 60 + "b" * 60
    assert len(wording.short(name)) == 48
    assert wording.short(name).startswith("aaa")
    assert wording.short(name).endswith("bbb")
    assert wording.short("x" * 48) == "x" * 48


def test_nouns_agree_with_their_number():
    counts = [wording.plural(1, "layer"), wording.plural(2, "class"), wording.plural(0, "seed")]
    assert counts == ["1 layer", "2 classes", "0 seeds"]


def test_items_are_listed():
    assert [wording.listed(items) for items in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
