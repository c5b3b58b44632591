import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar._src.core.errors import SpecError
from attar._src.recipe.yaml_text import apply_overrides, format_yaml, parse_yaml

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def read(path, text):
    path.write_text(text, encoding="utf-8")
    return parse_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E2", 500.0),
        (".inf", math.inf),
        ("010", 10),
        ("0x10", 16),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("", None),
        ("true", True),
        ("é", "é"),
    ],
)
def test_words_are_those_of_yaml_1_2(tmp_path, text, value):
    found = read(tmp_path / "r.yaml", f"a: {text}\n")["a"]
    assert (found, type(found)) == (value, type(value))


def test_anchors_and_merges(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {x: 5, z: 6}]}\n"
    assert read(tmp_path / "r.yaml", text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2, "z": 6},
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a'"),
        ("a: {b: 1, c: 2, b: 3}\n", "line 1, column 17: the key 'b'"),
        ("a: &a {x: 1}\nb:\n  x: 2\n  <<: *a\n  x: 3\n", "line 5, column 3: the key 'x'"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", "line 4, column 3: the key '<<'"),
        ("- a: [{1: 2, 1: 3}]\n", "line 1, column 14: the key '1'"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_place(tmp_path, text, where):
    with pytest.raises(SpecError, match=rf"r\.yaml is not YAML: {where} is given twice$"):
        read(tmp_path / "r.yaml", text)
    value = "{a: 1, a: 2}"
    with pytest.raises(SpecError, match=r"--set 'x=.*line 1, column 8: the key 'a' is given twice"):
        apply_overrides({}, [f"x={value}"])


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "\ta: 1", "a: *b", "a: !b 1", "a: 'x", "--- 1\n--- 2", "a: \x07", "!!python/name:os.x"],
)
def test_what_is_not_yaml_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(SpecError, match=r"r\.yaml is not YAML: ") as caught:
        read(tmp_path / "r.yaml", text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_bytes_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"a: \xff")
    with pytest.raises(SpecError, match="is not YAML"):
        parse_yaml(tmp_path / "r.yaml")


@settings(deadline=None, max_examples=60)
@given(tree=st.dictionaries(st.text(), TREES, max_size=5))
def test_what_is_written_reads_back_the_same(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_bytes(format_yaml(tree))
    found = parse_yaml(path)
    assert found == tree
    assert list(found) == list(tree)
