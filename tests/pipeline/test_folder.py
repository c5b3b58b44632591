"""Folders of runs: claimed by one, resumed by the same, and by nothing that changed."""

import errno
import os
import subprocess
import sys

import pytest

from attar._src.core.digest import file_digest
from attar._src.core.errors import AttarError, SpecError
from attar._src.pipeline.folder import RunFolder, differences, writing

FACTS = {"recipe": {"models": {"a": {"stages": [{"epochs": 1}, {"epochs": 2}]}}}, "data": {"train": "00"}}


def claim(path, facts=FACTS, resume=False, first=True):
    return RunFolder(path, facts, resume=resume, first=first)


def test_a_folder_is_claimed_by_one_run(tmp_path):
    folder = claim(tmp_path / "run")
    with pytest.raises(AttarError, match=r"another run is active in .*run; wait for it"):
        claim(tmp_path / "run", resume=True)
    folder.close()
    claim(tmp_path / "run", resume=True).close()


def test_a_damaged_journal_leaves_the_folder_to_others(tmp_path):
    claim(tmp_path).close()
    (tmp_path / "journal.jsonl").write_text("damaged\n")
    with pytest.raises(AttarError, match="is no row of a journal") as caught:
        claim(tmp_path, resume=True)
    (tmp_path / "journal.jsonl").write_text("")
    claim(tmp_path, resume=True).close()
    assert caught.value


def test_the_other_ranks_of_a_run_are_let_in(tmp_path):
    folder = claim(tmp_path / "run")
    folder.journal.add("begun")
    assert claim(tmp_path / "run", first=False).journal.rows == folder.journal.rows
    folder.close()


def test_a_lock_dies_with_its_process(tmp_path):
    code = "import os, sys\nfrom attar._src.pipeline.folder import RunFolder\nfrom pathlib import Path\n"
    code += "RunFolder(Path(sys.argv[1]), {}, resume=False, first=True)\nos.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert done.returncode == -9
    claim(tmp_path / "run", {}, resume=True).close()


def test_a_run_is_not_begun_over_another(tmp_path):
    claim(tmp_path).close()
    with pytest.raises(SpecError, match="already has a run; resume it"):
        claim(tmp_path)


def test_resuming_what_never_began_begins_it(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / ".run.json.7.part").write_text("{")
    claim(tmp_path, resume=True).close()
    assert (tmp_path / "run.json").is_file()
    assert not list(tmp_path.glob(".*.part"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    for resume in (False, True):
        with pytest.raises(SpecError, match="is not empty and has no run"):
            claim(tmp_path, resume=resume)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"thesis.txt", "lock"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": {"train": "01"}}, 'data.train was "00" and is "01"'),
        ({"recipe": {"models": {"a": {"stages": [{"epochs": 1}, {"epochs": 3}]}}}}, "1.epochs was 2 and is 3"),
        ({"recipe": {"models": {"b": {}}}}, "recipe.models.b was not there"),
        ({"files": {"nets.py": "12"}}, "files.*was not there"),
    ],
)
def test_what_changed_is_named(tmp_path, changed, message):
    claim(tmp_path).close()
    with pytest.raises(SpecError, match=message):
        claim(tmp_path, FACTS | changed, resume=True)
    claim(tmp_path, resume=True).close()


def test_differences_name_paths_and_values():
    before = {"a": [1, {"b": 2}], "c": 3, "same": None}
    after = {"a": [1, {"b": 5}], "d": 4, "same": None}
    assert list(differences(before, after)) == [
        "a.1.b was 2 and is 5",
        "c was 3 and is not there",
        "d was not there and is 4",
    ]
    assert list(differences([1], [1, 2], "x")) == ["x was [1] and is [1, 2]"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_said_so(tmp_path, number):
    with pytest.raises(AttarError, match=r"x cannot be written .*resume the run"), writing(tmp_path):
        raise OSError(number, os.strerror(number), "x")


def test_other_errors_of_the_system_are_not_about_writing(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "nothing").read_bytes()


def test_a_digest_is_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert file_digest(tmp_path / "a").startswith("e3b0c442")


def test_a_refused_run_leaves_its_folder_to_the_mended_recipe(tmp_path):
    folder = claim(tmp_path)
    folder.journal.decide("capture of a", "train")
    folder.refuse()
    folder.close()
    claim(tmp_path, {"recipe": "mended"}).close()
    # A run that had begun before stays.
    folder = claim(tmp_path, {"recipe": "mended"}, resume=True)
    folder.refuse()
    folder.close()
    with pytest.raises(SpecError, match="already has a run"):
        claim(tmp_path, FACTS)
