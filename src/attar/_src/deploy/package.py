"""Packaging: a compressed model becomes a file, which is decoded and compared before it is written."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.deploy.parity import EXAMPLES, Parity, compare_outputs
from attar._src.methods.quantize.unquantized import left_in_floating_point
from attar._src.report.record import NAME, read_report, remember
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import CalibrationInputs, CompressedModel, FileInfo


def package(
    compressed: CompressedModel,
    path: Path,
    use: FileInfo,
    data: CalibrationInputs,
    *,
    coder: str,
    dry_run: Parity,
    notes: Mapping[str, str] = MappingProxyType({}),
    budget: float | None = None,
) -> dict[str, Any]:
    """Pack, decode, compare, and only then write the file, with ``report.json`` beside it.

    Args:
        compressed: the model to pack.
        path: path of the ``.attar`` file; an existing one is replaced atomically.
        use: metadata for the file's users.
        data: real inputs for the comparison.
        coder: entropy coder of the codes.
        dry_run: parity of the untouched module and its decoded file.
        notes: topic -> note for the report.
        budget: bits per weight the file was trained for; a larger file gets a warning and a note.

    Returns:
        The report: bytes, bits per weight, parity, folded batch-norms and what stays in floating point.

    Raises:
        ParityError: the decoded file and the compressed model compute different outputs; nothing is written.
    """
    if (path.parent / NAME).exists():
        # Refuses a foreign report before the file is written.
        read_report(path.parent / NAME)
    data_bytes = pack(compressed.contents(use), coder=coder)
    artifact = open_artifact(data_bytes)
    batches = data.first(EXAMPLES).batches
    parity = compare_outputs(Session(artifact), compressed.simulate(torch.float64), batches, "decoding and comparing")
    parity.check(str(path), integers=bool(compressed.activations))
    size = inspect_artifact(artifact)
    if budget is not None and size["bits_per_weight"] > budget:
        missed = (
            f"{size['bits_per_weight']:.4g} bits per weight, above the budget of {budget:g}: train longer, reach the "
            "budget earlier (reach), or set it a little lower"
        )
        warnings.warn(f"{path.name}: {missed}", stacklevel=2)
        notes = {**notes, "size": missed}
    report = {
        "file_bytes": size["file_bytes"],
        "graph_bytes": size["graph_bytes"],
        "bits_per_weight": size["bits_per_weight"],
        "parameters": size["parameters"],
        "parity": parity.as_dict(),
        "dry_run": dry_run.as_dict(),
        "left_in_floating_point": left_in_floating_point(compressed),
        "notes": dict(notes),
        "batch_norms_folded": dict(compressed.traced.folding.folded),
        "batch_norms_kept": dict(compressed.traced.folding.kept),
        "quantized_activations": len(compressed.activations),
    }
    write_atomically(path, data_bytes)
    sha256 = hashlib.sha256(data_bytes).hexdigest()
    remember(path, sha256, report)
    return {"file": str(path), "sha256": sha256, **report}
