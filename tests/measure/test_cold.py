"""Cold start: a fresh process, and what it says when it fails."""

import json

import pytest
from tests import samples

from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import ArtifactError
from attar._src.measure import cold
from attar._src.measure.cold import cold_start


@pytest.fixture
def file(tmp_path):
    write_atomically(tmp_path / "m.attar", pack(samples.conv_net(), coder="raw"))
    return tmp_path / "m.attar"


def test_a_fresh_process_tells_time_and_memory(file):
    found = cold_start(file, [([1, 3, 8, 8], "<f4")], repeats=1)
    assert found.cold_start_ms > 0
    assert found.peak_memory_bytes is None or found.peak_memory_bytes > 2**20


def test_its_failure_is_passed_on(file):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="fresh process"):
        cold_start(file, [([1, 3, 8, 8], "<f4")], repeats=1)


def test_the_process_itself(file, capsys):
    cold.measure_in_process(str(file), json.dumps([([2, 3, 8, 8], "<f4")]), "1", "{}", "auto")
    assert json.loads(capsys.readouterr().out)["cold_start_ms"] > 0


def test_memory_is_known_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(cold, "_STATUS", tmp_path / "nothing")
    memory = cold.peak_memory()
    assert memory is None or memory > 2**20
