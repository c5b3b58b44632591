"""Positions, DEFLATE, header and footer."""

from hypothesis import given
from hypothesis import strategies as st

from attar._src.artifact import layout
from attar._src.artifact.limits import Limits


@given(st.lists(st.integers(0, 300), max_size=8))
def test_since_1_4_places_leave_nothing_between(lengths):
    found = layout.places(lengths, 4)
    assert [place.stop - place.start for place in found] == lengths
    assert [place.start for place in found] == [16, *(place.stop for place in found)][: len(lengths)]


@given(st.lists(st.integers(0, 300), max_size=8))
def test_places_follow_from_lengths(lengths):
    found = layout.places(lengths, 3)
    assert [place.stop - place.start for place in found] == lengths
    assert all(place.start % 64 == 0 for place in found)
    ends = [16, *(place.stop for place in found)]
    assert all(0 <= place.start - end < 64 for place, end in zip(found, ends, strict=False))


@given(st.lists(st.binary(max_size=200), max_size=5), st.binary(min_size=1, max_size=200), st.sampled_from([0, 3, 4]))
def test_what_is_assembled_can_be_cut(sections, text, minor):
    data = memoryview(layout.assemble(sections, text, minor))
    assert layout.read_header(data) == minor
    assert bytes(data[:8]) == b"\x89ATR\r\n\x1a\n"
    found, place = layout.manifest_text(data, minor, Limits())
    assert found == text
    assert place.stop == len(data) - 64
    stop = layout.places([len(section) for section in sections], minor)[-1].stop if sections else 16
    assert place.start == layout.after(stop, minor)
