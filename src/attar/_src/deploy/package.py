"""Packing: a workpiece into a file that was decoded and compared before it was written."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.deploy.parity import EXAMPLES, Parity, compare_outputs
from attar._src.report.record import NAME, read_report, remember
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import (
    MAIN,
    Calibration,
    CalibrationInputs,
    CompressedModel,
    FileInfo,
    inputs_by_graph,
)


def package(
    piece: CompressedModel,
    path: Path,
    use: FileInfo,
    data: Calibration,
    *,
    coder: str,
    dry_run: Parity,
    left: Mapping[str, str],
    budget: float | None = None,
) -> dict[str, Any]:
    """Pack, decode, compare, and only then write the file, with ``report.json`` beside it.

    Args:
        piece: what is packed.
        path: where the ``.attar`` file goes; an existing one is replaced in one step.
        use: what the file tells its user.
        data: real inputs to compare on, of each graph where there are several.
        coder: entropy coder of the codes.
        dry_run: how the untouched module and its decoded file compared.
        left: tensors and values that were left in floating point -> the reason.
        budget: bits per weight the file was trained to stay within; where it does not, a warning and the report say so.

    Returns:
        The report: bytes, bits per weight, parity, what was folded and what was left in floating point.

    Raises:
        ParityError: the decoded file does not compute what the workpiece computes; nothing is written.
    """
    if (path.parent / NAME).exists():
        # A report that is not ours is found before the file is written, not after.
        read_report(path.parent / NAME)
    data_bytes = pack(piece.contents(use), coder=coder)
    artifact = open_artifact(data_bytes)
    parity = {name: _compare(piece, name, artifact, each, path) for name, each in inputs_by_graph(piece, data).items()}
    size = inspect_artifact(artifact)
    if budget is not None and size["bits_per_weight"] > budget:
        missed = (
            f"{size['bits_per_weight']:.4g} bits per weight, above the {budget:g} that were asked for: train longer, "
            "reach the budget earlier (reach), or ask for a little less"
        )
        warnings.warn(f"{path.name}: {missed}", stacklevel=2)
        left = {**left, "size": missed}
    foldings = [graph.traced.folding for graph in piece.graphs.values()]
    report = {
        "file_bytes": size["file_bytes"],
        "graph_bytes": size["graph_bytes"],
        "bits_per_weight": size["bits_per_weight"],
        "parameters": size["parameters"],
        "parity": parity.get(MAIN, parity),
        "dry_run": dry_run.as_dict(),
        "left_in_floating_point": dict(left),
        "batch_norms_folded": {name: into for each in foldings for name, into in each.folded.items()},
        "batch_norms_kept": {name: why for each in foldings for name, why in each.kept.items()},
        "quantized_activations": sum(len(graph.activations) for graph in piece.graphs.values()),
    }
    write_atomically(path, data_bytes)
    sha256 = hashlib.sha256(data_bytes).hexdigest()
    remember(path, sha256, report)
    return {"file": str(path), "sha256": sha256, **report}


def _compare(
    piece: CompressedModel, graph: str, artifact: Artifact, inputs: CalibrationInputs, path: Path
) -> dict[str, Any]:
    """Compare one graph of a file with the module in PyTorch; return the figures."""
    session, simulated = Session(artifact, graph=graph), piece.simulate(torch.float64, graph=graph)
    found = compare_outputs(session, simulated, inputs.first(EXAMPLES).batches, "decoding and comparing")
    return found.demand(str(path), integers=bool(piece.graphs[graph].activations)).as_dict()
