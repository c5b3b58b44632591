"""Fixtures of every suite."""

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import settings

# No test measures time: a busy machine would fail it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and all they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that wait for each other on busy cores make a step of a small network 20 times as slow. Each worker computes
# on one, and so does what it starts; what is about threads asks for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Some tests import ONNX Runtime themselves, before Attar does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_warning_of_time(monkeypatch):
    """Whether integers pay is measured and not warned of: a busy machine would fail a test that saves a file."""
    monkeypatch.setattr("attar._src.measure.speed.WORTH_MS", float("inf"))


@pytest.fixture
def rng():
    """A generator of the same numbers each time."""
    return np.random.default_rng(0)


@pytest.fixture
def one_thread():
    """PyTorch on one thread: threads that wait for each other on a busy machine make small networks a hundred times
    slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
