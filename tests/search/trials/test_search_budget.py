"""The budget of a search."""

import time
from dataclasses import replace
from datetime import datetime, timedelta

from attar._src.search.trial import TrialOutcome
from attar._src.search.trials.budget import Budget, expected_seconds
from attar._src.search.trials.spec import SearchSpec
from attar._src.search.trials.store import StoredTrial, TrialStore, busy_seconds

OUTCOME = TrialOutcome(file="x", sha256="0", file_bytes=9, metric="accuracy", value=1.0, drop=0.0, unit="points")


def trial(number, seconds):
    began = datetime(2026, 1, 1) + timedelta(seconds=100 * number)
    outcome = OUTCOME.model_copy(update={"seconds": seconds})
    return StoredTrial(number, {}, outcome, "", (), True, began, began + timedelta(seconds=seconds), 1)


def test_the_next_trial_takes_as_long_as_the_longest_of_the_last_that_were_run():
    """Points that were tried before take no time, and do not tell how long a new one takes."""
    ran = [trial(0, 40.0), trial(1, 9.0), *(trial(n, 8.0) for n in range(2, 5))]
    assert expected_seconds(ran) == 40
    assert expected_seconds([*ran, *(trial(n, 0.0) for n in range(5, 12))]) == 40
    assert expected_seconds([*ran, trial(5, 8.5)]) == 9


def test_what_would_not_end_in_time_is_not_begun():
    budget = Budget(SearchSpec(minimise="bytes", minutes=1), time.monotonic(), before=30.0)
    assert budget.is_time_for(25)
    assert not budget.is_time_for(31)
    assert Budget(SearchSpec(minimise="bytes"), 0.0, 0.0).is_time_for(1e9)
    assert 25 < budget.left([trial(0, 1.0)], 10) <= 30
    # Nine more of the ten points, at the mean.
    assert replace(budget, spec=SearchSpec(minimise="bytes")).left([trial(0, 2.0)], 10) == 18


def test_a_trial_that_went_on_took_the_time_since_then(tmp_path):
    """Guards against the night between two parts of a search that counts as work."""
    store = TrialStore(tmp_path, None, {}, resume=False)
    number = store.begin()
    study_trial = store._trial(number)
    study_trial.set_user_attr("began", "2020-01-01T00:00:00")
    store.attempt(number)
    store.finish(number, OUTCOME, 0.0)
    assert busy_seconds(store.trials()) < 60
