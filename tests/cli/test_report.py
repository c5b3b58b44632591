"""``attar report``; it may not import PyTorch."""

import json
import subprocess
import sys
import webbrowser

import pytest
from tests.report import runs

from attar._src.cli import main


@pytest.fixture
def run(tmp_path):
    return runs.small(tmp_path / "demo", models=[{}, {}])


def ran(capsys, *arguments):
    code = main(["report", *map(str, arguments)])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_the_page_is_made_anew_and_named(run, capsys):
    code, out, err = ran(capsys, run)
    page = run / "report.html"
    assert (code, err) == (0, "")
    assert out.startswith(f"{page}: ")
    assert page.stat().st_size > 10**6


def test_json_is_alone_on_standard_output(run, capsys):
    code, out, _ = ran(capsys, run, "--json")
    assert code == 0
    assert json.loads(out) == {
        "page": str(run / "report.html"),
        "bytes": (run / "report.html").stat().st_size,
        "warnings": {},
    }


def test_warnings_are_printed_before_the_page(tmp_path, capsys):
    folder = runs.small(tmp_path, models=[{}, {"warnings": ["[b]half[/b] is left in floating point"]}])
    code, out, err = ran(capsys, folder)
    assert (code, err) == (0, "")
    assert out.startswith("warning: b: [b]half[/b] is left in floating point\n")
    ran(capsys, folder, "--json")
    code, out, _ = ran(capsys, folder, "--json")
    assert json.loads(out)["warnings"] == {"b": ["[b]half[/b] is left in floating point"]}


def test_the_page_can_be_opened(run, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert ran(capsys, run, "--open")[0] == 0
    assert opened == [(run / "report.html").resolve().as_uri()]


def test_a_folder_without_a_run_is_an_error_that_says_how_to_make_one(tmp_path, capsys):
    code, out, err = ran(capsys, tmp_path)
    assert (code, out) == (1, "")
    assert "has no report.json" in err
    assert "attar run RECIPE.yaml" in err


def test_a_folder_that_cannot_be_written_is_named(run, capsys, monkeypatch):
    (run / "report.html").mkdir()
    code, _, err = ran(capsys, run)
    assert code == 1
    assert "report.html" in err


def test_pytorch_is_not_imported(run):
    code = (
        "import sys; from attar._src.cli import main; "
        "assert main(['report', sys.argv[1]]) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(run)], check=True, timeout=120, capture_output=True)
