"""Levels of its own for each weight: what the stage ``quantize`` does under a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from attar._src.artifact.packing import AUTO
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.allocate import Allocator
from attar._src.methods.allocate.given_table import given_table
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo, inputs_by_graph
from attar._src.work.context import Context

#: Bits that are tried for each tensor, if there is no table of sensitivities.
WIDTHS = (2, 3, 4, 5, 6, 8)
#: Bits with which rates are tried: with a rate, what counts is the step, and codes that are not used cost nothing.
RATED = (2, 4)


@dataclass(frozen=True)
class HeldTarget:
    """Bytes and loss of a file that must hold, kept with the model whose bits were chosen for it.

    Attributes:
        most: bytes of the file.
        use: what the file tells its user.
        coder: that the bytes were counted with.
        loss: packed file -> how it misses a target of another kind, in words; empty if it holds.
    """

    most: int
    use: FileInfo
    coder: str = AUTO
    loss: Callable[[bytes], str] = lambda _: ""

    def excess(self, model: CompressedModel) -> int:
        """Return the bytes of the model's file above the target; 0 or less if it holds."""
        return len(self._packed(model)) - self.most

    def missed(self, packed: bytes, coder: str) -> str:
        """Return what a file, packed with ``coder``, misses, with a fix; empty if it holds."""
        if len(packed) <= self.most:
            return ""
        said = f"the file has {len(packed):,} bytes, and {self.most:,} were asked for"
        if coder != self.coder:
            return (
                f"{said}, which hold with the coder {self.coder!r}: save with it, or choose the bits for another "
                "coder (coder=)"
            )
        return (
            f"{said}, which held until a later stage changed the model: put that stage before the one with the target"
        )

    def holds(self, model: CompressedModel) -> bool:
        """Return whether the model's file holds the target in bytes and loss."""
        packed = self._packed(model)
        return len(packed) <= self.most and not self.loss(packed)

    def _packed(self, model: CompressedModel) -> bytes:
        return pack(shorten_numbers(model).contents(self.use), coder=self.coder)


def own_bits(
    target: BitTarget,
    model: CompressedModel,
    inputs: Mapping[str, CalibrationInputs],
    context: Context,
    names: Sequence[str],
    rates: Sequence[float],
    record: Mapping[str, Any],
    make: Callable[
        [Mapping[str, CalibrationInputs], Sequence[Level]], Callable[[Mapping[str, Level]], CompressedModel]
    ],
    alternatives: Sequence[Level] = (),
) -> CompressedModel:
    """Return the model with levels of each tensor that meet a target.

    Args:
        target: of the file or of the drop.
        model: as the stages before left it.
        inputs: of each graph.
        context: of the stage.
        names: of the tensors to choose levels for.
        rates: that are tried.
        record: of the stage.
        make: inputs of each graph, levels -> level of each tensor -> the model as the stage rounds it.
        alternatives: levels of other schemes and granularities that are tried, too.

    Raises:
        SpecError: no levels meet the target; the message has the nearest that do. Or a given table does not fit.
    """
    return allocate(
        allocator_of(target, model, inputs, context, names, rates, record, make, alternatives=alternatives), target
    )


def allocator_of(
    target: BitTarget,
    model: CompressedModel,
    inputs: Mapping[str, CalibrationInputs],
    context: Context,
    names: Sequence[str],
    rates: Sequence[float],
    record: Mapping[str, Any],
    make: Callable[
        [Mapping[str, CalibrationInputs], Sequence[Level]], Callable[[Mapping[str, Level]], CompressedModel]
    ],
    known: Allocator | None = None,
    alternatives: Sequence[Level] = (),
) -> Allocator:
    """Return what chooses the levels of :func:`own_bits`; ``known`` is that of another size of the same model.

    Raises:
        SpecError: the table of the target does not fit.
    """
    # A path belongs to one machine.
    told = {**record, "bits": target.model_copy(update={"sensitivity": None}).describe()}
    table = given_table(target.sensitivity, model, names, told) if target.sensitivity else None
    levels = table.every_level() if table else (*tried_levels(rates), *alternatives)
    judged, of = inputs, context.judged
    if target.max_drop is not None and of.inputs is not None:
        judged = inputs_by_graph(model, of.inputs)
    elif target.max_drop is not None:
        halves = {name: _halves(model, name, each) for name, each in inputs.items()}
        inputs, judged = ({name: each[place] for name, each in halves.items()} for place in (0, 1))
    rounded = make(inputs, levels)

    def at(chosen: Mapping[str, Level]) -> CompressedModel:
        made = rounded(chosen)
        # The bits are in the tensors themselves.
        examples = made.record[-1]["calibration_examples"]
        return replace(made, record=(*model.record, {**told, "calibration_examples": examples}))

    use = context.use or FileInfo()
    labelled = Labelled.of(of, context.use)
    made = Allocator(model, inputs, judged, names, levels, at, use, context.coder, told, labelled, table, context.seed)
    if known is not None:
        made.share(known)
    return made


def tried_levels(rates: Sequence[float]) -> tuple[Level, ...]:
    """Return every width at the first rate, and those of ``RATED`` at all."""
    return tuple(Level(bits, rate) for bits in WIDTHS for rate in (rates if bits in RATED else rates[:1]))


def _halves(
    model: CompressedModel, graph: str, inputs: CalibrationInputs
) -> tuple[CalibrationInputs, CalibrationInputs]:
    """Return the inputs that calibrate and those that judge; the same of a single batch whose size is fixed."""
    return inputs.halves(whole=not model.graphs[graph].traced.any_batch)


def allocate(allocator: Allocator, target: BitTarget) -> CompressedModel:
    """Return the model with bits that meet the target in its packed file, and a note on them.

    Raises:
        SpecError: no bits meet the target; the message has the nearest that do.
    """
    if not allocator.names:
        raise SpecError("there is no weight to choose bits for: all are kept, or in overrides")
    least = allocator.smallest()
    said, loss, most, doubts = "", _no_loss, target.max_bytes, list[str]()
    if target.max_drop is not None:
        found = allocator.dropped(target.max_drop, least)
        most = len(found.data)
        examples = sum(each.examples for each in allocator.judged.values())
        loss = partial(allocator.files.dropped_by, most=target.max_drop)
        other = "other " if any(each is not allocator.inputs[name] for name, each in allocator.judged.items()) else ""
        drop, unit = allocator.files.drop(found.artifact)
        doubts = allocator.files.doubts()
        said = f", a drop of {drop:.3g} {unit} on {examples} {other}examples"
    else:
        if most is None:
            assert target.size is not None
            most = int(target.size * (least.artifact.manifest.parameters or 0) / 8) + least.graph_bytes
        found = allocator.within(most, least)
    words = ", ".join(f"{name} {level}" for name, level in found.levels.items())
    note = (
        f"{words}; {found.predicted:,.0f} bytes were predicted, {len(found.data):,} came: "
        f"{allocator.bits_per_weight(found):.4g} bits per weight{said}"
    )
    held = HeldTarget(most, allocator.use, allocator.coder, loss)
    warnings = tuple(dict.fromkeys((*found.model.warnings, *doubts)))
    return replace(found.model, notes={**found.model.notes, "bits": note}, target=held, warnings=warnings)


def _no_loss(_: bytes) -> str:
    return ""
