"""Bits of its own for each weight: what the stage ``quantize`` does under a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from glob import escape
from typing import Any

from attar._src.methods.allocate.allocate import FLOAT, Allocator, allocate
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.target import BitTarget
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context
from attar._src.work.stage import Stage


def own_bits(
    target: BitTarget,
    model: CompressedModel,
    inputs: Mapping[str, CalibrationInputs],
    context: Context,
    names: Sequence[str],
    record: Mapping[str, Any],
    with_bits: Callable[[Mapping[str, int], Sequence[str]], Stage],
) -> CompressedModel:
    """Return the model with bits for each tensor that meet a target.

    Args:
        target: of the file or of the drop.
        model: as the stages before left it.
        inputs: of each graph.
        context: of the stage.
        names: of the tensors to choose bits for.
        record: of the stage.
        with_bits: glob -> bits, and globs of tensors in floating point -> the stage that rounds so.

    Raises:
        SpecError: no bits meet the target; the message has the nearest that do.
    """
    # A path belongs to one machine.
    told = {**record, "bits": target.model_copy(update={"sensitivity": None}).describe()}

    def at(bits: Mapping[str, float]) -> CompressedModel:
        kept = [escape(name) for name, width in bits.items() if width == FLOAT]
        own = {escape(name): int(width) for name, width in bits.items() if width != FLOAT}
        made: CompressedModel = with_bits(own, kept).run(model, context)
        # The bits are in the tensors themselves.
        examples = made.record[-1]["calibration_examples"]
        return replace(made, record=(*model.record, {**told, "calibration_examples": examples}))

    table = SensitivityTable.read(target.sensitivity) if target.sensitivity else None
    use = context.use or FileInfo()
    labelled = Labelled(task=use.task, classes=bool(use.class_names))
    return allocate(Allocator(model, inputs, names, at, use, told, labelled, table, context.seed), target)
