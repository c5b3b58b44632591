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
