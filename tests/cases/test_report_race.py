"""Several writers of one report: each entry stays. The kind: read, change, write, without a turn of one's own."""

import json
import subprocess
import sys
import threading

import pytest

from attar._src.artifact import files
from attar._src.artifact.files import taking_turns
from attar._src.report.record import NAME, RUN, read_report, remember, remember_run

WRITERS, ENTRIES = 8, 25
WRITE = """
import sys
from pathlib import Path
from attar._src.report.record import remember
folder, writer, entries = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()  # all start together
for entry in range(entries):
    remember(folder / f"m{writer}_{entry}.attar", f"{writer:03d}{entry:03d}".ljust(64, "0"), {"x": 1})
"""


def test_processes(tmp_path):
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(number), str(ENTRIES)], stdin=subprocess.PIPE) for number in range(WRITERS)
    ]
    for writer in writers:
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(120) for writer in writers] == [0] * WRITERS
    assert len(read_report(tmp_path / NAME)) == WRITERS * ENTRIES
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("locks", ["folder", "file"])
def test_threads(tmp_path, monkeypatch, locks):
    if locks == "file":  # as on Windows
        monkeypatch.setattr(files, "_locks", None)

    def write(writer):
        for entry in range(10):
            remember(tmp_path / f"m{writer}_{entry}.attar", f"{writer:03d}{entry:03d}".ljust(64, "0"), {"x": 1})

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_report(tmp_path / NAME)) == 40
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_run_and_a_file(tmp_path):
    def run():
        for step in range(20):
            remember_run(tmp_path, {"step": step})

    writer = threading.Thread(target=run)
    writer.start()
    for entry in range(20):
        remember(tmp_path / f"m{entry}.attar", f"{entry:064d}", {"x": 1})
    writer.join()
    found = json.loads((tmp_path / NAME).read_text())
    assert found.pop(RUN) == {"step": 19}
    assert len(found) == 20


def test_a_lock_of_a_dead_process_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_locks", None)
    monkeypatch.setattr(files, "_STALE", -1.0)
    (tmp_path / ".lock").touch()
    with taking_turns(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()
