"""Packaging: a compressed model becomes a file, which is decoded and compared before it is written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.deploy.finite import check_model_finite
from attar._src.deploy.parity import Parity, compare_outputs, compared
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


def package(
    compressed: CompressedModel,
    path: Path,
    use: FileInfo,
    data: Calibration,
    *,
    coder: str,
    dry_run: Parity,
    notes: Mapping[str, str] = MappingProxyType({}),
    budget: float | None = None,
) -> dict[str, Any]:
    """Pack, decode, compare, and only then write the file, with ``report.json`` beside it.

    The outputs are compared on ``data``, of each graph by name if there are several. The report gets the parity of the
    untouched module (``dry_run``) and ``notes`` by topic. A file of more than ``budget`` bits per weight gets a warning
    and a note.

    Returns:
        The report, with the path and SHA-256 of the file.

    Raises:
        ModelError: a tensor to store is not finite, as after a training that diverged.
        ParityError: the decoded file and the compressed model compute different outputs; nothing is written.
    """
    if (path.parent / NAME).exists():
        # Refuses a foreign report before the file is written.
        read_report(path.parent / NAME)
    check_model_finite(compressed)
    warned = (*floating_warning(compressed), *compressed.warnings)
    packed = pack(compressed.contents(use), coder=coder)
    artifact = open_artifact(packed)
    inputs = inputs_by_graph(compressed, data)
    parity = {name: _compare(compressed, name, artifact, inputs[name], path) for name in inputs}
    size, foldings = inspect_artifact(artifact), [graph.traced.folding for graph in compressed.graphs.values()]
    report = {
        **{key: size[key] for key in ("file_bytes", "graph_bytes", "bits_per_weight", "parameters")},
        "parity": parity[MAIN] if [*parity] == [MAIN] else parity,
        "dry_run": dry_run.as_dict(),
        "left_in_floating_point": left_in_floating_point(compressed),
        "warnings": [*warned],
        "notes": {**notes, **_budget_note(path, size["bits_per_weight"], budget)},
        "batch_norms_folded": {name: into for each in foldings for name, into in each.folded.items()},
        "batch_norms_kept": {name: why for each in foldings for name, why in each.kept.items()},
        "quantized_activations": sum(len(graph.activations) for graph in compressed.graphs.values()),
    }
    for each in warned:
        warnings.warn(f"{path.name}: {each}", stacklevel=2)
    write_atomically(path, packed)
    remember(path, artifact.sha256, report)
    return {"file": str(path), "sha256": artifact.sha256, **report}


def _compare(
    compressed: CompressedModel, graph: str, artifact: Artifact, inputs: CalibrationInputs, path: Path
) -> dict[str, Any]:
    """Compare one graph of a file with the model in PyTorch; return the figures."""
    session, simulated = Session(artifact, graph=graph), compressed.simulate(torch.float64, graph=graph)
    traced = compressed.graphs[graph].traced
    some = compared(inputs, traced.graph, cut=traced.any_batch)
    found = compare_outputs(session, simulated, some.batches, "decoding and comparing")
    return found.check(str(path), integers=bool(compressed.graphs[graph].activations)).as_dict()


def _budget_note(path: Path, bits_per_weight: float, budget: float | None) -> dict[str, str]:
    if budget is None or bits_per_weight <= budget:
        return {}
    missed = (
        f"{bits_per_weight:.4g} bits per weight, above the budget of {budget:g}: train longer, reach the budget "
        "earlier (reach), or set it a little lower"
    )
    warnings.warn(f"{path.name}: {missed}", stacklevel=3)
    return {"size": missed}
