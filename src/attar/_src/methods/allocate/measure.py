"""Measure sensitivities: each part alone at several levels, in the network as it was.

candidates --> bytes
    |
    +--> network with one part changed --> main output --> judge --> error, KL, predictions, metric
    +--> curvature (gradients)           --> estimate
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx

from attar._src.core.digest import digest
from attar._src.core.interrupt import raise_if_interrupted
from attar._src.core.progress import Bar
from attar._src.core.scheme import Shape
from attar._src.measure.difference import decibels
from attar._src.methods.allocate.candidates import Candidate
from attar._src.methods.allocate.changed.anchors import ANCHORS, SMALLEST_ERROR, anchors, between, tells_apart
from attar._src.methods.allocate.changed.change import KeptValues, PartChange
from attar._src.methods.allocate.changed.changed_runs import ChangedRuns
from attar._src.methods.allocate.curvature import Estimates
from attar._src.methods.allocate.judge import UNLABELLED, Judge, Labelled, OutputError, model_outputs
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.sensitivity_table import LayerSensitivity, LevelFigures, LevelKind, SensitivityTable
from attar._src.work.calibration_inputs import CalibrationInputs


@dataclass(frozen=True)
class AboutPart:
    """What is known of a part before it is measured.

    Attributes:
        role, shape: as in :class:`~attar._src.methods.allocate.sensitivity_table.LayerSensitivity`.
        before: bytes of the part, and of what changes with it, as they are.
    """

    role: str
    shape: Shape
    before: float


@dataclass(frozen=True, kw_only=True)
class SensitivityMeter(ABC):
    """Measures parts of a network, each alone at several levels, all others as they were.

    The memory is that of one batch in one run, ``KEPT_BYTES``, and the tensors at all levels.

    Attributes:
        inputs: of each graph, real ones; the network's own outputs are the reference.
        names: of the parts.
        levels: in ascending order.
        what: what levels are.
        method: record of what makes the levels.
        labelled: what is known of the right outputs of each graph.
        seed: of what is drawn for the estimates.
        every: whether every level runs through the whole network. If not, ``ANCHORS`` do, from the least error of the
            part's own outputs to the largest; errors of the others lie between theirs as those of the part's outputs,
            on logarithmic scales, and there is no other figure of them.
    """

    inputs: Mapping[str, CalibrationInputs]
    names: Sequence[str]
    levels: Sequence[Level]
    what: LevelKind
    method: Mapping[str, Any]
    labelled: Labelled = UNLABELLED
    seed: int = 0
    every: bool = True

    @cached_property
    @abstractmethod
    def programs(self) -> dict[str, fx.GraphModule]:
        """Graph -> the network as it is, with tensors of its own."""

    @property
    @abstractmethod
    def outputs(self) -> dict[str, str]:
        """Graph -> the name of its main output."""

    @abstractmethod
    def digest(self) -> str:
        """Return that of the network."""

    @abstractmethod
    def at_levels(self, name: str) -> Mapping[Level, Candidate]:
        """Return a part at each level."""

    @abstractmethod
    def about(self, name: str) -> AboutPart:
        """Return what is known of a part before it is measured."""

    @property
    def macs(self) -> int | None:
        """The multiplications of the network as it is, where levels change them."""
        return None

    def readers(self, name: str) -> Sequence[str]:
        """Return the graphs that have a part."""
        return [*self.inputs]

    def estimates(self, names: Sequence[str]) -> Estimates:
        """Return part -> level -> what gradients tell without a run; empty if nothing is asked of them."""
        return {}

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """Graph -> the judge of its main output."""
        return {
            name: Judge.of(program, self.inputs[name], self.outputs[name], self.labelled)
            for name, program in self.programs.items()
        }

    def table(self, layers: Sequence[LayerSensitivity] = ()) -> SensitivityTable:
        """Return the table of these layers; without any, what is known before."""
        first = next(iter(self.judges.values()))
        judged = next((each for each in self.judges.values() if each.floating), None)
        given = [batch for each in self.inputs.values() for inputs in each.batches for batch in inputs]
        unjudged = next((each.unjudged for each in self.judges.values() if each.unjudged), "")
        change = judged.floating if judged else None
        return SensitivityTable(
            what=self.what,
            method=dict(self.method),
            model=self.digest(),
            data=digest(given),
            levels=tuple(sorted({float(each.value) for each in self.levels})),
            macs=self.macs,
            rates=tuple(sorted({each.rate for each in self.levels})),
            examples=sum(each.examples for each in self.inputs.values()),
            output=", ".join(self.outputs.values()),
            kind=first.kind,
            metric=change.name if change else None,
            floating=change.floating if change else None,
            layers=tuple(layers),
            notes={"labels": f"they give no metric: {unjudged}"} if unjudged else {},
        )

    def measure(self, known: Mapping[str, LayerSensitivity] | None = None) -> Iterator[LayerSensitivity]:
        """Yield the layers that are not ``known``, each as soon as it is measured.

        Raises:
            KeyboardInterrupt: the work was interrupted.
        """
        left = [name for name in self.names if name not in (known or {})]
        if not left:
            return
        estimates = self.estimates(left)
        readers = {name: self.readers(name) for name in left}
        passes = sum(len(self.inputs[graph].batches) for name in left for graph in readers[name])
        kept = KeptValues()
        with Bar("sensitivity", passes) as bar:
            for name in left:
                bar.say(name)
                levels, own = self.at_levels(name), dict[Level, float]()
                if not self.every and len(levels) > ANCHORS:
                    own = self._own_errors(readers[name], levels, kept)
                run = {level: levels[level] for level in anchors(own)} if tells_apart(own) else levels
                seen = self.seen(readers[name], run, kept, bar)
                if len(run) < len(levels) and not all(math.isfinite(each.error) for each in seen.values()):
                    seen = self.seen(readers[name], levels, kept, bar)  # nothing lies between what is not finite
                seen |= between(seen, own)
                estimated = estimates.get(name, {})
                figures = [_figures(level, levels[level], seen[level], estimated.get(level)) for level in levels]
                yield LayerSensitivity(name=name, levels=tuple(figures), **vars(self.about(name)))

    def seen(
        self, graphs: Sequence[str], levels: Mapping[Level, Candidate], kept: KeptValues, bar: Bar
    ) -> dict[Level, OutputError]:
        """Run all graphs that have a part with it at every level."""
        errors = [self._errors(graph, levels, kept, bar) for graph in graphs]
        return {level: _together([each[level] for each in errors]) for level in levels}

    def _errors(
        self, graph: str, levels: Mapping[Level, Candidate], kept: KeptValues, bar: Bar
    ) -> dict[Level, OutputError]:
        """Run a graph with one part at every level."""
        outputs: dict[Level, list[Any]] = {level: [] for level in levels}
        with PartChange.of(self.programs[graph], levels) as change:
            for place in range(len(self.inputs[graph].batches)):
                runs = self._runs(graph, place, change, kept)
                for level in levels:
                    change.to(level)
                    outputs[level].append(model_outputs(runs.outputs()))
                raise_if_interrupted()
                bar.step()
        return {level: self.judges[graph].judge(found) for level, found in outputs.items()}

    def _own_errors(
        self, graphs: Sequence[str], levels: Mapping[Level, Candidate], kept: KeptValues
    ) -> dict[Level, float]:
        """Return the squared error of the outputs of a part over their square, the sum over graphs."""
        found = dict.fromkeys(levels, 0.0)
        for graph in graphs:
            signal, errors = 0.0, dict.fromkeys(levels, 0.0)
            with PartChange.of(self.programs[graph], levels) as change:
                for place in range(len(self.inputs[graph].batches)):
                    runs = self._runs(graph, place, change, kept)
                    reference = [each.double() for each in runs.layer_outputs()]
                    signal += sum(float(each.square().sum()) for each in reference)
                    for level in levels:
                        change.to(level)
                        made = zip(reference, runs.layer_outputs(), strict=True)
                        errors[level] += sum(float((now.double() - was).square().sum()) for was, now in made)
                    raise_if_interrupted()
            for level, error in errors.items():
                found[level] += error / max(signal, SMALLEST_ERROR)
        return found

    def _runs(self, graph: str, place: int, change: PartChange, kept: KeptValues) -> ChangedRuns:
        """Return the runs of one batch; the network is as it was."""
        change.to(None)
        runs = ChangedRuns(change.program, self.inputs[graph].batches[place], change.before, kept.pop(graph, place))
        kept.keep(graph, place, runs)
        return runs


def _together(errors: Sequence[OutputError]) -> OutputError:
    """Return the errors of several graphs as one: sums, the largest share, and the metric of the one that has it."""
    if len(errors) == 1:
        return errors[0]
    total = sum(each.error for each in errors)
    nats, shares, metrics = (
        [value for each in errors if (value := getattr(each, key)) is not None] for key in ("kl", "changed", "metric")
    )
    return OutputError(
        error=total,
        signal_to_noise_db=decibels(total),
        kl=sum(nats) if nats else None,
        changed=max(shares, default=None),
        metric=metrics[0] if metrics else None,
    )


def _figures(level: Level, made: Candidate, seen: OutputError, estimate: float | None) -> LevelFigures:
    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return LevelFigures(
        level=float(level.value),
        rate=level.rate,
        sparsity=level.sparsity,
        scheme=level.scheme,
        granularity=level.granularity,
        bytes=made.bytes,
        beside=made.beside,
        error=finite(seen.error),
        signal_to_noise_db=finite(seen.signal_to_noise_db),
        kl=finite(seen.kl),
        changed=seen.changed,
        metric=seen.metric,
        estimate=finite(estimate),
        macs=made.macs,
    )
