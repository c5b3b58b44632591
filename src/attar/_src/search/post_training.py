"""Files of one module by options of ``attar.quantize``: traced, run and compared with its floating-point form once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.limits import Limits
from attar._src.core.errors import ModelError
from attar._src.core.spec import build_spec
from attar._src.deploy.fidelity import ComparedExamples
from attar._src.deploy.parity import Parity
from attar._src.deploy.quantize import QuantizationResult
from attar._src.measure.latency import time_in_turns
from attar._src.methods.allocate.allocate import Allocator, AtLevels
from attar._src.methods.allocate.judge import Judge
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.own_bits import allocate, allocator_of
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.ptq.reconstruct.stage import Log, Reconstruct
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.runtime.session import Session
from attar._src.search.searched_module import drop_noise, judge_file
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo, inputs_by_graph
from attar._src.work.context import Context

#: Seconds of one timing.
_TIMED = 1.0


@dataclass
class _Levels:
    """Solutions of all weights at all levels, and what measured the sensitivities once they are."""

    at: AtLevels
    allocator: Allocator | None = None


@dataclass
class PostTraining:
    """Makes files and measures them.

    Attributes:
        untouched: the module.
        context: calibration inputs and what the file tells its user.
        inputs: those inputs.
        dry_run: parity of the untouched module's file.
        examples: the inputs with their labels, for the comparison of a file.
        held: examples that calibration does not see, on which a drop is measured.
        judge: compares main outputs on ``held``.
        limits: of the readers.
        keep: globs of layers that stay in floating point in every file.
    """

    untouched: CompressedModel
    context: Context
    inputs: CalibrationInputs
    dry_run: Parity
    examples: ComparedExamples
    held: CalibrationInputs
    judge: Judge
    limits: Limits | None = None
    keep: Sequence[str] = ()
    _levels: dict[Any, _Levels] = field(default_factory=dict, init=False)

    def every_option(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of ``attar.quantize`` that make the same file: with the layers that all files keep."""
        keep = [*self.keep, *options.get("keep", ())]
        return {**options, "keep": keep} if keep else dict(options)

    def solved(self, options: Mapping[str, Any]) -> bool:
        """Return whether the solutions and sensitivities are there for sizes of these activations."""
        return options.get("activations") in self._levels

    def make(self, options: Mapping[str, Any], log: Log = lambda _: None) -> QuantizationResult:
        """Return the module quantized with these options, as ``attar.quantize`` returns it.

        All sizes of the same activations share solutions and sensitivities. ``log`` gets a row on each part of the
        network that was reconstructed.

        Raises:
            SpecError: no file is so small, or an option does not fit the module.
        """
        fields = self.every_option(options)
        improving = fields.pop("reconstruct", None)
        size = fields.pop("max_bytes", None)
        if size is not None:
            fields["bits"] = BitTarget(max_bytes=size)
        stage: PostTrainingQuantize = build_spec(PostTrainingQuantize, where="compress", **fields)
        made = stage.run(self.untouched, self.context) if size is None else self._sized(stage)
        if improving is not None:
            reconstruct: Reconstruct = build_spec(Reconstruct, where="reconstruct", **improving)
            made = reconstruct.improve(made, self.context, log)
        return QuantizationResult(
            shorten_numbers(made),
            self.inputs,
            self.context.use or FileInfo(),
            self.dry_run,
            self.examples,
            None,
            self.limits,
        )

    def _sized(self, stage: PostTrainingQuantize) -> CompressedModel:
        target = stage.bits
        assert isinstance(target, BitTarget)
        names, inputs = stage.chosen(self.untouched, free=True), inputs_by_graph(self.untouched, self.inputs)
        make = partial(stage.choice, self.untouched, self.context.use, names)

        def kept(given: Mapping[str, CalibrationInputs], levels: Sequence[Level]) -> AtLevels:
            if stage.activations not in self._levels:
                self._levels[stage.activations] = _Levels(make(given, levels))
            return self._levels[stage.activations].at

        known = self._levels.get(stage.activations)
        rates = SOLVERS[stage.scales].rates or (0.0,)
        allocator = allocator_of(
            target,
            self.untouched,
            inputs,
            self.context,
            names,
            rates,
            stage.describe(),
            kept,
            known.allocator if known else None,
        )
        if names:
            # Before a size is chosen, as it may be one that no file has.
            _ = allocator.measured
            self._levels[stage.activations].allocator = allocator
        return allocate(allocator, target)

    def judged(self, path: Path) -> dict[str, Any]:
        """Return what the decoded file loses on ``held``: the fields of a ``TriedFile`` from ``drop`` to ``others``.

        Raises:
            ModelError: its outputs are not finite.
        """
        seen = judge_file(path, self.judge, self.held, self.limits)
        drop = self.judge.points(seen)
        if not math.isfinite(drop + (seen.worst_other or 0.0)):
            raise ModelError("its outputs are not finite on validation examples")
        return {
            "drop": round(drop, 6),
            "unit": self.judge.unit,
            "noise": drop_noise(seen, self.judge, self.held.examples),
            "metric": seen.metric,
            "ruined": self.judge.ruins(seen),
            "others": seen.worst_other,
        }

    def times(self, paths: Sequence[Path], seconds: float = _TIMED) -> NDArray[np.float64]:
        """Return milliseconds of one example on one thread, files in turns, ``(rounds, files)``."""
        sessions = [Session(path, threads=1, limits=self.limits) for path in paths]
        traced = self.untouched.main.traced
        one = self.inputs.example(1) if traced.any_batch else self.inputs.batches[0]
        feed = {port.name: each.numpy() for port, each in zip(sessions[0].inputs, one, strict=True)}
        return time_in_turns([partial(session.run, feed) for session in sessions], seconds=seconds)
