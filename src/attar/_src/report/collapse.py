"""Silent collapse: a class that a compressed model has lost, hidden by its mean accuracy.

The mean over ten classes falls by one point when one class loses ten. A class counts as *collapsed* if its *excess*,
the loss beyond that of all other classes together, is

    excess = (before - after) - max(0, mean over the other classes of (before - after))

- more than 10 points; and
- more than z of its standard errors. With Bonferroni's correction for the number of classes, z = max(3, the
  1 - 0.05 / classes quantile of the normal distribution), so that a model that lost nothing has any class flagged with
  a probability of at most 5 %.

A loss that all classes share is not a collapse; the mean shows it. One success and one failure are added to each count,
so that 36 right of 36 do not have a standard error of zero (Agresti and Caffo 2000, The American Statistician 54(4),
section 3). Standard errors are those of independent samples; both models saw the same examples, so that the rule is
conservative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEAST_LOSS = 0.10
LEAST_ERRORS = 3.0
FALSE_ALARM = 0.05


@dataclass(frozen=True)
class Change:
    """The accuracy of one class before and after compression.

    Attributes:
        before, after: accuracy of the baseline and of the model, 0 to 1.
        excess: loss beyond that of the other classes.
        error: standard error of the excess.
    """

    label: str
    before: float
    after: float
    excess: float
    error: float
    collapsed: bool

    @property
    def change(self) -> float:
        """``after - before``; negative for a loss."""
        return self.after - self.before


def compare_classes(
    before: Mapping[str, float], after: Mapping[str, float], examples: Mapping[str, float]
) -> tuple[Change, ...]:
    """Return the change of each class that both models have, in the order of ``before``.

    Args:
        before, after: label -> accuracy of the baseline and of the model, 0 to 1.
        examples: label -> number of test examples.
    """
    labels = [label for label in before if label in after]
    if not labels:
        return ()
    old, new, n = (np.array([of[label] for label in labels], np.float64) for of in (before, after, examples))
    old_share, new_share = ((share * n + 1) / (n + 2) for share in (old, new))
    loss = old_share - new_share
    variance = (old_share * (1 - old_share) + new_share * (1 - new_share)) / (n + 2)
    # Sums over the other classes; a single class has no others.
    rest = n.sum() - n
    some = np.where(rest > 0, rest, 1)
    others = np.where(rest > 0, ((loss * n).sum() - loss * n) / some, 0)
    doubt = np.where(rest > 0, ((variance * n**2).sum() - variance * n**2) / some**2, 0)
    excess = loss - np.maximum(others, 0)
    error = np.sqrt(variance + doubt)
    needed = max(LEAST_ERRORS, NormalDist().inv_cdf(1 - FALSE_ALARM / max(len(labels), 2)))
    collapsed = (excess > LEAST_LOSS) & (excess > needed * error)
    columns = (each.tolist() for each in (old, new, excess, error, collapsed))
    return tuple(Change(*row) for row in zip(labels, *columns, strict=True))
