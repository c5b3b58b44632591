"""Soft targets: what teachers say of every class at a temperature, alone or as an ensemble; below the soft losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import AfterValidator, Field

from attar.core.errors import SpecError
from attar.train.schedule import Schedule, Scheduled
from attar.work.objective import Sources


def _stays_warm(value: Scheduled) -> Scheduled:
    # A schedule never leaves the span between its ends.
    if isinstance(value, Schedule) and min(value.start, value.stop) <= 0:
        raise ValueError(f"a temperature of {min(value.start, value.stop):g} is none; start and stop must be above 0")
    return value


#: A softmax temperature: a number or a schedule of one, above 0 throughout.
Temperature = Annotated[Annotated[float, Field(gt=0)] | Schedule, AfterValidator(_stays_warm)]
#: One teacher, several with equal weights, or name -> weight.
Teachers = str | tuple[str, ...] | dict[str, Annotated[float, Field(gt=0)]]
#: A target that stands for no class: padding.
IGNORE = -100


def shares(teachers: Teachers) -> dict[str, float]:
    """Return each teacher's share of the ensemble; the shares sum to 1.

    Raises:
        SpecError: there is none.
    """
    if not teachers:
        raise SpecError("a soft loss needs a teacher: name a model of the recipe, a list of them or a name -> weight")
    weights = {teachers: 1.0} if isinstance(teachers, str) else teachers
    weights = weights if isinstance(weights, dict) else dict.fromkeys(weights, 1.0)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def log_soft_targets(sources: Sources, teachers: Mapping[str, float], temperature: float) -> torch.Tensor:
    """Return ``log sum_k w_k softmax(z_k / T)``, float32 and of the shape of the outputs, without gradient.

    The weighted mean is one of probabilities, as an ensemble's answer is, not one of logits.

    Args:
        sources: with the teachers' logits ``z_k`` (n, ..., classes).
        teachers: name -> its share ``w_k``; the shares sum to 1.
        temperature: T.

    Raises:
        SpecError: a teacher's outputs have another shape than the student's.
    """
    parts = []
    with torch.no_grad():
        for name, share in teachers.items():
            logits = sources.teachers[name]
            if logits.shape != sources.outputs.shape:
                raise SpecError(
                    f"teacher {name!r} gave outputs of shape {tuple(logits.shape)}, the student "
                    f"{tuple(sources.outputs.shape)}; both must score the same classes at the same positions"
                )
            part = torch.log_softmax(widened(logits) / temperature, -1)
            parts.append(part + math.log(share))
        return parts[0] if len(parts) == 1 else torch.logsumexp(torch.stack(parts), 0)


def mean_over_positions(losses: torch.Tensor, sources: Sources, ignore_index: int) -> torch.Tensor:
    """Return the mean of ``losses`` (n, ...) over the positions whose target is a class; 0 where there is none.

    Positions are padding where there are whole targets of the shape of ``losses`` and theirs is ``ignore_index``.
    """
    targets = sources.batch.targets
    if targets is None or targets.is_floating_point() or targets.shape != losses.shape:
        return losses.mean()
    real = targets != ignore_index
    return losses.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)


def widened(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in at least float32: sums over classes are not for bfloat16."""
    return logits if logits.dtype == torch.float64 else logits.float()
