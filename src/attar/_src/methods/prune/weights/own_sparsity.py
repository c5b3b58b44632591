"""A sparsity of its own for each weight, from sensitivities, under a target of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from attar._src.core.errors import SpecError
from attar._src.core.progress import track
from attar._src.methods.allocate.allocate import Allocator
from attar._src.methods.allocate.judge import UNLABELLED, Labelled
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.allocate.tensor_meter import tensors_digest
from attar._src.methods.prune.masks import sparse_tensors
from attar._src.methods.prune.weights.pruning import PrunedWeights
from attar._src.model.traced import TracedModel
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import MAIN, CompressedModel, FileInfo

#: Shares that are tried for each weight, if there is no table of sensitivities.
TRIED = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


def own_sparsities(
    target: BitTarget,
    traced: TracedModel,
    inputs: CalibrationInputs,
    names: Sequence[str],
    prune: Callable[[float], PrunedWeights],
    others: Mapping[str, torch.Tensor],
    method: Mapping[str, object],
    use: FileInfo,
    *,
    labelled: Labelled = UNLABELLED,
    seed: int = 0,
) -> tuple[dict[str, float], str]:
    """Return weight -> its sparsity, 0 for dense, such that the file meets the target, and what was found in words.

    Each weight is measured alone at every share, and an integer program chooses among them, as bits are chosen
    (:mod:`~attar._src.methods.allocate.allocate`). Its file is packed to hold the target.

    Args:
        target: of the file, or of the drop.
        traced: the deployed graph.
        inputs: real ones.
        names: of the weights.
        prune: share -> all weights at it, each as if it were alone.
        others: weight with a sparsity of its own -> its values.
        method: record of ``prune``.
        use: what the file tells its user.
        labelled: what is known of the right outputs, by which a drop is counted.
        seed: of the measurement.

    Raises:
        SpecError: no sparsities meet the target; the message has the nearest that do. Or a given table does not fit.
    """
    model = CompressedModel.of(traced)
    table = _given(target.sensitivity, model, names) if target.sensitivity else None
    levels = table.every_level() if table else tuple(Level(share) for share in TRIED)
    solved = {level: prune(level.value).values for level in track(levels, "pruning all weights at each sparsity")}

    def at(chosen: Mapping[str, Level]) -> CompressedModel:
        values = {name: solved[level][name] for name, level in chosen.items() if level.value != FLOAT}
        return CompressedModel.of(traced, tensors=sparse_tensors({**others, **values}))

    judged = inputs
    if target.max_drop is not None:
        inputs, judged = inputs.halves(whole=not traced.any_batch)
    allocator = Allocator(
        model,
        {MAIN: inputs},
        {MAIN: judged},
        names,
        levels,
        at,
        use,
        "auto",
        method,
        replace(labelled, given=True) if inputs.targets else labelled,
        table,
        seed,
        "sparsity",
    )
    least = allocator.smallest()
    if target.max_drop is not None:
        found = allocator.dropped(target.max_drop, least)
    else:
        most = target.max_bytes
        if most is None:
            assert target.size is not None
            most = int(target.size * (least.artifact.manifest.parameters or 0) / 8) + least.graph_bytes
        found = allocator.within(most, least)
    shares = {name: 0.0 if level.value == FLOAT else float(level.value) for name, level in found.levels.items()}
    words = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    return shares, f"{words}; {found.predicted:,.0f} bytes were predicted, {len(found.data):,} came"


def _given(path: str, model: CompressedModel, names: Sequence[str]) -> SensitivityTable:
    table = SensitivityTable.read(path)
    if table.what != "sparsity" or table.model != tensors_digest(model):
        raise SpecError("the table of sensitivities is of another model or of bits; measure again with --what sparsity")
    if missing := [name for name in names if name not in {layer.name for layer in table.layers}]:
        raise SpecError(f"the table of sensitivities lacks {missing[:3]}; measure without keep, or keep them here")
    return table
