"""DEFLATE, with and without the dictionaries of the format."""

import hashlib
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.house.repository import ROOT

from attar._src.artifact.compact.deflating import deflate, dictionary, inflate
from attar._src.core.errors import ArtifactError

KINDS = ("manifest", "graph")


@given(st.binary(max_size=2000), st.sampled_from([b"", b"a preset", *map(dictionary, KINDS)]))
def test_inflate_undoes_deflate(data, preset):
    assert inflate(memoryview(deflate(data, preset)), len(data), 2000, preset) == data


@pytest.mark.parametrize(("length", "limit"), [(4, 10), (6, 10), (5, 4), (0, 10)])
@pytest.mark.parametrize("preset", [b"", b"12345"])
def test_inflate_makes_what_is_declared_or_nothing(length, limit, preset):
    with pytest.raises(ArtifactError, match="inflate"):
        inflate(memoryview(deflate(b"12345", preset)), length, limit, preset)


def test_a_reference_beyond_the_dictionary_is_refused():
    deflated = memoryview(deflate(dictionary("graph")[:64], dictionary("graph")))
    with pytest.raises(ArtifactError, match="cannot be inflated"):
        inflate(deflated, 64, 100, b"")


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_is_that_of_the_format(kind):
    """It never changes: files that were written with it could not be read any more."""
    page = (ROOT / "docs" / "format.md").read_text()
    (length, digest) = re.search(rf"`{kind}\.bin` \| ([0-9,]+) \| `([0-9a-f]{{64}})`", page).groups()
    assert len(dictionary(kind)) == int(length.replace(",", "")) < zlib.MAX_WBITS << 11
    assert hashlib.sha256(dictionary(kind)).hexdigest() == digest
