"""Curvature: what the rounding of a weight costs, as gradients tell without a run of the rounded network.

For a network with predictions p(y | x), rounding a weight by d moves them, to second order, by

    KL(p || p') = 1/2 E_x sum_y p(y | x) (d . gradient of log p(y | x))^2

the Fisher information in the direction of d, with the network's own predictions, so that no labels are needed (Martens
2020, "New insights and perspectives on the natural gradient method", section 5). A gradient for each class is spared by
random signs u, with E[u u'] = 1:

    = 1/2 E_x E_u (d . g)^2,     g = gradient of sum_y u_y sqrt(p(y | x)) log p(y | x), the root held

where drawing one class from p would seldom see those that matter. For outputs f(x) that are judged by their values it
is the Gauss-Newton form over the variance of f:

    |f - f'|^2 = E_x E_u (d . g)^2,     g = gradient of u . f(x)

A diagonal of the Fisher (as in HAWQ-V2 the trace of the Hessian) would leave out that the
errors of a channel's weights act together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from attar._src.core.progress import track
from attar._src.measure.difference import SCORES
from attar._src.methods.allocate.candidates import Candidate
from attar._src.methods.allocate.judge import Judge
from attar._src.methods.allocate.level import Level
from attar._src.model.interface import main_output
from attar._src.model.programs import copy_graph, set_tensor
from attar._src.train.seeds import derive_seed
from attar._src.work.calibration_inputs import CalibrationInputs

#: Examples whose gradients are taken; the estimate is a mean of as many squares.
GRADIENT_EXAMPLES = 64

Estimates = dict[str, dict[Level, float]]


def curvature(
    program: fx.GraphModule,
    inputs: CalibrationInputs,
    judge: Judge,
    found: Mapping[str, Mapping[Level, Candidate]],
    *,
    one_by_one: bool,
    seed: int,
) -> Estimates:
    """Return tensor -> level -> the estimate, of the tensors of ``found`` that the program's gradients reach.

    Args:
        program: the network as it is, in evaluation mode.
        inputs: real ones, of which ``GRADIENT_EXAMPLES`` are used.
        judge: of the main output; its kind decides between the two formulas.
        found: the candidates.
        one_by_one: whether the program takes single examples. If not, gradients of a batch are summed: the mean is the
            same, as the signs of two examples are independent, and its spread is larger.
        seed: of the signs.
    """
    program, state = copy_graph(program), dict(program.named_parameters())
    names = [name for name in found if name in state]
    # With the biases that are corrected for it.
    together = {
        name: sorted({key for each in found[name].values() for key in each.tensors} & state.keys()) for name in names
    }
    leaves = {key: nn.Parameter(state[key].detach().clone()) for keys in together.values() for key in keys}
    for key, leaf in leaves.items():
        set_tensor(program, key, leaf)
    shifts = {name: {key: _shifts(state[key].detach(), key, found[name]) for key in together[name]} for name in names}
    totals = {name: torch.zeros(len(found[name]), dtype=torch.float64) for name in names}
    some = inputs.first(GRADIENT_EXAMPLES, cut=one_by_one)
    some = some.in_parts(1) if one_by_one else some
    random = torch.Generator().manual_seed(derive_seed(seed, "curvature"))
    classes = judge.wanted[0].shape[judge.axis] if judge.kind == SCORES and judge.axis is not None else 1
    count = 0
    for batch in track(some.batches, "gradients"):
        output = main_output(program(*batch))
        value = drawn(output, judge, random)
        if not value.requires_grad:
            return {}
        gradients: Any = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        count += output.numel() // classes
        known = {key: each.reshape(-1) for key, each in zip(leaves, gradients, strict=True) if each is not None}
        for name in names:
            moves = [shift @ known[key] for key, shift in shifts[name].items() if key in known]
            if moves:
                totals[name] += torch.stack(moves).sum(0).double() ** 2
    factor = (0.5 if classes > 1 else 1 / judge.variance) / max(count, 1)
    return {
        name: {level: float(total) * factor for level, total in zip(found[name], totals[name], strict=True)}
        for name in names
    }


def _shifts(value: torch.Tensor, name: str, levels: Mapping[Level, Candidate]) -> torch.Tensor:
    """Return what is added to a tensor at each level, ``(levels, elements)``."""
    made = [each.tensors.get(name) for each in levels.values()]
    moved = [value if each is None else torch.from_numpy(np.array(each.dense())) for each in made]
    return torch.stack([(each - value).reshape(-1) for each in moved])


def drawn(output: torch.Tensor, judge: Judge, random: torch.Generator) -> torch.Tensor:
    """Return a number of an output whose squared derivative has the curvature of the output as its mean."""
    if judge.kind != SCORES or judge.axis is None:
        return (output * _signs(output, random)).sum()
    scores = output.movedim(judge.axis, -1)
    logs = scores.clamp_min(1e-12).log() if judge.shares else scores.log_softmax(-1)
    return (logs * logs.detach().mul(0.5).exp() * _signs(logs, random)).sum()


def _signs(like: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    return torch.randint(2, like.shape, generator=random, dtype=like.dtype) * 2 - 1
