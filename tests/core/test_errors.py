"""The tree of exceptions, and what their messages say."""

import pytest

from attar.core import errors


def test_every_error_is_an_attar_error():
    for name in ("ArtifactError", "SpecError", "UnknownName", "DataError", "ModelError", "ParityError"):
        assert issubclass(getattr(errors, name), errors.AttarError)
    assert issubclass(errors.SpecError, ValueError)
    assert issubclass(errors.UnknownName, errors.SpecError)


def test_an_artifact_error_names_its_section():
    error = errors.ArtifactError("the checksum does not match", section="section 3 (tensors)")
    assert str(error) == "section 3 (tensors): the checksum does not match"
    assert error.section == "section 3 (tensors)"
    assert str(errors.ArtifactError("cut")) == "cut"
    assert errors.ArtifactError("cut").section is None


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        ("ran", ["rans", "digits"], "no coder named 'ran'; did you mean 'rans'?"),
        ("zzz", ["rans", "huffman"], "no coder named 'zzz'; known: huffman, rans"),
        ("x", [], "no coder named 'x'; known: none"),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, known, says):
    assert str(errors.UnknownName("coder", name, known)) == says
