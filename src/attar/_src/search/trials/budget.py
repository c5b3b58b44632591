"""The budget of a search: trials and minutes, and what is left of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from attar._src.search.trials.spec import SearchSpec
from attar._src.search.trials.store import StoredTrial, busy_seconds


@dataclass(frozen=True)
class Budget:
    """What a search may take.

    Attributes:
        spec: of the search.
        started: by the monotonic clock.
        before: seconds that trials took before.
    """

    spec: SearchSpec
    started: float
    before: float

    def is_time_for(self, seconds: float) -> bool:
        """Return whether what takes so long would end in time."""
        return self.spec.minutes is None or self._spent() + seconds <= 60 * self.spec.minutes

    def left(self, trials: Sequence[StoredTrial], points: float) -> float | None:
        """Return the seconds that are left: of the time, or for the trials at their mean so far; the lesser.

        Args:
            trials: so far.
            points: that there are to try.
        """
        over = sum(each.over for each in trials)
        left = [60 * self.spec.minutes - self._spent()] if self.spec.minutes is not None else []
        if self.spec.most_trials != float("inf") and over:
            most = min(self.spec.most_trials, points)
            left.append(busy_seconds(trials) / over * max(most - over, 0))
        return min(left, default=None)

    def _spent(self) -> float:
        return self.before + time.monotonic() - self.started


def expected_seconds(trials: Sequence[StoredTrial]) -> float:
    """Return the seconds that the next trial may take: the longest of the last five that were run.

    Those of a point that was tried before took none, and tell nothing.
    """
    last = [each.outcome.seconds for each in trials if each.outcome is not None and each.outcome.seconds][-5:]
    return max(last, default=0.0)
