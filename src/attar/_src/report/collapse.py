"""Silent collapse: a class that a compressed model has lost while its mean accuracy hardly tells.

A mean over ten classes moves by one point when one class loses ten. A class counts as *collapsed* when what it lost
beyond the loss of all other classes together, its *excess*, is

    excess = (before - after) - max(0, mean over the other classes of (before - after))

- more than 10 points: enough to matter to whoever depends on that class; and
- more than z standard errors of itself: enough not to be the luck of a small test set. z is 3, or more where there are
  many classes, such that in a model that lost nothing any class at all is flagged with a probability of at most 5 %
  (Bonferroni: z = max(3, the 1 - 0.05 / classes quantile of the normal distribution)).

A loss that all classes share is not a collapse: the mean shows it. Shares are taken with one success and one failure
added to each, so that 36 right of 36 do not claim an error of zero (Agresti and Caffo 2000, The American Statistician
54(4), section 3). Both models saw the same examples, which makes their errors go together; standard errors as of
independent samples are then too large rather than too small, and the rule errs on the quiet side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

#: How much a class has to lose beyond the others: a share, 0 to 1.
LEAST_LOSS = 0.10
#: How many standard errors it has to lose at least.
LEAST_ERRORS = 3.0
#: The probability that a model which lost nothing has any class flagged.
FALSE_ALARM = 0.05


@dataclass(frozen=True)
class Change:
    """What became of one class.

    Attributes:
        label: the class.
        before, after: share of right predictions of the baseline and of the model, 0 to 1.
        excess: what it lost beyond the loss of the other classes.
        error: standard error of the excess.
        collapsed: whether that is more than chance and more than may be passed over.
    """

    label: str
    before: float
    after: float
    excess: float
    error: float
    collapsed: bool

    @property
    def change(self) -> float:
        """What the class gained; negative where it lost."""
        return self.after - self.before


def compare_classes(
    before: Mapping[str, float], after: Mapping[str, float], examples: Mapping[str, float]
) -> tuple[Change, ...]:
    """Compare two models class by class.

    Args:
        before: label -> share of right predictions of the baseline, 0 to 1.
        after: the same of the model; a label the other does not have is left out.
        examples: label -> how many test examples it has.

    Returns:
        One entry for each label, in the order of ``before``.
    """
    labels = [label for label in before if label in after]
    if not labels:
        return ()
    old = np.array([before[label] for label in labels], np.float64)
    new = np.array([after[label] for label in labels], np.float64)
    n = np.array([examples[label] for label in labels], np.float64)
    old_share, new_share = ((share * n + 1) / (n + 2) for share in (old, new))
    loss = old_share - new_share
    variance = (old_share * (1 - old_share) + new_share * (1 - new_share)) / (n + 2)
    # Of the other classes: sums over all less the class itself; one class alone has no others.
    rest = n.sum() - n
    some = np.where(rest > 0, rest, 1)
    others = np.where(rest > 0, ((loss * n).sum() - loss * n) / some, 0)
    doubt = np.where(rest > 0, ((variance * n**2).sum() - variance * n**2) / some**2, 0)
    excess = loss - np.maximum(others, 0)
    error = np.sqrt(variance + doubt)
    needed = max(LEAST_ERRORS, NormalDist().inv_cdf(1 - FALSE_ALARM / max(len(labels), 2)))
    collapsed = (excess > LEAST_LOSS) & (excess > needed * error)
    return tuple(
        Change(label, float(old[i]), float(new[i]), float(excess[i]), float(error[i]), bool(collapsed[i]))
        for i, label in enumerate(labels)
    )
