"""What steps are expected to take: the fault guarded is a time limit that a search overruns, or never uses."""

import pytest

from attar._src.search.step_times import StepTimes
from attar._src.search.tried_file import TriedFile


def file(seconds, **options):
    return TriedFile(name="a", options=options, file_bytes=1, drop=0.0, unit="points", ms=1.0, seconds=seconds)


def test_a_search_that_goes_on_solves_again_before_its_first_size():
    times = StepTimes.of([file(1, bits=8), file(3, bits=4, scales="gptq"), file(50, max_bytes=9), file(5, max_bytes=8)])
    assert times.expected("size", solved=True) == pytest.approx(6)
    assert times.expected("size", solved=False) == pytest.approx(60)
    assert times.expected("see", solved=False) == pytest.approx(3.6)


def test_training_takes_as_long_as_the_size_that_is_trained():
    times = StepTimes.of([file(0.1, bits=8)])
    times.add("levels", 40)
    times.add("size", 10)
    assert times.expected("train", solved=True) == pytest.approx(12)
    assert times.expected("train", solved=False) == pytest.approx(48 + 0.8)


def test_nothing_is_expected_before_the_first_file():
    assert StepTimes().expected("train", solved=False) == 0
