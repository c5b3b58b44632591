import math

from attar._src.report.figures.plot import Figure, Plot, largest


def test_numbers_json_does_not_have_are_null():
    data = [{"y": [math.nan, (math.inf, 1.5)]}]
    plot = Plot("trade", (), [Figure((), data, {"range": -math.inf}, "alt")])
    (figure,) = plot.as_dict()["figures"]
    assert figure["data"] == [{"y": [None, [None, 1.5]]}]
    assert figure["layout"] == {"range": None}


def test_the_largest_stay_in_their_order():
    assert largest([5, 1, 9, 9, 2], 3) == [0, 2, 3]
    assert largest([1, 1, 1], 2) == [0, 1]
    assert largest([], 2) == []
