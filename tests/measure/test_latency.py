"""Latency: who runs when, and what is made of the times; never how long anything takes."""

from collections import Counter

import numpy as np
import pytest

from attar._src.core.errors import SpecError
from attar._src.measure.latency import interleave, summarize


def test_every_model_runs_once_in_each_round_and_in_changing_order():
    ran = []
    found = interleave([lambda: ran.append(0), lambda: ran.append(1), lambda: ran.append(2)], rounds=40)
    assert [latency.rounds for latency in found] == [40] * 3
    rounds = np.array(ran[-120:]).reshape(40, 3)
    assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
    assert len(Counter(map(tuple, rounds))) == 6
    assert found[0].ratio == 1.0


def test_the_figures_are_those_of_the_times():
    times = np.stack([np.arange(1.0, 102.0), np.full(101, 102.0)], axis=1)
    first, second = summarize(times)
    assert (first.median_ms, first.p99_ms, first.spread) == (51.0, 100.0, 50 / 51)
    assert (second.median_ms, second.spread, second.ratio) == (102.0, 0.0, 2.0)
    assert vars(second) == {"median_ms": 102.0, "p99_ms": 102.0, "spread": 0.0, "ratio": 2.0, "rounds": 101}


def test_rounds_are_chosen_when_none_are_given(monkeypatch):
    monkeypatch.setattr("attar._src.measure.latency._SECONDS", 1e-9)
    assert interleave([lambda: None])[0].rounds == 20


@pytest.mark.parametrize(("runs", "rounds"), [([], 5), ([print], 0)])
def test_nothing_to_time_is_refused(runs, rounds):
    with pytest.raises(SpecError, match="one or more"):
        interleave(runs, rounds=rounds)
