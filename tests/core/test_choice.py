from typing import Any, Literal

import pytest

from attar._src.core.errors import SpecError
from attar._src.core.registry import Registry
from attar._src.core.spec import Spec, build_spec, spec_choice


class Circle(Spec):
    """A round thing."""

    name: Literal["circle"] = "circle"
    radius: float = 1.0


class Square(Spec):
    """A thing of four sides."""

    name: Literal["square"] = "square"
    side: int = 2


class Own(Spec):
    """A thing of the user's."""

    name: Any
    arguments: dict[str, int] = {}


SHAPES: Registry[type[Spec]] = Registry("shape", Circle, Square)
Shape: Any = spec_choice(SHAPES, Own)


class Drawing(Spec):
    """What is drawn."""

    first: Shape = Circle()
    more: tuple[Shape, ...] = ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "square", "side": 3}, Square(side=3)),
        ("square", Square()),
        (Square(side=4), Square(side=4)),
        ("shapes.py:blob", Own(name="shapes.py:blob")),
        ({"name": "shapes.py:blob", "arguments": {"n": 2}}, Own(name="shapes.py:blob", arguments={"n": 2})),
        (len, Own(name=len)),
    ],
)
def test_a_name_chooses_the_spec(given, expected):
    assert build_spec(Drawing, where="drawing", first=given).first == expected


def test_lists_stand_for_tuples_and_come_back_from_json():
    drawing = build_spec(Drawing, where="drawing", more=["circle", {"name": "square", "side": 5}])
    assert drawing.more == (Circle(), Square(side=5))
    assert Drawing.model_validate_json(drawing.model_dump_json()) == drawing


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"first": "sqare"}, "drawing.first: no name named 'sqare'; did you mean 'square'"),
        ({"first": {"name": "square", "sde": 3}}, "drawing.first.square: no key named 'sde'; did you mean 'side'"),
        ({"first": {"name": "circle", "radius": "big"}}, r"drawing.first.circle.radius: .*valid number.*'big'"),
        ({"frist": "circle"}, "drawing: no key named 'frist'; did you mean 'first'"),
        ({"more": ["circle", "pentagon"]}, "drawing.more.1: no name named 'pentagon'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path_and_the_nearest_name(given, message):
    with pytest.raises(SpecError, match=message):
        build_spec(Drawing, where="drawing", **given)


def test_the_schema_has_every_member():
    schema = Drawing.model_json_schema()
    assert {"Circle", "Square", "Own"} <= set(schema["$defs"])
