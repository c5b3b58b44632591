"""The journal: whole rows only, found by what they say; decisions are made once."""

import json

import pytest

from attar._src.core.errors import AttarError
from attar._src.pipeline.journal import Journal


def test_rows_are_appended_and_found(tmp_path):
    journal = Journal(tmp_path / "j", writes=True)
    journal.add("epoch", model="a", epoch=1)
    journal.add("epoch", model="b", epoch=1)
    assert [row["model"] for row in Journal(tmp_path / "j", writes=False).find("epoch")] == ["a", "b"]
    assert journal.find("epoch", model="b", epoch=1) == [{"event": "epoch", "model": "b", "epoch": 1}]
    assert journal.find("epoch", model="b", epoch=2) == journal.find("done") == []


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_row_that_was_being_written_is_dropped(tmp_path, cut):
    journal = Journal(tmp_path / "j", writes=True)
    journal.add("begun", model="a")
    whole = (tmp_path / "j").read_bytes()
    journal.add("done", model="a")
    (tmp_path / "j").write_bytes((tmp_path / "j").read_bytes()[: len(whole) + cut])
    again = Journal(tmp_path / "j", writes=True)
    assert again.find("done") == []
    again.add("done", model="b")
    assert [json.loads(line)["model"] for line in (tmp_path / "j").read_text().splitlines()] == ["a", "b"]


def test_what_was_decided_stays(tmp_path):
    assert Journal(tmp_path / "j", writes=True).decide("threads", 2, why="measured") == 2
    assert Journal(tmp_path / "j", writes=True).decide("threads", 4) == 2
    assert len(Journal(tmp_path / "j", writes=True).rows) == 1


def test_ranks_but_the_first_only_read(tmp_path):
    Journal(tmp_path / "j", writes=True).add("begun")
    other = Journal(tmp_path / "j", writes=False)
    other.add("done")
    assert [row["event"] for row in other.rows] == ["begun"]
    assert other.decide("threads", 3) == 3
    assert len((tmp_path / "j").read_text().splitlines()) == 1


@pytest.mark.parametrize("damage", [b'{"event": "be\n', b"\0\0\0\n", b"[1]\n", b"\n"])
def test_a_damaged_row_is_named(tmp_path, damage):
    (tmp_path / "j").write_bytes(b'{"event": "begun"}\n' + damage)
    with pytest.raises(AttarError, match=r"j, line 2: .* is no row of a journal"):
        Journal(tmp_path / "j", writes=True)
