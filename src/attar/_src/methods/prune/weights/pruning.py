"""Pruning of the weights of a deployed graph after training: what is asked for, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Self

import torch
from pydantic import BeforeValidator, model_validator

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.spec import SomeShare, Spec, demand_share, registered_word
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.prune.channels.ranking import Gradients, PartGradients, gradient_moments
from attar._src.methods.prune.masks import demand_some_left
from attar._src.methods.prune.scopes import SCOPES, WeightUnits
from attar._src.methods.prune.scores import SCORES, ScoredWeight, misplaced
from attar._src.methods.prune.units import PruningUnit, UnitText
from attar._src.methods.prune.weights.row_pruning import RowPruning, SeenInputs, Update
from attar._src.methods.prune.weights.walk import WeightWalk
from attar._src.methods.quantize.ptq.globs import matching_tensors
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.work.calibration_inputs import CalibrationInputs

#: A share of the units, or what it is chosen under.
_Sparsity = Annotated[SomeShare | BitTarget, BeforeValidator(demand_share)]


class WeightPruning(Spec):
    """How many weights become zero without training, which, and what becomes of the others.

    Attributes:
        sparsity: share of the units to prune, ``round(sparsity n)`` of n; an N:M pattern has its own. Or a target of
            the file, ``{max_bytes: 600000}``, ``{size: 16}`` or ``{max_drop: 1.0}``, under which each weight not in
            ``overrides`` gets its own, from sensitivities (:mod:`.own_sparsity`).
        unit: ``weight``, ``N:M`` such as ``2:4``, or a block of output and input channels such as ``4x1``.
        score: name of the score; ``taylor`` and ``gradient_weight`` need labels.
        update: ``none`` leaves the other weights as they are; ``obs`` makes them the best for the mask, of what each
            layer multiplies; ``sparsegpt`` sweeps the columns once, for rows of thousands. ``obs`` sweeps where a
            weight would take minutes.
        scope: how the share is divided among weights: ``layer``, ``row``, ``global``, ``lamp``, ``erdos_renyi``.
        sequential: whether each layer makes up for what was lost in front of it, too: what it multiplies is then seen
            in the pruned network, and its outputs are those of the network as it was. Recurrent layers, tables and
            weights with several readers are pruned first, as if they were alone.
        correct_bias: whether biases take the mean error of their outputs; with ``sequential`` and an update alone.
        layers, keep: globs of layers to prune, and of exceptions.
        overrides: glob -> sparsity of each weight it matches, also outside ``layers``.
    """

    sparsity: _Sparsity | None = None
    unit: UnitText = "weight"
    score: Annotated[str, registered_word(SCORES)] = "obs"
    update: Update = "obs"
    scope: Annotated[str, registered_word(SCOPES)] = "layer"
    sequential: bool = True
    correct_bias: bool = True
    layers: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    overrides: dict[str, SomeShare] = {}

    @model_validator(mode="after")
    def _check_amount(self) -> Self:
        pattern = PruningUnit.parse(self.unit)
        if pattern.share is not None and (self.sparsity is not None or self.overrides):
            raise ValueError(
                f"unit {self.unit} prunes {pattern.share:g} of every weight; leave sparsity and overrides out, and use "
                "keep for layers that stay"
            )
        if pattern.share is not None and self.scope != "layer":
            raise ValueError(f"unit {self.unit} prunes {pattern.share:g} of every weight; leave scope out")
        if pattern.share is None and self.sparsity is None:
            raise ValueError("sparsity is missing; give the share of weights to prune, such as 0.5, or a unit N:M")
        if isinstance(self.sparsity, BitTarget) and (self.scope != "layer" or self.unit != "weight"):
            raise ValueError("a target chooses the sparsity of single weights of each layer; leave unit and scope out")
        if self.score in SCORES and (why := misplaced(SCORES[self.score], self.score, training=False)):
            raise ValueError(why)
        return self


@dataclass(frozen=True)
class PrunedWeights:
    """Weights of a graph with some elements zero.

    Attributes:
        values: weight -> its new values, as in the graph.
        pruned: weight -> which elements are zero.
        biases: name of a bias -> what is added to it.
        excluded: weight -> why it was not pruned.
        unseen: weight whose inputs the score or update could not see -> why; it was pruned by itself.
        swept: weights whose columns were swept once, as ``obs`` would have taken minutes.
        note: what sparsities were chosen for a target; empty without one.
        apart: weights that were not pruned in order, as the values between them took too much memory.
    """

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    pruned: dict[str, torch.Tensor] = field(default_factory=dict)
    biases: dict[str, torch.Tensor] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)
    swept: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def remarks(self) -> list[str]:
        """What was done otherwise than asked, in sentences."""
        found = []
        if self.unseen:
            named = ", ".join(f"{name!r} ({why})" for name, why in [*self.unseen.items()][:3])
            more = f" and {len(self.unseen) - 3} more" if len(self.unseen) > 3 else ""
            found.append(f"pruned by their own values, without seeing what they multiply: {named}{more}")
        if self.swept:
            found.append(f"swept once, as obs would take minutes: {', '.join(self.swept)}")
        if self.apart:
            found.append(
                "each layer was pruned as if it were alone, as the values of one batch between them take too much "
                "memory; give smaller batches"
            )
        return found

    @property
    def sparsity(self) -> dict[str, float]:
        """Weight -> the share of its elements that are zero."""
        return {name: float(each.float().mean()) if each.numel() else 0.0 for name, each in self.pruned.items()}


def prune_weights(
    traced: TracedModel,
    pruning: WeightPruning,
    inputs: CalibrationInputs,
    gradients: Callable[[], PartGradients],
    *,
    seed: int = 0,
    fixed: Mapping[str, str] = MappingProxyType({}),
    shifts: Callable[[str], bool] = lambda _: True,
) -> PrunedWeights:
    """Return the weights of a graph with zeros, and with the others made up for them.

    Args:
        traced: the deployed graph, batch-norms folded; it is not changed.
        pruning: what to do.
        inputs: real ones.
        gradients: of a loss by weight, in the graph's own terms, for each part of the examples; called if the score
            needs them.
        seed: of scores that draw.
        fixed: weight -> why it stays.
        shifts: whether a bias may take the mean error of its outputs.

    Raises:
        UnknownName: a glob matches no layer, or there is no such score or scope.
        SpecError: a weight would lose everything.
        ModelError: values are not finite.
    """
    return _Run(traced, pruning, inputs, gradients, seed, fixed, shifts).prune()


class _Run:
    def __init__(
        self,
        traced: TracedModel,
        pruning: WeightPruning,
        inputs: CalibrationInputs,
        gradients: Callable[[], PartGradients],
        seed: int,
        fixed: Mapping[str, str],
        shifts: Callable[[str], bool],
    ) -> None:
        self.pruning, self.inputs, self.traced, self.shifts = pruning, inputs, traced, shifts
        self.unit, self.score, self.scope = (
            PruningUnit.parse(pruning.unit),
            SCORES[pruning.score],
            SCOPES[pruning.scope],
        )
        if why := misplaced(self.score, pruning.score, training=False):
            raise SpecError(why)
        self.weights, self.state = find_weights(traced.graph), traced.state()
        sees = self.score.needs == "inputs" or pruning.update != "none"
        self.found = PrunedWeights()
        self.shares = self._shares()
        self.walk = WeightWalk(traced, inputs, self.shares, sees=sees)
        if sees:
            self.found.unseen.update(self.walk.unseen)
        moments = gradient_moments(gradients()) if self.score.needs == "gradient" else None
        random = torch.Generator().manual_seed(seed)
        self.jobs = {name: self._job(name, moments, random) for name in self.shares}
        for name in [*self.jobs]:
            zeros = "all its elements are zero" if self.state[name].numel() and not self.state[name].any() else ""
            if why := fixed.get(name) or zeros or self.unit.misfit(self.jobs[name].rows):
                self.found.excluded[name] = why
                del self.jobs[name]

    def prune(self) -> PrunedWeights:
        """Prune in order."""
        self.counts = self._counts()
        for name, count in self.counts.items():
            share = self.unit.share if self.shares[name] is None else self.shares[name]
            rows, said = self.jobs[name].rows, f"sparsity={share:g}"
            demand_some_left(name, self.unit, rows, count, said, each_row=self.scope.each_row)
        makes_up = self.pruning.correct_bias and self.pruning.update != "none"
        self.walk.solve(
            [*self.jobs],
            self._solve,
            sequential=self.pruning.sequential,
            shifts=lambda bias: makes_up and self.shifts(bias),
        )
        self.found.values.update(self.walk.values)
        self.found.biases.update(self.walk.biases)
        self.found.apart.extend(self.walk.apart)
        for name in self.jobs:
            if self.pruning.update == "obs" and name in self.walk.reads and self.jobs[name].swept(self.state[name]):
                self.found.swept.append(name)
        return self.found

    def _shares(self) -> dict[str, float | None]:
        """Return weight -> share of its units, in the order of the state; None for that of an N:M pattern."""
        pruning, aliases = self.pruning, dict(self.traced.aliases)
        known = [name for name in self.state if name in self.weights]

        def matching(glob: str) -> list[str]:
            return matching_tensors(glob, known, aliases)

        general = None if isinstance(pruning.sparsity, BitTarget) else pruning.sparsity
        shares: dict[str, float | None] = {n: general for glob in pruning.layers for n in matching(glob)}
        for glob, share in pruning.overrides.items():
            shares |= dict.fromkeys(matching(glob), share)
        kept = {name for glob in pruning.keep for name in matching(glob)}
        return {name: shares[name] for name in known if name in shares and name not in kept}

    def _job(self, name: str, moments: tuple[Gradients, Gradients] | None, random: torch.Generator) -> RowPruning:
        value = self.state[name]
        gradient, squares = (each.get(name, torch.zeros_like(value)) for each in moments) if moments else (None, None)
        scored = ScoredWeight(value, gradient, squares, random=random)
        factor = None
        if name in self.traced.folding.factors:
            values, axis = self.traced.folding.factors[name]
            factor = torch.from_numpy(values).reshape([-1 if each == axis else 1 for each in range(value.dim())])
        return RowPruning(
            self.walk.rows[name], self.unit, self.score, self.pruning.update, self.scope.each_row, scored, factor
        )

    def _counts(self) -> dict[str, int]:
        """Return the number of units of each weight to prune."""
        own = set[str]()
        for glob in self.pruning.overrides:
            own |= {*matching_tensors(glob, [*self.weights], dict(self.traced.aliases))}
        shares = {name: self.unit.share if self.shares[name] is None else self.shares[name] for name in self.jobs}
        units = {name: self.unit.count(job.rows) for name, job in self.jobs.items()}
        fixed = {name: round((shares[name] or 0.0) * units[name]) for name in self.jobs if name in own}
        if self.unit.of or not isinstance(self.pruning.sparsity, float | int):
            return {name: round((shares[name] or 0.0) * units[name]) for name in self.jobs}
        free = [name for name in self.jobs if name not in own]
        scores: dict[str, WeightUnits] = {}
        looks = self.scope.ranks and self.scope.name == "global" and self.score.needs == "inputs"
        for name, seen in self.walk.seen(free) if looks else [(name, None) for name in free]:
            job = self.jobs[name]
            rows = job.rows.rows(self.state[name]).double()
            with prefixed_errors(f"prune at {name!r}"):
                found = job.unit_scores(rows, rows == 0, seen)
            squares = self.unit.scores(job.rows.rows(job.own(rows)).square(), job.rows, lambda sums: sums)
            scores[name] = WeightUnits(found, squares, tuple(self.state[name].shape))
        ordered = {name: scores[name] for name in free}
        return fixed | self.scope.counts(ordered, self.pruning.sparsity)

    def _solve(self, name: str, seen: SeenInputs | None, aims: torch.Tensor | None) -> torch.Tensor:
        with prefixed_errors(f"prune at {name!r}"):
            value, pruned = self.jobs[name].prune(self.state[name], self.counts[name], seen, aims)
        self.found.pruned[name] = pruned
        return value
