"""The rate term: the bits of entropy-coded weights as a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.packing import Packed, pack_codes
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.streams import CodeArray
from attar._src.artifact.writer import pack
from attar._src.core.tensors import Quantized
from attar._src.methods.devices import on_cpu
from attar._src.methods.quantize.coded_rate import CheaperCodes, cheapest_within, interpolated_bits
from attar._src.methods.quantize.grid_constraint import positions_on_grids
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.train.schedule import Schedule, Scheduled
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.parametrization import GridPositions
from attar._src.work.size_budget import BudgetError, SizeBudget
from attar._src.work.term import Term
from attar._src.work.weight_view import WeightView

#: Share of a size budget that ``compress`` keeps back, as the rate fluctuates in the last steps, and bytes that the
#: record of the stage may take, which is not there yet when the budget is made.
MARGIN, RECORD = 0.01, 128
_DUAL_STEP = 0.02  # change of log mu in a step, per relative excess of the rate
_NEAR = 0.02  # width of the range about the budget, relative, in which the push grows to all of mu
_LEAST = 1e-6  # smallest mu; the largest is its inverse
_EARLY = 0.1  # of the stage before the budget is reached, from which on what the coder takes is measured
_MOVED = 0.03  # relative change of the rate after which it is measured again
_SHARES = (0.5, 1.1)  # taken of what the coder takes beside the rate: huffman and raw do not follow a low one
_FITS = 8  # times that codes are moved at the end: prices are those of the codes before
_NEARLY = 1.15  # the most that a rate may be above its budget for codes to be moved
_SPARE = 32  # bytes kept back for tables and padding, which vary a little


class Rate(Term):
    """Bits per coded weight after entropy coding, so that a file becomes smaller than its nominal bits.

    The coder spends ``c(q) = -log2 p(q)`` bits on code q, with p the share of q in its tensor: a code of share 1/4
    costs 2 bits. With v the position of a weight on its grid, in codes, c is interpolated to give a gradient:

        R = 1/n sum_i (1 - f_i) c(floor v_i) + f_i c(ceil v_i),    f = v - floor v

    p is counted from the rounded codes in every step, without gradient. R pulls weights towards frequent codes, mostly
    0, and steps towards grids that need fewer codes. The loss is that of Oktay et al. 2020, "Scalable model compression
    by entropy penalized reparameterization", section 2, with counted frequencies in place of a learned density.

    With a budget and the excess ``e = rate / budget - 1``, the gradient is that of ``mu m R``: ``m`` grows from 0 at
    e = -1 % to 1 at e = 1 %. ``mu`` starts at 1 and follows ``log mu += 0.02 e`` in every step. The value of the loss
    is then the rate of the rounded codes. Weights must be on an evenly spaced grid, such as that of ``lsq`` or
    ``quantize``. After the last step, codes that cost least move to cheaper neighbours if the budget is nearly met.

    Attributes:
        bits: budget in bits per coded weight, a number or a schedule; None for no budget.
        file: budget of the whole file without its graph, in bits per weight as in reports. What is not codes (biases,
            scales) is measured by packing the module at the start and the end. What the coder takes of codes, a share
            of R as it knows more than p, is measured at the start and, once the budget is reached, in each tenth of the
            stage in which R has changed.
        max_bytes: budget of the whole file with its graph, in bytes; measured likewise.
        reach: share of the stage during which the budget falls from the initial rate to its final value.
    """

    name: Literal["rate"] = "rate"
    weight: Scheduled = 0.1
    bits: Annotated[float, Field(gt=0, le=8)] | Schedule | None = None
    file: Annotated[float, Field(gt=0, le=32)] | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    reach: Annotated[float, Field(gt=0, le=0.9)] = 0.5

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("bits", "file", "max_bytes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both budgets; give only one")
        return self

    def size_budget(self) -> SizeBudget | None:
        return SizeBudget.of(self.file, self.max_bytes)

    def build(self, learner: Learner) -> Objective:
        positions = positions_on_grids(learner, "rate")
        rounded = float(_rates(positions)[1])
        size = self.size_budget()
        room = None if size is None else _CodeRoom.of(size, positions, learner)
        return _Rate(self, rounded, room, positions)


class _Rate(Objective):
    def __init__(
        self, term: Rate, start: float, room: _CodeRoom | None, positions: Mapping[str, GridPositions]
    ) -> None:
        super().__init__()
        self.term, self.room = term, room
        self.mu = nn.Buffer(torch.tensor(0.0))
        # In buffers, so that a resumed run keeps its first budget, and what it has measured since: what the coder takes
        # beside the rate, at which rate, and in which tenth of the stage.
        self.begun = nn.Buffer(torch.tensor([start, torch.nan if room is None else room.bits]))
        self.measured = nn.Buffer(torch.tensor([1.0, start, 0.0]))
        if room is not None:
            self._measure(positions, start, 0)

    def _measure(self, positions: Mapping[str, GridPositions], rounded: float, tenth: int) -> None:
        assert self.room is not None
        share = self.room.coded_bits(positions) / rounded if rounded else 1.0
        self.measured.copy_(torch.tensor([min(max(share, _SHARES[0]), _SHARES[1]), rounded, tenth]))

    def _moved(self, rounded: float, progress: float) -> bool:
        """Return whether it is time to measure again what the coder takes."""
        _, before, tenth = self.measured.tolist()
        due = self.room is not None and int(10 * progress) > tenth and progress >= self.term.reach - _EARLY
        return due and not abs(rounded - before) <= _MOVED * before

    def forward(self, sources: LossInputs) -> torch.Tensor:
        positions = sources.weights.grid_positions()
        interpolated, rounded = _rates(positions)
        if self.training and self._moved(float(rounded), sources.progress):
            self._measure(positions, float(rounded), int(10 * sources.progress))
        budget = self._budget(sources.progress)
        if budget is None:
            return interpolated
        if self.training:
            self.mu.add_(_DUAL_STEP * (rounded / budget - 1))
            self.mu.clamp_(min=math.log(_LEAST), max=-math.log(_LEAST))
        # Compared by the rounded codes, because interpolation overestimates a low rate. Not all at once: a small
        # network, each of whose weights has much of the rate, is thrown far below the budget by a whole push.
        near = ((rounded / budget - 1) / _NEAR + 0.5).clamp(0, 1)
        penalty = self.mu.exp() * near.detach() * interpolated
        return rounded + penalty - penalty.detach()

    def finish(self, learner: Learner) -> None:
        """Move codes to cheaper neighbours until they are within a budget that training has nearly reached.

        Training ends where the push and the loss are in balance, a per cent or two above the budget. What is not codes
        is packed again, as grids of activations, for example, have begun since.
        """
        weights, size = learner.weight_view(), self.term.size_budget()
        if size is not None:
            with on_cpu(learner), suppress(BudgetError):
                self.room = _CodeRoom.of(size, weights.grid_positions(), learner)
                self.begun[1] = self.room.bits
        fixed = {
            name: torch.ones_like(each.at, dtype=torch.bool)
            for name, each in weights.grid_positions().items()
            if not weights.tensors[name].requires_grad
        }
        for _ in range(_FITS):
            positions = weights.grid_positions()
            rounded = float(_rates(positions)[1])
            if self.room is not None:
                self._measure(positions, rounded, 10)
            budget = self._budget(1.0)
            if budget is None or not budget < rounded <= _NEARLY * budget:
                return
            moves = [_moves(each, fixed.get(name)) for name, each in positions.items()]
            most = budget * sum(each.at.numel() for each in positions.values())
            taken = dict(zip(positions, cheapest_within(moves, most), strict=True))
            if not any(bool(each.any()) for each in taken.values()):
                return
            _move(weights, positions, dict(zip(positions, moves, strict=True)), taken, fixed)

    def _budget(self, progress: float) -> float | None:
        """Return the budget of R at ``progress`` (0 to 1) of the stage, None without one."""
        if self.term.bits is not None and isinstance(self.term.bits, Schedule):
            return self.term.bits.at(progress)
        start, stop = self.begun.tolist()
        stop = stop / float(self.measured[0]) if self.term.bits is None else float(self.term.bits)
        if math.isnan(stop):
            return None
        return Schedule(start=max(start, stop), stop=stop, shape="cosine", end=self.term.reach).at(progress)


def _moves(each: GridPositions, fixed: torch.Tensor | None) -> CheaperCodes:
    at, scale, codes = each.at.detach(), each.scale.expand(each.at.shape), each.codes()
    centred = scale * (codes - codes.mean())  # a constant weight has no signal, and no cheaper code
    still = torch.zeros_like(codes, dtype=torch.bool) if fixed is None else fixed
    if each.spans:
        still = still | (codes == each.low) | (codes == each.high)
    return CheaperCodes.of(codes, at, scale, (each.low, each.high), float(centred.square().sum()) or 1.0, still)


def _move(
    weights: WeightView,
    positions: Mapping[str, GridPositions],
    wanted: Mapping[str, CheaperCodes],
    taken: Mapping[str, torch.Tensor],
    fixed: dict[str, torch.Tensor],
) -> None:
    """Move codes. A weight of which others come than were wanted stays, and what did not follow is fixed.

    So do masks, frozen codes, and weights that are normalized or computed from other parameters.
    """
    before, codes = {name: weights.value(name).clone() for name in positions}, dict[str, torch.Tensor]()
    for name, each in positions.items():
        codes[name] = torch.where(taken[name], wanted[name].after, wanted[name].before).reshape(each.at.shape)
        change = torch.where(taken[name].reshape(each.at.shape), codes[name] - each.at.detach(), 0.0)
        weights.value(name).add_(change * each.scale)
    for name, each in weights.grid_positions().items():
        wrong, own = each.codes() != codes[name], taken[name].reshape(each.at.shape)
        if wrong.any():
            weights.value(name).copy_(before[name])
            # Those that did not follow; all where none did, or where others did, too: they hang together.
            alone = bool((own & ~wrong).any()) and not bool((wrong & ~own).any())
            stuck = wrong & own if alone else torch.ones_like(wrong)
            fixed[name] = fixed.get(name, torch.zeros_like(stuck)) | stuck


def _rates(positions: Mapping[str, GridPositions]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bits per coded weight: interpolated between codes, and of the rounded codes."""
    bits = [interpolated_bits(each.at.reshape(-1), each.low, each.high) for each in positions.values()]
    count = sum(each.at.numel() for each in positions.values())
    interpolated, rounded = (torch.stack(parts).sum() / count for parts in zip(*bits, strict=True))
    return interpolated, rounded


@dataclass(frozen=True)
class _CodeRoom:
    """What a budget leaves for codes.

    Attributes:
        bits: for each coded weight, which the coder may take.
        beside: bytes of the file beside codes and their tables.
        coder: of the file.
    """

    bits: float
    beside: int
    coder: str

    @classmethod
    def of(cls, budget: SizeBudget, positions: Mapping[str, GridPositions], learner: Learner) -> _CodeRoom:
        """Pack the module and return what is left.

        Raises:
            BudgetError: nothing is.
        """
        model = shorten_numbers(learner.deployed(emit=False))
        size: dict[str, Any] = inspect_artifact(open_artifact(pack(model.contents(learner.use), coder=learner.coder)))
        codes = size["parts"]["codes"] + size["parts"]["tables"]
        # Constant vectors of an untrained module take no bits yet, but will after training.
        stored = model.stored()
        vectors = [stored[name] for name, _ in learner.module.named_parameters() if name in stored]
        constant = sum(
            16 * each.codes.size for each in vectors if isinstance(each, Quantized) and not np.ptp(each.codes)
        )
        coded = sum(each.at.numel() for each in positions.values())
        beside = size["file_bytes"] - codes
        # Codes on no grid of these positions stay as they are.
        other = 8.0 * (size["file_bytes"] - size["graph_bytes"] + _SPARE) + constant
        other -= coded * cls(0.0, beside, learner.coder).coded_bits(positions)
        most = budget.without_graph(size["parameters"], size["graph_bytes"])
        left = (8 * most - other) / coded
        if left <= 0:
            kept = least = ""
            if budget.max_bytes is not None:
                kept = f", and keeps {RECORD} bytes for its record"
                # An eighth of a bit for each code is next to none.
                needed = budget.max_bytes - left * coded / 8 + coded / 64
                least = f"; from about {math.ceil((needed + RECORD) / (1 - MARGIN)):,} on there is room for codes"
            raise BudgetError(
                f"a file of {budget.words()} (`compress` stays {MARGIN:.0%} below what it was asked for{kept}) has "
                f"{most:,.0f} bytes beside its graph, and everything but codes takes {other / 8:,.0f}{least}",
                "raise the budget, store the rest in fewer bits (low_precision), or share scales (granularity: tensor)",
            )
        return cls(left, beside, learner.coder)

    def coded_bits(self, positions: Mapping[str, GridPositions]) -> float:
        """Return the bits for each coded weight that codes and their tables take in a file."""
        codes = []
        for each in positions.values():
            symbols = (each.codes().float().cpu().nan_to_num(0.0).numpy() - each.low).astype(np.uint8)
            codes.append(CodeArray(symbols.reshape(-1), each.high - each.low + 1, symbols.shape))
        packed = pack_codes(codes, self.coder, length=lambda packed: self.beside + _code_bytes(packed))
        return 8 * _code_bytes(packed) / sum(each.symbols.size for each in codes)


def _code_bytes(packed: Packed) -> int:
    return sum(len(table) for _, table in packed.tables) + sum(len(payload) for _, payload in packed.streams)
