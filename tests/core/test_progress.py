import io

import pytest

from attar._src.core import progress
from attar._src.core.progress import Bar, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("shown", "terminal"), [(True, False), (False, True)])
def test_a_silent_bar_says_nothing(monkeypatch, shown, terminal):
    err = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    with Bar("training", 2, shown=shown) as bar:
        bar.say("epoch 1")
        bar.step()
    assert err.getvalue() == ""


def test_a_bar_says_how_far_it_is_once_patience_is_over(monkeypatch):
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with Bar("training", 10, done=4) as bar:
        bar.step()
        assert err.getvalue() == ""
        monkeypatch.setattr(progress, "_PATIENCE", -1.0)
        bar.say("epoch 2/3, loss 0.5")
        bar.step()
    assert "training: epoch 2/3, loss 0.5" in err.getvalue()
    assert "6/10" in err.getvalue()


def test_items_are_counted_as_they_are_worked_through(monkeypatch):
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert "letters" in err.getvalue()
    assert "3/3" in err.getvalue()


def test_items_without_a_length_have_a_bar_too(monkeypatch):
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert "2/?" in err.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(progress, "_LINE_EVERY", -1.0)
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Bar("training", 8, done=4) as bar:
        bar.say("epoch 2/3, loss 0.5")
        bar.step()
        bar.step()
    assert err.getvalue().splitlines() == [
        "training: epoch 2/3, loss 0.5: 5 of 8, 0:00:30 left",
        "training: epoch 2/3, loss 0.5: 6 of 8, 0:00:20 left",
    ]


def test_a_log_of_items_without_a_length_counts_them(monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(progress, "_LINE_EVERY", -1.0)
    assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert err.getvalue().splitlines() == ["letters: 1", "letters: 2"]
