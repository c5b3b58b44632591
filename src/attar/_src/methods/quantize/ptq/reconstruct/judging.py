"""Whether a change is kept: a paired comparison on inputs that are not trained on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Errors:
    """Errors of one state of a block or network.

    Attributes:
        judged: of each part of the inputs that only judge.
        trained: the mean over some inputs that are trained on.
    """

    judged: tuple[float, ...]
    trained: float

    @property
    def mean(self) -> float:
        """The mean over the parts that judge."""
        return sum(self.judged) / len(self.judged)

    def plus(self, more: float) -> Errors:
        """Return the errors with ``more`` added to each."""
        return replace(self, judged=tuple(each + more for each in self.judged), trained=self.trained + more)

    def improves(self, before: Errors) -> bool:
        """Whether this state is to be kept instead of the one ``before``.

        It is if it has less error on the parts that judge; or if the differences d of the parts do not tell, ``mean d
        <= sd(d) / sqrt(n)``, and it has less error where it was trained. A few inputs often have most of the error of a
        network, so that the mean of n others is mostly chance (the one-standard-error rule of Breiman et al. 1984,
        "Classification and regression trees", section 3.4.3).

        Example:
            Errors 0.1, 0.3 before and 0.2, 0.21 afterwards: d = 0.1, -0.09 has the mean 0.005 and the standard error
            0.095, so what training says counts. 0.12 and 0.32 would be worse.
        """
        if not (math.isfinite(self.mean) and math.isfinite(before.mean)):
            # Training that diverged; infinite errors have no differences.
            return self.mean < before.mean
        differences = [after - each for after, each in zip(self.judged, before.judged, strict=True)]
        mean = statistics.fmean(differences)
        if mean < 0 or len(differences) < 2:
            return mean < 0
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        return mean <= error and self.trained < before.trained


def joined(errors: Iterable[Errors]) -> Errors:
    """Return the errors of several graphs as those of one state."""
    every = list(errors)
    return Errors(tuple(each for one in every for each in one.judged), sum(one.trained for one in every))
