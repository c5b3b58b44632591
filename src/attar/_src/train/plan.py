"""Plan: how long and how a module is trained; the fields every training stage has."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from attar._src.core.spec import Spec
from attar._src.train.optimizer import OptimizerChoice, Sgd

_LOW = 1 / 25
_LAST = 1e-4


class TrainingPlan(Spec):
    """How a module is trained. A stage has these as its own fields by being a subclass.

    Attributes:
        epochs: how often every example is seen.
        batch: examples in a step, over all ranks.
        optimizer: what makes a step of the gradients.
        schedule: what the learning rate is multiplied by, as :meth:`factor` has it.
        warmup: share of the steps over which the rate rises; None: 0.3 for ``one_cycle``, 0 for the others.
        clip: largest norm of all gradients together; longer ones are scaled down to it. None: as they are.
        average: share of the steps, at the end, over which parameters are averaged; training ends with the mean of what
            they were after each of these (Izmailov et al. 2018, "Averaging weights leads to wider optima", section
            3.2), for which ``constant`` is the usual schedule. 0: it ends with the last.
        norm_batches: training batches over which the running statistics of batch-norms are taken anew after the last
            epoch, for the weights as they will be stored; 0: they stay as training left them.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 128
    optimizer: OptimizerChoice = Sgd()
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "one_cycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    clip: Annotated[float, Field(gt=0)] | None = None
    average: Annotated[float, Field(ge=0, le=1)] = 0.0
    norm_batches: Annotated[int, Field(ge=0)] = 0

    def factor(self, step: int, steps: int) -> float:
        """Return what the learning rate is multiplied by in step ``step`` of ``steps``.

        With w = ``warmup`` of the steps, while step < w steps the factor rises: linearly up to 1, for ``one_cycle``
        along a cosine from 1/25. From there, u the share of the remaining steps that is done:

        - ``one_cycle``: ``1/25e4 + (1 - 1/25e4) (1 + cos(pi u)) / 2`` (Smith and Topin 2019, "Super-convergence", with
          the cosines and constants of ``torch.optim.lr_scheduler.OneCycleLR``; momentum stays as it is);
        - ``cosine``: ``(1 + cos(pi u)) / 2`` (Loshchilov and Hutter 2017, "SGDR", without restarts);
        - ``linear``: ``1 - u``;
        - ``constant``: 1.
        """
        cycle = self.schedule == "one_cycle"
        share = self.warmup if self.warmup is not None else 0.3 * cycle
        rising = round(share * steps)
        if step < rising:
            return _LOW + (1 - _LOW) * _rise(step / rising) if cycle else (step + 1) / rising
        u = (step - rising) / max(steps - rising, 1)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "linear":
            return 1 - u
        low = _LOW * _LAST if cycle else 0.0
        return low + (1 - low) * (1 - _rise(u))


def _rise(u: float) -> float:
    return (1 - math.cos(math.pi * u)) / 2
