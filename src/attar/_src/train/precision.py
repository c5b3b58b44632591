"""Measure which precision and memory layout trains a module fastest on this machine."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

Precision = Literal["32-true", "bf16-mixed"]  # bf16-mixed: products in bfloat16, weights in float32
Layout = Literal["contiguous", "channels_last"]  # NCHW, NHWC

_GAIN = 0.9  # a gain below 10 % does not justify another precision
_ROUNDS = 20


class Decision(NamedTuple):
    """The chosen precision and layout.

    ``figures`` maps ``"precision layout"`` to the median seconds of a forward and backward pass, None if it cannot run.
    """

    precision: Precision
    layout: Layout
    figures: Mapping[str, float | None]


def measure_precision(
    program: nn.Module,
    inputs: Sequence[Tensor],
    *,
    precisions: Sequence[Precision] = ("32-true", "bf16-mixed"),
    layouts: Sequence[Layout] = ("contiguous", "channels_last"),
    seconds: float = 2.0,
) -> Decision:
    """Time a training step in every combination, interleaved, and return the fastest.

    The first combination wins unless another is at least 10 % faster. Timings differ from run to run, so a resumed run
    should reuse the decision, and the first of several ranks should decide for all.

    Args:
        inputs: a batch of the size used in training, on the device of the program.
        precisions, layouts: candidates, the default first; only the first layout is tried if no weight has four axes.
        seconds: approximate time budget; each combination runs at least twice after a warm-up.
    """
    flat = not any(p.dim() == 4 for p in program.parameters())
    names = [(precision, layout) for precision in precisions for layout in (layouts[:1] if flat else layouts)]
    if len(names) == 1:
        return Decision(*names[0], {})
    states = {layout: _state(program, layout) for _, layout in names}
    times: dict[tuple[Precision, Layout], list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for turn in range(_ROUNDS):
        if turn > 2 and time.perf_counter() - start > seconds:
            break
        for name in list(times):
            try:
                times[name].append(_step(program, states[name[1]], tuple(inputs), name[0]))
            except RuntimeError:  # an operator has no kernel for this precision, or a view does not allow this layout
                del times[name]
    medians = {name: statistics.median(took[1:]) for name, took in times.items()}  # the first is the warm-up
    best = min(medians, key=medians.__getitem__, default=names[0])
    if names[0] in medians and medians[best] > _GAIN * medians[names[0]]:
        best = names[0]
    return Decision(*best, {" ".join(name): medians.get(name) for name in names})


def channels_last(module: nn.Module) -> None:
    """Convert a module's 4-d weights to channels_last in place, for all programs that share them.

    Convolutions with such weights compute and return channels_last for any input.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _state(program: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """Return copies of a program's parameters and buffers, so that timed steps do not change it."""
    state = {name: tensor.detach().clone() for name, tensor in program.named_buffers()}
    for name, parameter in program.named_parameters():
        last = layout == "channels_last" and parameter.dim() == 4
        copied = parameter.detach().clone(memory_format=torch.channels_last if last else torch.contiguous_format)
        state[name] = copied.requires_grad_(parameter.requires_grad)
    return state


def _step(program: nn.Module, state: dict[str, Tensor], inputs: tuple[Tensor, ...], precision: Precision) -> float:
    device = inputs[0].device
    mixed = precision == "bf16-mixed"
    _wait(device)
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16) if mixed else contextlib.nullcontext():
        outputs = functional_call(program, state, inputs)
    floats = [each for each in tree_leaves(outputs) if isinstance(each, Tensor) and each.is_floating_point()]
    torch.stack([each.float().square().mean() for each in floats]).sum().backward()
    for each in state.values():
        each.grad = None
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
