"""Packaging: a compressed model becomes a file, which is decoded and compared before it is written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from attar._src.artifact.files import demand_replaceable
from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import AttarWarning, SpecError
from attar._src.deploy.causes import find_causes
from attar._src.deploy.fidelity import ComparedExamples, Fidelity, Floating, compare_with_floating
from attar._src.deploy.finite import check_model_finite
from attar._src.deploy.parity import Parity, compare_outputs, compared, parity_inputs
from attar._src.deploy.tolerance import TOLERANCE, Tolerance
from attar._src.measure.speed import Speed, measure_speed
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.methods.quantize.unquantized import floating_warning, left_in_floating_point
from attar._src.report.record import NAME, read_report, remember
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import (
    MAIN,
    Calibration,
    CompressedModel,
    FileInfo,
    inputs_by_graph,
)
from attar._src.work.size_budget import SizeBudget

#: An example takes so much of the time in float32 that it takes in float64.
_FLOAT32 = 0.5


def package(
    compressed: CompressedModel,
    path: Path,
    use: FileInfo,
    data: Calibration,
    *,
    coder: str,
    dry_run: Parity,
    floating: Mapping[str, Floating] = MappingProxyType({}),
    examples: ComparedExamples | None = None,
    tolerance: Tolerance | None = TOLERANCE,
    notes: Mapping[str, str] = MappingProxyType({}),
    budget: SizeBudget | None = None,
    limits: Limits | None = None,
    measure: Callable[[bytes], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Pack, decode, compare, and only then write the file, with ``report.json`` beside it.

    Scales and biases get fewer digits first, where that is small beside the rounding of the weights
    (:func:`shorten_numbers`); both comparisons are of the model with these.

    The file is compared with the compressed model in PyTorch on ``data`` (*parity*), and with the floating-point module
    on ``examples`` (*fidelity*). Each warning of the compressed model is issued as an :class:`AttarWarning` before the
    file is written, and so are a loss against the floating-point module that is above the tolerance, with the layers
    that cause it, and a size above the budget.

    Args:
        compressed: the model.
        path: path of the file.
        use: what the file tells its user.
        data: real inputs, of each graph by name if there are several.
        coder: entropy coder of the codes.
        dry_run: parity of the untouched module, for the report.
        floating: graph -> the floating-point module; by default the module that was compressed.
        examples: of the graph ``main``, by default ``data``.
        tolerance: from which loss on there is a warning; None for none.
        notes: remarks for the report, by topic.
        budget: of the file.
        limits: limits of the file's readers; None for the defaults.
        measure: measures more of the file, which is compared already but not written, for the report.

    Returns:
        The report, with the path and SHA-256 of the file.

    Raises:
        ModelError: a tensor to store is not finite, as after a training that diverged.
        SpecError: the file is larger than the target for which bits were chosen; nothing is written.
        ParityError: the decoded file and the compressed model compute different outputs; nothing is written.
    """
    demand_replaceable(path)
    if not path.parent.is_dir():
        raise SpecError(f"{path}: there is no folder {path.parent}; make it first, or name another")
    if (path.parent / NAME).exists():
        # Refuses a foreign report before the file is written.
        read_report(path.parent / NAME)
    check_model_finite(compressed)
    compressed = shorten_numbers(compressed)
    warned = (*floating_warning(compressed), *compressed.warnings)
    packed = pack(compressed.contents(use), coder=coder, limits=limits)
    if compressed.target is not None and (missed := compressed.target.missed(packed, coder)):
        raise SpecError(f"{path}: {missed}")
    artifact = open_artifact(packed, limits=limits)
    comparisons = {
        name: _compare(
            compressed, name, artifact, inputs, path, floating.get(name), examples if name == MAIN else None, use
        )
        for name, inputs in inputs_by_graph(compressed, data).items()
    }
    parity = {name: each.as_dict() for name, (each, _) in comparisons.items()}
    fidelity = {name: each for name, (_, each) in comparisons.items() if each is not None}
    lost = (
        [] if tolerance is None else [_loss(compressed, name, each, data, tolerance) for name, each in fidelity.items()]
    )
    speeds = {
        name: _speed(compressed, name, artifact, inputs) for name, inputs in inputs_by_graph(compressed, data).items()
    }
    speed = {name: each for name, each in speeds.items() if each is not None}
    given = examples is not None and examples.given
    unjudged = [f"the labels give no metric: {each.unjudged}" for each in fidelity.values() if each.unjudged]
    size, foldings = inspect_artifact(artifact), [graph.traced.folding for graph in compressed.graphs.values()]
    report = {
        **{key: size[key] for key in ("file_bytes", "graph_bytes", "bits_per_weight", "parameters")},
        "parity": _of_graphs(parity),
        "fidelity": _of_graphs({name: each.as_dict() for name, each in fidelity.items()}),
        "dry_run": dry_run.as_dict(),
        "left_in_floating_point": left_in_floating_point(compressed),
        "warnings": [
            *warned,
            *filter(None, lost),
            *filter(None, [each.warning for each in speed.values()]),
            *(unjudged if given else ()),
            *_over_budget(size, budget),
        ],
        "notes": {
            **notes,
            **compressed.notes,
            **({"labels": unjudged[0]} if unjudged and not given else {}),
            **_widened(compressed),
            **({"speed": "; ".join(each.sentence for each in speed.values())} if speed else {}),
        },
        "speed": _of_graphs({name: asdict(each) for name, each in speed.items()}),
        "batch_norms_folded": {name: into for each in foldings for name, into in each.folded.items()},
        "batch_norms_kept": {name: why for each in foldings for name, why in each.kept.items()},
        "quantized_activations": sum(len(graph.activations) for graph in compressed.graphs.values()),
        "dynamic_layers": sum(len(graph.dynamic) for graph in compressed.graphs.values()),
        **(measure(packed) if measure else {}),
    }
    for each in report["warnings"]:
        warnings.warn(f"{path.name}: {each}", AttarWarning, stacklevel=2)
    write_atomically(path, packed)
    remember(path, artifact.sha256, report)
    return {"file": str(path), "sha256": artifact.sha256, **report}


def _of_graphs(figures: Mapping[str, Any]) -> Any:
    """Return the figures of ``main`` where it is the only graph, else those of each graph by name."""
    return figures[MAIN] if [*figures] == [MAIN] else figures


def _compare(
    compressed: CompressedModel,
    graph: str,
    artifact: Artifact,
    inputs: CalibrationInputs,
    path: Path,
    floating: Floating | None,
    examples: ComparedExamples | None,
    use: FileInfo,
) -> tuple[Parity, Fidelity | None]:
    """Compare one graph of a file with the model in PyTorch and with the floating-point module."""
    of = compressed.graphs[graph]
    # With several threads ONNX Runtime cuts a batch for a dynamic LSTM, and rounds the states of each part.
    session = Session(artifact, graph=graph, threads=1 if of.dynamic else None)
    simulated = compressed.simulate(torch.float64, graph=graph)
    some = parity_inputs(inputs, of.traced.graph, cut=of.traced.any_batch)
    parity = compare_outputs(session, simulated, some.batches, "decoding and comparing")
    where = f"{path}, graph {graph!r}" if len(compressed.graphs) > 1 else str(path)
    parity.check(where, integers=bool(of.activations or of.dynamic))
    if floating is None:
        floating = Floating("the floating-point module", of.traced.graph)
        examples = examples or ComparedExamples(inputs)
        more = compared(examples.inputs, of.traced.graph, cut=of.traced.any_batch, share=_FLOAT32)
        examples = replace(examples, inputs=more)
    return parity, compare_with_floating(session, floating, use, examples or ComparedExamples(inputs))


def _speed(compressed: CompressedModel, graph: str, artifact: Artifact, inputs: CalibrationInputs) -> Speed | None:
    """Return the time of a graph in integers beside floating point, for one example; None if it has no integers."""
    of = compressed.graphs[graph]
    if not (of.activations or of.dynamic):
        return None
    one = inputs.example(1) if of.traced.any_batch else inputs.batches[0]
    ports = artifact.graph_record(graph).inputs
    return measure_speed(artifact, graph, {port.name: each.numpy() for port, each in zip(ports, one, strict=True)})


def _loss(compressed: CompressedModel, graph: str, fidelity: Fidelity, data: Calibration, tolerance: Tolerance) -> str:
    """Return a sentence on what was lost against the floating-point module and why; empty within the tolerance."""
    losses = fidelity.losses(tolerance)
    if not losses:
        return ""
    of = f"graph {graph!r}: " if len(compressed.graphs) > 1 else ""
    said = of + "; ".join(losses.values())
    if fidelity.trained_since:
        return (
            f"{said}, compared with {fidelity.compared_with}; train longer, or give weights and activations more bits"
        )
    names = [*fidelity.outputs]
    # A loss of the metric is one of the output that it judges.
    worst = next(iter(losses)) or fidelity.main
    inputs = inputs_by_graph(compressed, data)[graph]
    causes = find_causes(compressed, graph, inputs, names.index(worst)).sentence()
    return f"{said}; {causes}" if causes else said


def _widened(compressed: CompressedModel) -> dict[str, str]:
    """Return the note on channels that got a wider step for exact sums in 16 bits, if there are any."""
    if not compressed.widened:
        return {}
    channels, layers = sum(compressed.widened.values()), len(compressed.widened)
    where = f"{channels} output channels of {layers} {'layers' if layers > 1 else 'layer'}"
    why = "so that fast integer kernels are exact on every processor"
    return {"exact sums": f"weights of {where} got a wider step or smaller neighbours, {why}"}


def _over_budget(size: Mapping[str, Any], budget: SizeBudget | None) -> list[str]:
    excess = "" if budget is None else budget.excess(size["bits_per_weight"], size["file_bytes"])
    if budget is None or not excess:
        return []
    return [
        f"{excess}, above the budget of {budget.words()}: train longer, reach the budget earlier (reach), or set it a "
        "little lower"
    ]
