"""Latency: who runs when, and what is made of the times; never how long anything takes."""

from collections import Counter

import numpy as np
import pytest

from attar._src.core.errors import SpecError
from attar._src.measure.latency import TIMED_ROUNDS, interleave, summarize, time_in_turns


def test_every_model_has_a_turn_of_two_runs_in_each_round_and_in_changing_order():
    ran = []
    found = interleave([lambda: ran.append(0), lambda: ran.append(1), lambda: ran.append(2)], rounds=40)
    assert [latency.rounds for latency in found] == [40] * 3
    turns = np.array(ran[-240:]).reshape(40, 3, 2)
    assert (turns[..., 0] == turns[..., 1]).all()
    rounds = turns[..., 0]
    assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
    assert len(Counter(map(tuple, rounds))) == 6
    assert found[0].ratio == 1.0


def test_the_figures_are_those_of_the_times():
    times = np.stack([np.arange(1.0, 102.0), np.full(101, 102.0)], axis=1)
    first, second = summarize(times)
    assert (first.median_ms, first.p99_ms, first.spread) == (51.0, 100.0, 50 / 51)
    assert (second.median_ms, second.spread, second.ratio) == (102.0, 0.0, 2.0)
    assert vars(second) == {"median_ms": 102.0, "p99_ms": 102.0, "spread": 0.0, "ratio": 2.0, "rounds": 101}


def test_only_the_second_run_of_a_turn_is_timed(monkeypatch):
    clock = iter(np.arange(1000.0))
    monkeypatch.setattr("attar._src.measure.latency.time.perf_counter", lambda: next(clock))
    first = iter([True, False] * 20)
    # A first run reads the clock five times more; if it were timed, its time would be 6 s instead of 1.
    run = lambda: [next(clock) for _ in range(5 if next(first) else 0)]  # noqa: E731
    assert time_in_turns([run], rounds=3).tolist() == [[1000.0]] * 3


def test_a_ratio_is_that_of_times_in_the_same_round():
    times = np.array([[1.0, 2.0], [10.0, 20.0], [3.0, 3.0]])  # a disturbance slows a whole round
    assert summarize(times)[1].ratio == 2.0


def test_rounds_are_chosen_when_none_are_given(monkeypatch):
    monkeypatch.setattr("attar._src.measure.latency.TIMED_ROUNDS", TIMED_ROUNDS)
    for seconds, rounds in ((1e-9, 20), (60, 2000)):
        assert interleave([lambda: None], seconds=seconds)[0].rounds == rounds


@pytest.mark.parametrize(("runs", "rounds"), [([], 5), ([print], 0)])
def test_nothing_to_time_is_refused(runs, rounds):
    with pytest.raises(SpecError, match="one or more"):
        interleave(runs, rounds=rounds)
