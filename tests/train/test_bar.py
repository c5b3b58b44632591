import io

import pytest

from attar._src.train import bar as bar_module
from attar._src.train.bar import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("shown", "terminal"), [(True, False), (False, True)])
def test_a_silent_bar_says_nothing(monkeypatch, shown, terminal):
    err = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(bar_module, "_PATIENCE", 0.0)
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
        monkeypatch.setattr(bar_module, "_PATIENCE", -1.0)
        bar.say("epoch 2/3, loss 0.5")
        bar.step()
    assert "training: epoch 2/3, loss 0.5" in err.getvalue()
    assert "6/10" in err.getvalue()
