"""Holes, spaces and points."""

import datetime
import math

import numpy as np
import pytest

from attar._src.core.errors import SpecError, UnknownName
from attar._src.search.space import Between, Choose, Space, hole_at


@pytest.mark.parametrize(
    ("value", "hole"),
    [
        ({"choose": [2, 3]}, Choose(choose=[2, 3])),
        ({"choose": ["gptq", {"name": "mse"}]}, Choose(choose=["gptq", {"name": "mse"}])),
        ({"between": [1, 8], "log": True}, Between(between=[1, 8], log=True)),
        # What is no hole: other mappings, also with such a key.
        ({"choose": "all"}, None),
        ({"bits": 4}, None),
        (4, None),
    ],
)
def test_a_hole_is_told_from_other_values(value, hole):
    assert hole_at(value, "recipe.x") == hole


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"choose": [2]}, "at least 2 items"),
        ({"choose": [2, 4, 2]}, "a value twice"),
        ({"between": [3, 1]}, "the least value and a larger one"),
        ({"between": [1, 1]}, "the least value and a larger one"),
        ({"between": [0, 1], "log": True}, "start above 0"),
        ({"between": [1, 2, 3]}, "at most 2 items"),
        ({"between": [1, 2], "lgo": True}, "did you mean 'log'"),
        ({"choose": [1, 2], "log": True}, "no key named 'log'"),
        # What storages of trials cannot hold, which raised TypeError.
        ({"choose": [datetime.date(2026, 1, 1), "2026"]}, "is no value of a hole"),
        ({"choose": [math.sqrt, 2]}, "name an object as file.py:name"),
        ({"choose": [{1: 2, "a": 3}, 4]}, "is no value of a hole"),
    ],
)
def test_a_malformed_hole_is_refused_with_its_place(value, words):
    with pytest.raises(SpecError, match=r"recipe\.models\.net") as caught:
        hole_at(value, "recipe.models.net")
    assert words in str(caught.value)


def test_values_of_other_types_are_other_values():
    """Guards against 1, True and 1.0 for one choice, which Python takes for equal."""
    hole = Choose(choose=[1, True, 1.0])
    assert [hole.index(value) for value in (1, True, 1.0)] == [0, 1, 2]


def test_numbers_that_grow_are_in_order_and_words_are_not():
    assert Choose(choose=[2, 3.5, 8]).ordered
    assert not Choose(choose=[8, 2]).ordered
    assert not Choose(choose=["a", "b"]).ordered
    assert not Choose(choose=[False, True]).ordered


def test_a_number_is_whole_if_both_ends_are():
    assert [Between(between=[2, 8]).at(share) for share in (0, 0.5, 1)] == [2, 5, 8]
    assert Between(between=[2, 8.0]).at(0.25) == 3.5
    assert Between(between=[0.001, 1.0], log=True).at(1 / 3) == pytest.approx(0.01)


def test_numbers_have_few_digits_and_stay_between_the_ends():
    hole = Between(between=[0.123456789, 0.2])
    assert hole.near(0.1500000001) == 0.15
    assert hole.near(0.12) == 0.123456789
    hole.check(hole.near(0.1234567))


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"a": 2}, "b: the point has no value"),
        ({"a": 5, "b": 0.5}, "a: 5 is none of"),
        ({"a": 2, "b": 2.0}, "b: 2.0 is no number between 0 and 1"),
        ({"a": 2, "b": True}, "b: True is no number"),
        ({"a": np.int64(2), "b": 0.5}, "a: np.int64(2) is no value of a hole"),
    ],
)
def test_a_point_has_a_value_for_every_hole(point, words):
    space = Space({"a": Choose(choose=[2, 3]), "b": Between(between=[0, 1.0])})
    space.check({"a": 2, "b": 0.5})
    with pytest.raises(SpecError) as caught:
        space.check(point)
    assert words in str(caught.value)
    with pytest.raises(UnknownName, match="hole"):
        space.check({"a": 2, "b": 0.5, "c": 1})


def test_points_are_counted_and_told_apart():
    space = Space({"a": Choose(choose=[2, 3]), "b": Between(between=[1, 5])})
    assert space.count == 10
    assert Space({"a": Between(between=[0, 0.5])}).count == math.inf
    assert space.key({"b": 1, "a": 2}) == space.key({"a": 2, "b": 1}) != space.key({"a": 3, "b": 1})
