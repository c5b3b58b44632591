"""The training plan: the common fields of training stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attar._src.core.spec import Spec
from attar._src.train.optimizer import OptimizerChoice, Sgd
from attar._src.train.schedule import cosine_rise

_LOW = 1 / 25
_LAST = 1e-4
#: Default of the largest norm of all gradients together.
CLIP = 2.0


class TrainingPlan(Spec):
    """How a module is trained.

    Attributes:
        epochs: number of passes over the training examples.
        batch: examples per step, over all ranks.
        schedule: schedule of the learning rate, see :meth:`factor`.
        warmup: share of the steps over which the learning rate rises; None is 0.3 for ``one_cycle`` and 0 otherwise.
        clip: maximum norm of the gradients of all parameters together (Pascanu et al. 2013, "On the difficulty of
            training recurrent neural networks", section 3.2), by default 2: networks without normalization diverge at
            the usual learning rates otherwise, and those with it rarely reach the norm. None disables clipping.
        average: share of the steps, at the end, over which parameters are averaged; training ends with their mean
            (Izmailov et al. 2018, "Averaging weights leads to wider optima", section 3.2; usually with ``constant``).
            0 disables averaging.
        norm_batches: training batches for re-estimating the running statistics of batch-norms after the last epoch,
            with the weights that will be stored; 0 keeps the statistics of training.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 128
    optimizer: OptimizerChoice = Sgd()
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "one_cycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    # A factory, so that the record always has the value: a missing one means None, the default of earlier versions.
    clip: Annotated[float, Field(gt=0)] | None = Field(
        default_factory=lambda: CLIP, json_schema_extra={"default": CLIP}
    )
    average: Annotated[float, Field(ge=0, le=1)] = 0.0
    norm_batches: Annotated[int, Field(ge=0)] = 0

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate in step ``step`` of ``steps``.

        During the first ``warmup * steps`` steps the factor rises to 1: linearly, or for ``one_cycle`` along a cosine
        from 1/25. After that, with u the completed share of the remaining steps:

        - ``one_cycle``: ``1/25e4 + (1 - 1/25e4) (1 + cos(pi u)) / 2`` (Smith and Topin 2019, "Super-convergence", with
          the cosines and constants of ``torch.optim.lr_scheduler.OneCycleLR``; momentum is constant);
        - ``cosine``: ``(1 + cos(pi u)) / 2`` (Loshchilov and Hutter 2017, "SGDR", without restarts);
        - ``linear``: ``1 - u``;
        - ``constant``: 1.
        """
        cycle = self.schedule == "one_cycle"
        share = self.warmup if self.warmup is not None else 0.3 * cycle
        rising = round(share * steps)
        if step < rising:
            return _LOW + (1 - _LOW) * cosine_rise(step / rising) if cycle else (step + 1) / rising
        u = (step - rising) / max(steps - rising, 1)
        low, fall = _LOW * _LAST, 1 - cosine_rise(u)
        factors = {"one_cycle": low + (1 - low) * fall, "cosine": fall, "linear": 1 - u, "constant": 1.0}
        return factors[self.schedule]
