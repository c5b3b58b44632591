"""A Ctrl-C that some library swallows is raised again where long work asks for it."""

import io
import os
import signal
import threading

import pytest
from tests.train.test_bar import Terminal

from attar.core.interrupt import heed, listening
from attar.core.progress import track
from attar.recipe.journal import Journal


def press():
    os.kill(os.getpid(), signal.SIGINT)


def swallow():
    with pytest.raises(KeyboardInterrupt):
        press()


def test_nothing_is_heard_where_nothing_came():
    with listening():
        heed()
        assert list(track(range(3), "work")) == [0, 1, 2]


def test_it_is_raised_at_once_as_ever():
    reached = []

    def work():
        press()
        reached.append(True)

    with pytest.raises(KeyboardInterrupt), listening():
        work()
    assert not reached


@pytest.mark.parametrize("err", [io.StringIO(), Terminal()])
def test_a_swallowed_one_is_raised_again_by_work_that_asks(monkeypatch, err):
    monkeypatch.setattr("sys.stderr", err)
    done = []

    def work():
        for item in track(range(3), "work"):
            swallow()
            done.append(item)

    with pytest.raises(KeyboardInterrupt), listening():
        work()
    assert done == [0]


def test_one_that_nothing_asked_about_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), listening():
        swallow()
    heed()


def test_of_two_blocks_the_outer_one_listens():
    reached = []

    def work():
        with listening():
            swallow()
        reached.append("inner")
        with listening():
            heed()
        reached.append("no further")

    with pytest.raises(KeyboardInterrupt), listening():
        work()
    assert reached == ["inner"]


def test_no_row_is_written_after_one(tmp_path):
    journal = Journal(tmp_path / "j", writes=True)
    journal.add("begun")

    def work():
        swallow()
        journal.add("done")

    with pytest.raises(KeyboardInterrupt), listening():
        work()
    assert (tmp_path / "j").read_bytes().count(b"\n") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_a_finalizer_swallowed_is_heard():
    class Last:
        def __del__(self):
            press()

    with pytest.raises(KeyboardInterrupt), listening():
        Last()


def test_an_error_that_it_was_taken_for_becomes_it_again():
    def work():
        try:
            press()
        except KeyboardInterrupt:
            raise ValueError("no such tag") from None

    with pytest.raises(KeyboardInterrupt) as raised, listening():
        work()
    assert isinstance(raised.value.__context__, ValueError)
    with pytest.raises(ValueError, match="another"), listening():
        raise ValueError("another")


def test_a_handler_that_raises_nothing_has_its_way_and_comes_back():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        mine = signal.getsignal(signal.SIGINT)
        with listening():
            press()
            assert heard == [True]
            heed()
        assert signal.getsignal(signal.SIGINT) is mine
        heed()
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_it_is_ignored_it_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening():
            press()
            heed()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_off_the_main_thread_handlers_are_left_alone():
    found = []

    def work():
        with listening():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
