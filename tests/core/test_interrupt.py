"""A Ctrl-C that some library swallows is raised again where long work asks for it."""

import gc
import os
import signal
import threading
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError

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
    with listening():
        swallow()


@pytest.mark.parametrize("ask", [heed, lambda: next(track([1], "work"))])
def test_a_swallowed_one_is_raised_again(ask):
    with listening():
        swallow()
        with pytest.raises(KeyboardInterrupt):
            ask()


def test_no_row_is_written_after_one(tmp_path):
    journal = Journal(tmp_path / "j", writes=True)
    journal.add("begun")
    with listening():
        swallow()
        with pytest.raises(KeyboardInterrupt):
            journal.add("done")
    assert (tmp_path / "j").read_bytes().count(b"\n") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_a_finalizer_swallowed_is_heard():
    class Last:
        def __del__(self):
            press()

    with listening():
        last = Last()
        del last
        gc.collect()
        with pytest.raises(KeyboardInterrupt):
            heed()


def test_an_error_that_it_was_taken_for_becomes_it_again():
    class One(BaseModel):
        kind: Literal["one"] = "one"

    def tag(_):
        press()
        return "one"

    adapter = TypeAdapter(Annotated[Annotated[One, Tag("one")], Discriminator(tag)])
    with pytest.raises(KeyboardInterrupt), listening():
        adapter.validate_python({})
    with pytest.raises(ValidationError), listening():
        TypeAdapter(One).validate_python({"kind": "two"})


def test_the_handler_that_was_there_is_called_and_comes_back():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        mine = signal.getsignal(signal.SIGINT)
        with listening():
            press()
            assert heard == [True]
            with pytest.raises(KeyboardInterrupt):
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
