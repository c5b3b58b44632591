import json

import pytest

from attar._src.core.errors import AttarError
from attar._src.report.record import RUN, read_report, remember, remember_run


def test_figures_are_kept_by_the_files_sha256(tmp_path):
    remember(tmp_path / "a.attar", "1" * 64, {"bytes": 1})
    remember(tmp_path / "b.attar", "2" * 64, {"bytes": 2})
    path = remember(tmp_path / "a.attar", "1" * 64, {"accuracy": 0.5})
    assert path == tmp_path / "report.json"
    assert read_report(path) == {
        "1" * 64: {"file": "a.attar", "bytes": 1, "accuracy": 0.5},
        "2" * 64: {"file": "b.attar", "bytes": 2},
    }


def test_a_file_that_was_replaced_is_forgotten(tmp_path):
    remember(tmp_path / "a.attar", "1" * 64, {"bytes": 1})
    path = remember(tmp_path / "a.attar", "3" * 64, {"bytes": 3})
    assert list(read_report(path)) == ["3" * 64]


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "{"])
def test_what_is_no_report_is_not_overwritten(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(AttarError, match="is not a report"):
        remember(tmp_path / "a.attar", "1" * 64, {})
    assert (tmp_path / "report.json").read_text() == content


def test_the_report_is_json_with_a_last_newline(tmp_path):
    text = remember(tmp_path / "a.attar", "1" * 64, {"x": 1}).read_text()
    assert text.endswith("}\n")
    assert json.loads(text)


def test_what_a_run_measured_outlives_what_is_measured_on_a_file(tmp_path):
    remember_run(tmp_path, {"file": "a.attar", "models": []})
    remember(tmp_path / "a.attar", "1" * 64, {"bytes": 1})
    remember(tmp_path / "a.attar", "2" * 64, {"bytes": 2})
    assert read_report(tmp_path / "report.json") == {
        RUN: {"file": "a.attar", "models": []},
        "2" * 64: {"file": "a.attar", "bytes": 2},
    }


def test_a_later_run_takes_the_place_of_an_earlier_one_and_leaves_the_files(tmp_path):
    remember(tmp_path / "a.attar", "1" * 64, {"bytes": 1})
    remember_run(tmp_path, {"metric": "accuracy", "seeds": [0]})
    path = remember_run(tmp_path, {"metric": "other"})
    assert read_report(path) == {RUN: {"metric": "other"}, "1" * 64: {"file": "a.attar", "bytes": 1}}


def test_a_run_does_not_overwrite_what_is_no_report(tmp_path):
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(AttarError, match="is not a report"):
        remember_run(tmp_path, {})
