"""The files that are attacked, and what must come of it."""

import re

import pytest
from tests.attacks.reseal import take_apart
from tests.samples import conv_net, lstm, transformer

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError


@pytest.fixture(scope="session")
def files():
    """The sample files by name, in the layout of formats before 1.4, and ``compact`` in that of 1.4."""
    older = {make.__name__: pack(make(), compact=False) for make in (conv_net, lstm, transformer)}
    return {**older, "compact": pack(conv_net())}


@pytest.fixture
def conv(files):
    """The parts of the convolutional net."""
    return take_apart(files["conv_net"])


@pytest.fixture
def compact(files):
    """The parts of the convolutional net in the layout of format 1.4."""
    return take_apart(files["compact"])


@pytest.fixture
def recurrent(files):
    """The parts of the LSTM."""
    return take_apart(files["lstm"])


@pytest.fixture
def attention(files):
    """The parts of the transformer."""
    return take_apart(files["transformer"])


@pytest.fixture
def refused():
    """Check that a file is refused with an ArtifactError whose message matches."""

    def check(data, match, **options):
        with pytest.raises(ArtifactError) as caught:
            open_artifact(data, **options).verify()
        assert re.search(match, str(caught.value)), str(caught.value)
        assert caught.value.section

    return check
