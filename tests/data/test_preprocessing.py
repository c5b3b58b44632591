"""Named preprocessings and the JSON a user may write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import SpecError, UnknownName
from attar._src.data.preprocessing import PREPROCESSINGS, find_preprocessing, parse_preprocessing


@pytest.mark.parametrize(
    ("name", "scale", "mean", "std"),
    [
        ("unit", 1 / 255, (0.0,), (1.0,)),
        ("digits", 1 / 16, (0.0,), (1.0,)),
        ("mnist", 1 / 255, (0.1307,), (0.3081,)),
        ("cifar10", 1 / 255, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("imagenet", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_the_published_numbers(name: str, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert find_preprocessing(name) == Preprocessing(name=name, layout="NCHW", scale=scale, mean=mean, std=std)


@pytest.mark.parametrize("name", list(PREPROCESSINGS))
def test_every_name_travels_as_json(name: str) -> None:
    made = find_preprocessing(name)
    if name == "none":
        assert made is None
        return
    assert made is not None
    assert (made.name, made.layout) == (name, "NCHW")
    assert parse_preprocessing(made.model_dump_json()) == made
    assert parse_preprocessing(name) == made


def test_near_names_are_listed() -> None:
    with pytest.raises(UnknownName, match="did you mean 'imagenet'"):
        parse_preprocessing("imagnet")


def test_json_with_what_matters_alone() -> None:
    assert parse_preprocessing(' {"scale": 0.5, "mean": [1, 2.5], "std": [4]}') == Preprocessing(
        name="custom", layout="NCHW", scale=0.5, mean=(1.0, 2.5), std=(4.0,)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"scale": NaN}', "scale"),
        ('{"scale": "1"}', "scale"),
        ('{"std": [0.0]}', "std"),
        ('{"deviation": [1.0]}', "deviation"),
        ('{"mean": []}', "at least 1 item"),
        ('{"mean": [1, 2], "std": [1, 2, 3]}', "2 means and 3"),
        ('{"mean": [1, 2], "layout": "NT"}', "no axis C"),
        ('{"layout": "nchw"}', "capital"),
        ('{"layout": "NCC"}', "different"),
        ('{"layout": "CHW"}', "with an N"),
        ('{"layout": "N C"}', "word"),
        ('{"name": ""}', "name"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_preprocessing(text)


def test_a_layout_without_channels() -> None:
    assert parse_preprocessing('{"layout": "NT"}') is not None
    with pytest.raises(SpecError, match="3 channels"):
        parse_preprocessing('{"layout": "NT", "std": [1, 2, 3]}')


def test_a_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from attar._src.artifact.manifest import Preprocessing\n"
        "half = Preprocessing(name='half', layout='NC', scale=0.5)\nwhole = 1\n"
    )
    assert parse_preprocessing(f"{file}:half") == Preprocessing(name="half", layout="NC", scale=0.5)
    with pytest.raises(SpecError, match="is a int"):
        find_preprocessing(f"{file}:whole")
