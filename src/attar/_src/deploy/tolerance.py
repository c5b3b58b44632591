"""Tolerance: from which loss against the floating-point module on a report has a warning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from attar._src.core.spec import Spec

Share = Annotated[float, Field(ge=0, le=1)]


class Tolerance(Spec):
    """From which loss against the floating-point module on there is a warning.

    The defaults are losses that few users would accept unseen: one answer in twenty changed, an error of 18 % of what
    tells examples apart (15 dB), one point of accuracy, a tenth more error. A public ResNet-20 for CIFAR-10 has 99.8 %
    equal predictions and 31.8 dB with 8 bits, 96.3 % and 16.0 dB with 4-bit weights, 91.2 % and 8.8 dB with 3-bit ones.

    Attributes:
        equal_predictions: least share of equal predictions, where an output has scores; of equal elements, where an
            output is of integers; less two standard errors of this share of so many examples.
        signal_to_noise_db: least signal to noise, where an output has other values; that of scores should be positive,
            as equal predictions say nothing where one class always wins.
        metric: most points that a metric may lose of which more is better (accuracy: 0.01 is one point), beyond two
            standard errors.
        error: largest share by which a metric may grow of which less is better, beyond two standard errors.
    """

    equal_predictions: Share = 0.95
    signal_to_noise_db: float = 15.0
    metric: Annotated[float, Field(ge=0)] = 0.01
    error: Annotated[float, Field(ge=0)] = 0.1


#: The default.
TOLERANCE = Tolerance()
