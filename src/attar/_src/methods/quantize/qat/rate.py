"""The rate term: bits that the weights take once they are entropy-coded, as a loss."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.core.tensors import Quantized
from attar._src.train.schedule import Schedule, Scheduled
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term
from attar._src.work.weight_view import WeightView

#: Counted once more than it is for every code, so that codes that are not there have a price.
_SEEN = 1.0
#: How fast the factor of a budget follows: its logarithm moves by this share of the excess in a step.
_DUAL_STEP = 0.02
_LEAST = 1e-6
#: Bytes of a file's budget that are kept back for tables and padding, which come out a little otherwise each time.
_SPARE = 32


class Rate(Term):
    """Bits per coded weight under each tensor's own adaptive model, so that a file falls below its nominal bits.

    The coder spends ``-log2 p(q)`` bits on code q, p its share of the tensor's codes. Between two codes the price is
    interpolated, which is what gives a gradient: with v the position of a weight on its grid and c the price,

        R = 1/n sum_i (1 - f_i) c(floor v_i) + f_i c(ceil v_i),    f = v - floor v

    Prices are those of the codes as they are, in every step anew, without gradient. R pulls weights towards codes that
    are frequent already, mostly 0, and steps to where fewer codes are needed. The entropy-coded prior is that of Oktay
    et al. 2020, "Scalable model compression by entropy penalized reparameterization", section 2, with counted
    frequencies in place of a learned density. Weights must be on an evenly spaced grid, as of ``lsq`` or ``quantize``.

    With a budget the gradient is that of ``mu R`` while the codes take more, and none while they take less; ``mu``
    starts at 1 and grows with the excess, ``log mu += 0.02 (rate / budget - 1)`` in every step, down as well as up;
    ``weight`` is then only where it begins. The value is the rate of the codes as they are, for logs to show.

    Attributes:
        bits: the budget in bits per coded weight, a number or a schedule; None: ``weight`` alone decides.
        file: the budget in bits per weight of the whole file, as reports count them: without the graph, with biases,
            scales and the rest. What the rest takes is measured: the module is packed once as it begins.
        reach: the share of the stage by which the budget falls from the rate at the beginning to what was asked.
    """

    name: Literal["rate"] = "rate"
    weight: Scheduled = 0.1
    bits: Annotated[float, Field(gt=0, le=8)] | Schedule | None = None
    file: Annotated[float, Field(gt=0, le=32)] | None = None
    reach: Annotated[float, Field(gt=0, le=0.9)] = 0.5

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.bits is not None and self.file is not None:
            raise ValueError("bits and file are both budgets; give one of them")
        return self

    def size_budget(self) -> float | None:
        """Return ``file``."""
        return self.file

    def build(self, learner: Learner) -> Objective:
        """Return the loss.

        Raises:
            SpecError: no weight is on an evenly spaced grid.
        """
        with torch.no_grad():
            rates = _rates(learner.weight_view())
            if rates is None:
                raise SpecError(
                    "rate: no weight is on an evenly spaced grid, so there are no codes to count; add a constraint "
                    "such as lsq to this stage or to one before it"
                )
            begun = float(rates[1])
            return _Rate(self, begun, torch.nan if self.file is None else _for_codes(self.file, begun, learner))


class _Rate(Objective):
    mu: torch.Tensor
    begun: torch.Tensor

    def __init__(self, term: Rate, begun: float, budget: float) -> None:
        super().__init__()
        self.term = term
        self.register_buffer("mu", torch.tensor(0.0))
        # In a buffer, so that a resumed run continues with its first budget.
        self.register_buffer("begun", torch.tensor([begun, budget]))

    def forward(self, sources: LossInputs) -> torch.Tensor:
        rates = _rates(sources.weights)
        assert rates is not None
        between, spent = rates
        budget = self._budget(sources.progress)
        if budget is None:
            return between
        if self.training:
            self.mu += _DUAL_STEP * (spent / budget - 1)
            self.mu.clamp_(min=math.log(_LEAST), max=-math.log(_LEAST))
        # Judged by the codes as they are: interpolated, a low rate looks higher than it is.
        pressed = self.mu.exp() * between * (spent > budget)
        return spent + pressed - pressed.detach()

    def _budget(self, progress: float) -> float | None:
        """Return the bits per coded weight to be at where ``progress`` of the stage is done."""
        if self.term.bits is not None and isinstance(self.term.bits, Schedule):
            return self.term.bits.at(progress)
        start, stop = self.begun.tolist()
        stop = stop if self.term.bits is None else float(self.term.bits)
        if math.isnan(stop):
            return None
        return Schedule(start=max(start, stop), stop=stop, shape="cosine", end=self.term.reach).at(progress)


def _rates(weights: WeightView) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return bits per coded weight, interpolated between codes and of the rounded codes; None without codes."""
    found = list(weights.grid_positions().values())
    if not found:
        return None
    bits = [_bits(each.at.reshape(-1), each.low, each.high) for each in found]
    count = sum(each.at.numel() for each in found)
    return torch.stack([b for b, _ in bits]).sum() / count, torch.stack([s for _, s in bits]).sum() / count


def _for_codes(budget: float, rate: float, learner: Learner) -> float:
    """Return the bits per coded weight that leave a whole file within ``budget`` bits per parameter.

    Raises:
        SpecError: nothing is left for the codes.
    """
    piece = learner.deployed(emit=False)
    size: dict[str, int] = inspect_artifact(open_artifact(pack(piece.contents(learner.use), coder=learner.coder)))
    coded = {name: each.at.numel() for name, each in learner.weight_view().grid_positions().items()}
    # A module that begins untrained has vectors of one value, which take no bits yet and will.
    stored = piece.stored()
    vectors = [stored[name] for name, _ in learner.module.named_parameters() if name in stored]
    idle = sum(16 * each.codes.size for each in vectors if isinstance(each, Quantized) and not np.ptp(each.codes))
    beside = 8.0 * (size["file_bytes"] - size["graph_bytes"] + _SPARE) + idle - rate * sum(coded.values())
    found = (budget * size["parameters"] - beside) / sum(coded.values())
    if found <= 0:
        raise SpecError(
            f"rate: a file of {budget:g} bits per weight (of `compress`, a hundredth below its size) has "
            f"{budget * size['parameters'] / 8:,.0f} bytes, and what is not codes takes {beside / 8:,.0f}; "
            "ask for more, store it in fewer bits (low_precision), or let weights share scales (granularity: tensor)"
        )
    return found


def _bits(at: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bits of a tensor's codes under their own frequencies: between codes interpolated, and as they are.

    Args:
        at: positions in codes, ``(n,)``; the first of what is returned has a gradient to them.
        low, high: the codes at the ends.
    """
    levels = high - low + 1
    inside = at.clamp(low, high) - low
    with torch.no_grad():
        # What is not finite is counted as 0: the loss is not finite then, and the loop says so.
        known = inside.nan_to_num(0.0).clamp_(0, levels - 1)
        counts = torch.bincount(known.round().long(), minlength=levels).to(at.dtype)
        prices = torch.log2((counts + _SEEN).sum()) - torch.log2(counts + _SEEN)
        below = known.floor().clamp_(max=max(levels - 2, 0)).long()
        cheap = prices[below]
        slope = prices[(below + 1).clamp_(max=levels - 1)] - cheap
    return (cheap + (inside - below) * slope).sum(), (counts * prices).sum()
