"""JSON that is written the same each time and read with every check."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.artifact import jsontext
from attar._src.core.errors import ArtifactError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_reading_undoes_writing(value):
    assert jsontext.parse_json(jsontext.write_json(value), values=1000) == value


def test_the_same_value_gives_the_same_bytes():
    assert jsontext.write_json({"b": [1, 0.1], "a": "é"}) == '{"a":"é","b":[1,0.1]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_not_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsontext.write_json({"a": value})


@pytest.mark.parametrize("depth", [31, 32])
def test_the_depth_of_nesting(depth):
    text = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    if depth < 32:
        jsontext.parse_json(text, values=2**17)
    else:
        with pytest.raises(ArtifactError, match="the JSON is nested 33 deep; the limit is 32"):
            jsontext.parse_json(text, values=2**17)


@pytest.mark.parametrize("text", [b'{"a":"[[[\\"[["}', b'{"a\\\\":"]","[":1}', b'{"":""}'])
def test_brackets_in_strings_do_not_nest(text):
    jsontext.parse_json(text, values=2**17)
