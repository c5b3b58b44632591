"""Tolerance: from which loss against the floating-point module on a report has a warning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from attar._src.core.spec import Spec

Share = Annotated[float, Field(ge=0, le=1)]


class Tolerance(Spec):
    """From which loss against the floating-point module on there is a warning.

    The defaults are those that few users would accept unseen: 3 of 100 answers changed, an error of 18 % of what tells
    examples apart (15 dB), one point of accuracy, a tenth more error.

    Attributes:
        equal_predictions: least share of equal predictions, where an output has scores; of equal elements, where an
            output is of integers.
        signal_to_noise_db: least signal to noise, where an output has other values.
        metric: most points that a metric may lose of which more is better (accuracy: 0.01 is one point), beyond two
            standard errors.
        error: largest share by which a metric may grow of which less is better, beyond two standard errors.
    """

    equal_predictions: Share = 0.97
    signal_to_noise_db: float = 15.0
    metric: Annotated[float, Field(ge=0)] = 0.01
    error: Annotated[float, Field(ge=0)] = 0.1


#: The default.
TOLERANCE = Tolerance()
