"""Fixtures of every suite."""

import collections.abc
import os
import signal
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch.export import decomp_utils, exported_program

from attar._src.measure import latency, speed

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


@pytest.fixture(scope="session", autouse=True)
def untimed():
    """What costs time or needs it, and is not what is tested, in all tests and in the fixtures that they share.

    Whether integers pay is measured and not warned of: a busy machine would fail a test that saves a file. No test
    reads latencies closely: all are timed for a few rounds, whatever time they may take. ``torch.onnx.export`` lists
    PyTorch's composite operators twice at every call, 0.1 s of the 0.6 s that a small network takes to quantize: they
    are listed once here, and again where a test has added an operator. For each of them and each of 21 kinds of device
    ``torch.export`` registers a function and evaluates its annotations, a sixth of an export: here for processors and
    graphics cards alone, and each type is made once.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(speed, "WORTH_MS", float("inf"))
        patched.setattr(speed, "SPEED_ROUNDS", (3, 5))
        patched.setattr(latency, "TIMED_ROUNDS", (5, 20))
        for module in (decomp_utils, exported_program):
            patched.setattr(module, "_collect_all_valid_cia_ops", _composite_operators)
        for name in ("_BACKEND_KEYS_TO_OVERRIDE", "_AUTOGRAD_ALIAS_BACKEND_KEYS_TO_OVERRIDE"):
            keys = [each for each in getattr(exported_program, name) if each.name.endswith(("CPU", "CUDA", "Meta"))]
            patched.setattr(exported_program, name, keys)
        patched.setattr(collections.abc.Callable, "__class_getitem__", _callable_type)
        yield


_OPERATORS = defaultdict(decomp_utils._collect_all_valid_cia_ops)


def _composite_operators():
    return _OPERATORS[len(torch._C._dispatch_get_all_op_names())]


_CALLABLE = collections.abc.Callable.__class_getitem__
_callable_types = {}


def _callable_type(parameters):
    try:
        return _callable_types[parameters]
    except TypeError:  # a list of types is no key
        return _CALLABLE(parameters)
    except KeyError:
        return _callable_types.setdefault(parameters, _CALLABLE(parameters))


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
