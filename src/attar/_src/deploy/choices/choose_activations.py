"""``activations="auto"``: floating point, dynamic or static activations, whichever this machine runs fastest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from attar._src.artifact.limits import Limits
from attar._src.artifact.writer import pack
from attar._src.deploy.fidelity import ComparedExamples, Floating, compare_with_floating
from attar._src.deploy.parity import compared, output_arrays
from attar._src.deploy.tolerance import TOLERANCE, Tolerance
from attar._src.measure.latency import interleave
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import CompressedModel, FileInfo

Activations = int | Literal["dynamic"] | None

#: What is measured, the one that changes outputs least first, and what reports call it.
CHOICES: Mapping[Activations, str] = {None: "floating point", "dynamic": "dynamic", 8: "static"}
#: A choice that changes outputs less is taken if it takes at most so many times as long as the fastest.
_NEARLY = 1.05
#: A quarter of what the comparison of a file takes; timings of about so many seconds.
_SHARE, _SECONDS = 4.0, 2.0


def choose_activations(
    models: Mapping[Activations, CompressedModel],
    use: FileInfo,
    examples: ComparedExamples,
    *,
    tolerance: Tolerance | None,
    limits: Limits | None,
) -> tuple[Activations, str]:
    """Return the fastest choice whose outputs lose no more than the tolerance, and a sentence on what was measured.

    One example runs on one thread. A choice within 5 % of the fastest is preferred if it changes outputs less. A loss
    that floating-point activations have too comes from the weights and rules nothing out.

    Args:
        models: choice -> the module as this choice makes it; with floating-point activations in any case.
        use: what the file tells its user.
        examples: real inputs, of which a part is compared.
        tolerance: of losses; None for the usual one.
        limits: limits of the file's readers.
    """
    able = {name: model for name, model in models.items() if name is None or _changes(model)}
    sessions = {
        name: Session(pack(model.contents(use), coder="raw", limits=limits), threads=1, limits=limits)
        for name, model in able.items()
    }
    traced = models[None].main.traced
    inputs = compared(examples.inputs, traced.graph, cut=traced.any_batch, share=_SHARE)
    with torch.no_grad():
        floating = Floating("the module", outputs=[output_arrays(traced.graph(*batch)) for batch in inputs.batches])
    lost = {}
    for name, session in sessions.items():
        fidelity = compare_with_floating(session, floating, use, replace(examples, inputs=inputs))
        lost[name] = fidelity.losses(tolerance or TOLERANCE) if fidelity else {}
    one = inputs.example(1) if traced.any_batch else inputs.batches[0]
    feed = {port.name: each.numpy() for port, each in zip(sessions[None].inputs, one, strict=True)}
    found = interleave([partial(session.run, feed) for session in sessions.values()], seconds=_SECONDS)
    times = {name: latency.median_ms for name, latency in zip(sessions, found, strict=True)}
    good = [name for name in times if lost[name].keys() <= lost[None].keys()]
    taken = next(name for name in good if times[name] <= _NEARLY * min(times[each] for each in good))
    said = ", ".join(f"{CHOICES[name]} {milliseconds:.3g} ms" for name, milliseconds in times.items())
    worse = [f"{CHOICES[name]} loses too much: {'; '.join(lost[name].values())}" for name in times if name not in good]
    return taken, "; ".join([f"auto took {CHOICES[taken]}: for one example on one thread {said}", *worse])


def _changes(model: CompressedModel) -> bool:
    """Return whether any activation is quantized."""
    return any(graph.activations or graph.dynamic for graph in model.graphs.values())
