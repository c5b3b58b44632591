"""Where a command will write."""

import os
from pathlib import Path

import pytest

from attar._src.cli.output import demand_writable
from attar._src.core.errors import SpecError


def test_a_new_file_and_one_to_replace(tmp_path, monkeypatch):
    (tmp_path / "old").touch()
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "new", tmp_path / "old", Path("new"), Path("./new")):
        demand_writable(path)
    assert os.listdir(tmp_path) == ["old"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/such/m.attar", "there is no folder .*no/such; make it with `mkdir -p .*no/such`"),
        ("no/m.attar", "there is no folder .*no; make it"),
        ("file/m.attar", "file is a file, not a folder"),
        ("file/no/m.attar", "file is a file, not a folder"),
        ("folder", "folder is a folder; name a file in it"),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_places_where_nothing_can_be_written(tmp_path, monkeypatch, path, message, relative):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=message):
        demand_writable(Path(path) if relative else tmp_path / path)


def test_a_folder_of_someone_else(tmp_path, monkeypatch):
    # Not chmod: an administrator may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(SpecError, match=r"the folder .* is not writable"):
        demand_writable(tmp_path / "m.attar")
