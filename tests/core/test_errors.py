"""The tree of exceptions, and what their messages say."""

from pathlib import Path

import pytest

from attar._src.core import errors


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


def test_a_fault_of_a_file_names_it_once():
    with (
        pytest.raises(errors.ArtifactError) as caught,
        errors.naming_file(Path("a.attar")),
        errors.naming_file(Path("b")),
    ):
        raise errors.ArtifactError("cut", section="footer")
    assert str(caught.value) == "b: footer: cut"
    assert (caught.value.section, caught.value.path) == ("footer", Path("b"))


def test_a_fault_of_a_section_names_the_innermost_one():
    with (
        pytest.raises(errors.ArtifactError) as caught,
        errors.naming_section("graph main"),
        errors.naming_section("tensor a"),
    ):
        raise errors.ArtifactError("cut")
    assert str(caught.value) == "tensor a: cut"
    with pytest.raises(errors.ArtifactError, match=r"^tensor a: 9 bits"), errors.naming_section("tensor a"):
        raise errors.SpecError("9 bits")


def test_a_file_that_is_not_there_has_its_nearest_neighbour_named(tmp_path):
    (tmp_path / "recipe.yaml").touch()
    near, far = errors.missing_file(tmp_path / "recipe.yml", "there is no recipe"), errors.missing_file(tmp_path / "q")
    assert near == f"there is no recipe {tmp_path / 'recipe.yml'}; did you mean {tmp_path / 'recipe.yaml'}?"
    assert far == f"there is no file {tmp_path / 'q'}"
    assert errors.missing_file(tmp_path / "no" / "q").endswith(f"; there is no folder {tmp_path / 'no'} either")
    assert errors.missing_file(tmp_path) == f"there is no file {tmp_path}, which is a folder"


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        ("ran", ["rans", "digits"], "no coder named 'ran'; did you mean 'rans'?"),
        ("zzz", ["rans", "huffman"], "no coder named 'zzz'; known: huffman, rans"),
        ("x", [], "no coder named 'x'; known: none"),
        ("linear", ["normalize", "uniform"], "no coder named 'linear'; did you mean 'uniform'?"),
        ("narrow", ["name", "narrow_range"], "no coder named 'narrow'; did you mean 'narrow_range'?"),
        ("narrow", ["low_precision", "lsq"], "no coder named 'narrow'; did you mean 'low_precision'?"),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, known, says):
    assert str(errors.UnknownName("coder", name, known)) == says
