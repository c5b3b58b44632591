"""Registries: literal entries, a user's own, and the errors of both."""

import sys

import pytest

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.registry import Registry, load_object, references_from


class Red:
    name = "red"


class Blue:
    name = "blue"


@pytest.fixture
def colours():
    return Registry("colour", Red, Blue)


def test_entries_are_found_by_name_in_order(colours):
    assert colours["red"] is Red
    assert list(colours) == ["red", "blue"]
    assert colours.values() == (Red, Blue)


def test_an_unknown_name_says_what_there_is(colours):
    with pytest.raises(UnknownName, match="no colour named 'rod'; did you mean 'red'"):
        colours["rod"]


def test_two_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two colours are named 'red'"):
        Registry("colour", Red, Red)


def test_a_users_class_is_called_for_an_entry(colours, tmp_path):
    (tmp_path / "helper.py").write_text("HUE = 120\n")
    (tmp_path / "mine.py").write_text("import helper\nclass Green:\n    name = 'green'\n    hue = helper.HUE\n")
    green = colours[f"{tmp_path / 'mine.py'}:Green"]
    assert green.name == "green"
    assert green.hue == 120
    assert type(colours[f"{tmp_path / 'mine.py'}:Green"]) is type(green)


def test_a_module_is_an_entry():
    assert load_object("math:pi") == pytest.approx(3.14159, abs=1e-5)


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("nothing", "is not a reference"),
        (":name", "is not a reference"),
        ("file.py:", "is not a reference"),
        ("missing.py:name", "there is no file"),
        ("no_such_module:name", "No module named"),
        ("math:pie", "no object in math named 'pie'; did you mean 'pi'"),
    ],
)
def test_references_that_lead_nowhere(reference, match):
    with pytest.raises(SpecError, match=match):
        load_object(reference)


def test_a_file_that_fails_is_not_remembered(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('broken')\n")
    for _ in range(2):
        with pytest.raises(SpecError, match="the file raised RuntimeError: broken"):
            load_object(f"{path}:name")
    path.write_text("name = 1\n")
    assert load_object(f"{path}:name") == 1


def test_files_are_looked_for_in_the_folder_that_is_said(tmp_path):
    (tmp_path / "own.py").write_text("name = 1\n")
    with references_from(tmp_path):
        assert load_object("own.py:name") == 1
    with pytest.raises(SpecError, match="there is no file"):
        load_object("own.py:name")


def test_a_file_that_changed_is_run_anew(tmp_path):
    path = tmp_path / "own.py"
    for value in (1, 2):
        path.write_text(f"class Name:\n    value = {value}\n")
        found = load_object(f"{path}:Name")
        assert found.value == value
        assert load_object(f"{path}:Name") is found


def test_what_a_file_imports_from_beside_it_is_run_anew_too(tmp_path):
    (tmp_path / "parts_of_own").mkdir()
    (tmp_path / "parts_of_own" / "__init__.py").write_text("")
    (tmp_path / "own.py").write_text("import math\nimport beside_own\nvalue = beside_own.deep.VALUE\n")
    (tmp_path / "other.py").write_text("import beside_own\nvalue = beside_own.deep.VALUE\n")
    (tmp_path / "beside_own.py").write_text("from parts_of_own import deep\n")
    before = sys.modules["math"]
    for value in (1, 22, 333):
        (tmp_path / "parts_of_own" / "deep.py").write_text(f"VALUE = {value}\n")
        with references_from(tmp_path):
            assert load_object("own.py:value") == value
            assert load_object("other.py:value") == value
    assert sys.modules["math"] is before
