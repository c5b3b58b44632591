"""The storage of a search's trials."""

import pytest

from attar._src.core.errors import AttarError, SpecError
from attar._src.search.trials.store import TrialStore


@pytest.mark.parametrize("url", ["nonsense", "sqlite:nonsense"])
def test_what_is_no_url_is_refused(tmp_path, url):
    with pytest.raises(SpecError, match="is no URL of a database, such as"):
        TrialStore(tmp_path, url, {}, resume=True)


def test_a_password_is_not_told(tmp_path):
    with pytest.raises(AttarError, match="cannot be opened") as caught:
        TrialStore(tmp_path, "postgresql+nothing://user:hidden@host/name", {}, resume=True)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["a?b", "a b%20#c"])
def test_the_storage_lies_in_its_folder_whatever_that_is_called(tmp_path, name):
    """Guards against two folders with one storage, in a third place."""
    (tmp_path / name).mkdir()
    TrialStore(tmp_path / name, None, {}, resume=True).begin()
    assert (tmp_path / name / "trials.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_storage_is_told(tmp_path):
    (tmp_path / "trials.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(AttarError, match="cannot be opened"):
        TrialStore(tmp_path, None, {}, resume=True)
