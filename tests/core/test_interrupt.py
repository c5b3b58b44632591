"""A Ctrl-C that some library swallows is raised again where long work asks for it."""

import io
import os
import signal
import threading

import pytest
from tests.core.test_progress import Terminal

from attar._src.core.interrupt import interruptible, raise_if_interrupted
from attar._src.core.progress import track
from attar._src.pipeline.journal import Journal


def press():
    os.kill(os.getpid(), signal.SIGINT)


def swallow():
    with pytest.raises(KeyboardInterrupt):
        press()


def test_nothing_is_heard_where_nothing_came():
    with interruptible():
        raise_if_interrupted()
        assert list(track(range(3), "work")) == [0, 1, 2]


def test_it_is_raised_at_once_as_ever():
    reached = []

    def work():
        press()
        reached.append(True)

    with pytest.raises(KeyboardInterrupt), interruptible():
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

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert done == [0]


def test_one_that_nothing_asked_about_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), interruptible():
        swallow()
    raise_if_interrupted()


def test_of_two_blocks_the_outer_one_listens():
    reached = []

    def work():
        with interruptible():
            swallow()
        reached.append("inner")
        with interruptible():
            raise_if_interrupted()
        reached.append("no further")

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert reached == ["inner"]


def test_no_row_is_written_after_one(tmp_path):
    journal = Journal(tmp_path / "j", writes=True)
    journal.add("begun")

    def work():
        swallow()
        journal.add("done")

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert (tmp_path / "j").read_bytes().count(b"\n") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_a_finalizer_swallowed_is_heard():
    class Last:
        def __del__(self):
            press()

    with pytest.raises(KeyboardInterrupt), interruptible():
        Last()


def test_an_error_that_it_was_taken_for_becomes_it_again():
    def work():
        try:
            press()
        except KeyboardInterrupt:
            raise ValueError("no such tag") from None

    with pytest.raises(KeyboardInterrupt) as raised, interruptible():
        work()
    assert isinstance(raised.value.__context__, ValueError)
    with pytest.raises(ValueError, match="another"), interruptible():
        raise ValueError("another")


def test_a_handler_that_raises_nothing_has_its_way_and_comes_back():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        mine = signal.getsignal(signal.SIGINT)
        with interruptible():
            press()
            assert heard == [True]
            raise_if_interrupted()
        assert signal.getsignal(signal.SIGINT) is mine
        raise_if_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_it_is_ignored_it_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            press()
            raise_if_interrupted()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_off_the_main_thread_handlers_are_left_alone():
    found = []

    def work():
        with interruptible():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
