"""Positions, DEFLATE, header and footer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.artifact import layout
from attar._src.artifact.limits import Limits
from attar._src.core.errors import ArtifactError


@given(st.lists(st.integers(0, 300), max_size=8))
def test_places_follow_from_lengths(lengths):
    found = layout.places(lengths)
    assert [place.stop - place.start for place in found] == lengths
    assert all(place.start % 64 == 0 for place in found)
    ends = [16, *(place.stop for place in found)]
    assert all(0 <= place.start - end < 64 for place, end in zip(found, ends, strict=False))


@given(st.binary(max_size=2000))
def test_inflate_undoes_deflate(data):
    assert layout.inflate(memoryview(layout.deflate(data)), len(data), 2000) == data


@given(st.lists(st.binary(max_size=200), max_size=5), st.binary(min_size=1, max_size=200), st.sampled_from([0, 1]))
def test_what_is_assembled_can_be_cut(sections, text, minor):
    data = memoryview(layout.assemble(sections, text, minor))
    assert layout.read_header(data) == minor
    assert bytes(data[:8]) == b"\x89ATR\r\n\x1a\n"
    found, place = layout.manifest_text(data, Limits())
    assert found == text
    assert place.stop == len(data) - 64
    assert place.start == layout.align(
        layout.places([len(section) for section in sections])[-1].stop if sections else 16
    )


@pytest.mark.parametrize(("length", "limit"), [(4, 10), (6, 10), (5, 4), (0, 10)])
def test_inflate_makes_what_is_declared_or_nothing(length, limit):
    with pytest.raises(ArtifactError, match="inflate"):
        layout.inflate(memoryview(layout.deflate(b"12345")), length, limit)
