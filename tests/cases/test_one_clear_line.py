"""Kind: a path, a file or a stream that nobody expects ends in one line and an exit code, never in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.forked import attar_command
from tests.samples import conv_net

import attar
from attar._src.artifact.writer import pack
from attar._src.pipeline.folder import RunFolder
from attar._src.report.record import read_report

UTF8 = {"PYTHONUTF8": "1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "m.attar").write_bytes(pack(conv_net()))
    return tmp_path / "m.attar"


def command(*arguments: str | bytes, environment: dict[str, str] = UTF8, shell: str = "") -> tuple[int, str, str]:
    """Run the command line in a process of its own; ``shell`` redirects its streams."""
    line = [sys.executable, "-m", "attar", *arguments]
    if shell:
        line = ["sh", "-c", f'"$@" {shell}', "sh", *line]  # type: ignore[list-item]
    done = subprocess.run(line, capture_output=True, env={**os.environ, **environment}, timeout=120)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def one_line(done: tuple[int, str, str], *words: str) -> None:
    """Assert that a command failed with one line on standard error that has these words."""
    code, _, error = done
    assert code in (1, 2)
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("arguments", [["inspect", "FILE"], ["inspect", "FILE", "--json"], ["--help"]])
def test_a_full_standard_output_is_named(file: Path, arguments: list[str]) -> None:
    given = [str(file) if each == "FILE" else each for each in arguments]
    one_line(command(*given, shell="> /dev/full"), "output", "No space left")


def test_a_closed_standard_output_leaves_no_traceback(file: Path) -> None:
    assert "Traceback" not in command("inspect", str(file), shell=">&-")[2]


def test_a_reader_that_leaves_ends_the_command_quietly(file: Path) -> None:
    assert command("inspect", str(file), shell="| head -c 1 > /dev/null")[2] == ""


def test_every_character_is_printed_in_a_locale_without_it(file: Path) -> None:
    named = file.rename(file.with_name("größe▍.attar"))
    code, out, error = command("inspect", str(named), environment=ASCII)
    assert (code, error) == (0, "")
    assert out.isascii()
    assert "gr\\" in out
    assert "#" in out


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_file_names_that_are_no_text_are_opened_and_printed(file: Path) -> None:
    odd = os.fsencode(file.parent) + b"/odd\xff.attar"
    os.rename(file, odd)
    assert command("inspect", odd)[0] == 0
    one_line(command("inspect", os.fsencode(file.parent) + b"/none\xff.attar"), "there is no file")


def test_names_that_no_system_takes_are_refused(tmp_path: Path) -> None:
    one_line(command("inspect", str(tmp_path / f"{'x' * 300}.attar")), "cannot be read")
    with pytest.raises(attar.ArtifactError, match=r"cannot be read.*null byte"):
        attar.Session("a\0b.attar")


@pytest.mark.parametrize("text", ["[" * 20_000, "a: " + "{a: " * 2_000, "- " * 2_000])
def test_recipes_that_are_nested_too_deep_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    one_line(attar_command("run", str(tmp_path / "recipe.yaml"), folder=tmp_path).ended(), "is not YAML")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 20_000])
def test_damaged_records_of_a_run_are_named(tmp_path: Path, text: bytes) -> None:
    folder = RunFolder(tmp_path / "run", {"recipe": 1}, resume=False, first=True)
    folder.close()
    (tmp_path / "run" / "run.json").write_bytes(text)
    with pytest.raises(attar.AttarError, match=r"run\.json is damaged.*run in another folder"):
        RunFolder(tmp_path / "run", {"recipe": 1}, resume=True, first=True)
    (tmp_path / "report.json").write_bytes(text)
    with pytest.raises(attar.AttarError, match=r"report\.json is not a report"):
        read_report(tmp_path / "report.json")


def test_ragged_lists_are_refused_by_the_name_of_the_input(file: Path) -> None:
    session = attar.Session(file)
    name = session.inputs[0].name
    for given in ([[1.0, 2.0], [3.0]], {name: [[1.0], [2.0, 3.0]]}, [np.zeros(2), np.zeros(3)]):
        with pytest.raises(attar.DataError, match=f"input '{name}' is no array: its rows differ in length"):
            session.run(given)  # type: ignore[arg-type]
