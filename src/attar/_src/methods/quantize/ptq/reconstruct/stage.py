"""The stage that improves what ``quantize`` has rounded, by the outputs of blocks and of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.interrupt import raise_if_interrupted
from attar._src.core.progress import Bar
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.integer_layers import fit_integer_layers
from attar._src.methods.quantize.ptq.reconstruct.code_budget import CodeBudget
from attar._src.methods.quantize.ptq.reconstruct.judging import Errors, joined
from attar._src.methods.quantize.ptq.reconstruct.network import LearnedNetwork
from attar._src.methods.quantize.ptq.reconstruct.reconstruction import Reconstruction, StepCounts
from attar._src.methods.quantize.ptq.reconstruct.scores import ClassScores, class_scores
from attar._src.train.augment import AugmentationChoice, apply_endless, apply_finite
from attar._src.train.seeds import derive_seed
from attar._src.train.store import Checkpoint, CheckpointStore
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, inputs_by_graph
from attar._src.work.context import Context, TrainingContext, Trial
from attar._src.work.stage import Stage

#: Trainings of the network at most until a target holds.
FITTINGS = 4
#: Bytes by which a file that was too large is made smaller than it must be.
MARGIN = 24
#: Takes a row of figures after every block.
Log = Callable[[Mapping[str, Any]], None]


class Reconstruct(Stage):
    """Improve codes, scales, biases, norms and activation grids after ``quantize``, without labels.

    Block by block, the rounding of weights (AdaRound, Nagel et al. 2020), the scales and the biases are trained until
    the outputs of the block match those in floating point (BRECQ, Li et al. 2021, section 3), where what the block
    reads is drawn for each element from the quantized and from the floating-point network (QDrop, Wei et al. 2022).
    Then the whole network is trained through its rounding, straight through, on the outputs of the floating-point
    network. A block, and the network, keep what they had unless they are better on inputs that are not trained on, or
    these do not tell and they are better where they were trained (``judging``).

    Deviations: scales are trained with the codes, errors are relative to the spread of an output instead of weighted by
    the Fisher information, and the last unit is the network.

    Where ``quantize`` chose bits under a target, the target holds: coded bits have a price while codes are trained
    (``code_budget``), the network is trained on until the packed file fits, and if it never does, or loses more than
    the target has, the model stays as it was.

    Weights of 8 bits, codebooks and tensors that no layer multiplies stay as they are; the record says so (``left``).

    Attributes:
        steps: training steps of each block, 0 for none.
        network_steps: those of the whole network; twice ``steps`` by default, 0 for none.
        lr: learning rate of the codes while the network is trained, in steps of their grids. With the default a code
            moves by a step or so in 1,000 steps; recurrent networks gain with 0.004 and many inputs.
        minutes: choose ``steps`` for about this time on this machine instead; the number is in the record, and with it
            as ``steps`` the result is the same.
        batch: examples of a step.
        reround: before a block is trained, round its layers again, so that they make of what the quantized network
            reads what they made of what the floating-point network reads (asymmetric calibration, GPTAQ, Li et al.
            2025): seconds, also with ``steps`` 0.
        drop: probability of an element to be that of the floating-point network while a block is trained.
        augment: augmentations of the first input while the network is trained, as in the recipe's ``data``; they apply
            to inputs after preprocessing.
        loss: of the network's outputs: ``kl`` (scores along the class axis), ``error`` (squared, relative to their
            spread), or ``auto``: ``kl`` for a main output that looks like scores.
    """

    works_on: ClassVar[type[CompressedModel]] = CompressedModel

    stage: Literal["reconstruct"] = "reconstruct"
    steps: Annotated[int, Field(ge=0)] = 500
    network_steps: Annotated[int, Field(ge=0)] | None = None
    lr: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 2e-3
    minutes: Annotated[float, Field(gt=0)] | None = None
    batch: Annotated[int, Field(ge=1)] = 32
    reround: bool = False
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.5
    augment: tuple[AugmentationChoice, ...] = ()
    loss: Literal["auto", "kl", "error"] = "auto"

    @model_validator(mode="after")
    def _has_steps(self) -> Reconstruct:
        if not (self.steps or self.network_steps or self.reround):
            raise ValueError(
                "steps: 0 trains no block; add network_steps, such as 1000, to train the network alone, or reround"
            )
        return self

    def check(self, before: Sequence[Stage]) -> None:
        """Refuse to stand where nothing is quantized."""
        if not any(stage.compresses() for stage in before):
            raise SpecError(
                "reconstruct improves grids that a model has, and no stage before it makes any; put a stage quantize "
                "before it, such as {stage: quantize, bits: 4, scales: mse}"
            )

    def try_on(self, model: CompressedModel, trial: Trial) -> CompressedModel:
        """Look for weights to improve, and augment an example."""
        found = [LearnedNetwork.of(model, name) for name in model.graphs]
        if nothing := _nothing_to_improve(found):
            raise SpecError(nothing)
        if self.augment:
            first = trial.batch.inputs[0]
            choice = torch.zeros(len(first), dtype=torch.int64)
            with prefixed_errors("augment"):
                apply_endless(self.augment, apply_finite(self.augment, first, choice), torch.Generator().manual_seed(0))
        return model

    def run(self, model: CompressedModel, context: Context) -> CompressedModel:
        """Return the model with better codes, scales, biases and grids; in a run it resumes at the block.

        Raises:
            DataError: there are several graphs, and one has no inputs of its own.
            SpecError: no weight can be improved, or an augmentation does not fit.
        """
        if isinstance(context, TrainingContext):
            return self.improve(model, context, context.log, context.store)
        return self.improve(model, context)

    def improve(
        self,
        model: CompressedModel,
        context: Context,
        log: Log = lambda _: None,
        store: CheckpointStore | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> CompressedModel:
        """Do the stage; a model whose bits were chosen under a target stays as it was if nothing can be improved.

        Args:
            log: gets seconds and errors of each block.
            store: keeps what is done.
            stop: asked after each block; if so, the stage ends with what is done.
        """
        before, target = model, model.target
        inputs = inputs_by_graph(model, context.calibration)
        networks = {name: LearnedNetwork.of(model, name) for name in model.graphs}
        if nothing := _nothing_to_improve([*networks.values()]):
            if target is None:
                raise SpecError(nothing)
            return replace(before, notes={**before.notes, "reconstruct": f"nothing was done: {nothing}"})
        names = [name for name, network in networks.items() if network.weights]
        scores = {name: self._scores(model, name, inputs[name], context) for name in names}

        def work_on(network: LearnedNetwork) -> Reconstruction:
            given, seed = inputs[network.name], derive_seed(context.seed, network.name)
            return Reconstruction(network, given, self.batch, self.augment, scores[network.name], self.lr, seed)

        progress = _Progress.of(store, lambda: self._steps(work_on(networks[name]) for name in names))
        total = sum(len(networks[name].blocks) for name in names) * (progress.steps.block + progress.steps.network)
        left = {name: why for network in networks.values() for name, why in network.left.items()}
        record = self.describe() | {
            "steps": progress.steps.block,
            "network_steps": progress.steps.network,
            "calibration_examples": sum(each.examples for each in inputs.values()),
        }
        budgets: dict[str, float] = {}
        if target:
            bits = {name: CodeBudget([*networks[name].weights.values()]).bits for name in names}
            budgets = _tightened(bits, target.excess(model.done(record)))
        errors: dict[str, Any] = {}
        with Bar("reconstructing", total) as bar:

            def tick(count: int) -> None:
                raise_if_interrupted()
                for _ in range(count):
                    bar.step()

            for name in names:
                # Tensors that a graph before shares with this one have changed.
                networks[name] = LearnedNetwork.of(model, name)
                prefix = f"{name}." if len(names) > 1 else ""
                errors |= self._reconstruct(
                    work_on(networks[name]),
                    prefix,
                    progress,
                    tick,
                    log,
                    _budget(networks[name], budgets.get(name)),
                    stop,
                )
                model = networks[name].result(model)
        # The record is part of the file: where bytes are counted, figures are in the log alone.
        record |= {} if target else {"errors": errors, "left": left}
        done = fit_integer_layers(model.done(record))
        for _ in range(FITTINGS):
            if target is None or (excess := target.excess(done)) <= 0:
                break
            budgets = _tightened(budgets, excess + MARGIN)
            for name in names:
                network = LearnedNetwork.of(model, name)
                steps = progress.steps.network or progress.steps.block
                work_on(network).run_network(steps, raise_if_interrupted, _budget(network, budgets[name]))
                model = network.result(model)
            done = fit_integer_layers(model.done(record))
        if target is None:
            return done
        if not target.holds(done):
            why = "the target did not hold"
        # Moving codes until the bytes hold may cost more than the training gained.
        elif not joined(work_on(LearnedNetwork.of(done, name)).errors() for name in names).improves(
            joined(progress.starts.values())
        ):
            why = "within the target, outputs came no nearer to those in floating point"
        else:
            return done
        return replace(before, notes={**before.notes, "reconstruct": f"nothing was kept: {why}"})

    def _reconstruct(
        self,
        work: Reconstruction,
        prefix: str,
        progress: _Progress,
        tick: Callable[[int], None],
        log: Log,
        budget: CodeBudget | None,
        stop: Callable[[], bool],
    ) -> dict[str, list[float]]:
        """Reconstruct one graph; return unit -> its errors before and after, at last those of the whole stage."""
        begin = progress.begin(prefix, work)
        for unit in work.run(progress.steps, self.drop, begin, tick, budget):
            row = {
                "unit": prefix + unit.name,
                "error_before": unit.before,
                "error_after": unit.after,
                "seconds": round(unit.seconds, 2),
            }
            log(progress.add(prefix, work, row))
            if stop():
                break
        start, end = progress.starts[prefix], work.errors()
        if not end.improves(start):
            work.network.load(progress.first[prefix])
            end = start
        rows = progress.rows_of(prefix)
        found = {str(row["unit"]): [_short(row["error_before"]), _short(row["error_after"])] for row in rows}
        return found | {f"{prefix}all": [_short(start.mean), _short(end.mean)]}

    def _scores(
        self, model: CompressedModel, name: str, inputs: CalibrationInputs, context: Context
    ) -> ClassScores | None:
        """Return the output of a graph whose divergence is made small, if one has scores."""
        labelled = Labelled.of(context.judged, context.use)
        return class_scores(model.graphs[name], inputs, self.loss, labelled)

    def _steps(self, works: Iterable[Reconstruction]) -> StepCounts:
        """Return the steps: as given, or as many times these as take about ``minutes``."""
        network = 2 * self.steps if self.network_steps is None else self.network_steps
        if self.minutes is None or not (self.steps or network):
            return StepCounts(self.steps, network, self.reround)
        # The blocks take together about what the network takes.
        times = 60 * self.minutes / ((self.steps + network) * sum(work.seconds_of_step() for work in works))
        if not self.steps:
            return StepCounts(0, max(1, round(network * times)), self.reround)
        steps = max(1, round(self.steps * times))
        return StepCounts(steps, round(steps * network / self.steps), self.reround)


@dataclass
class _Progress:
    """What is done of the stage, in a store or in memory alone.

    Attributes:
        rows: of every unit that is done.
        starts: graph -> its errors before the stage.
        first: graph -> what its modules stored before the stage.
        now: what the modules of all graphs store, as far as the stage is.
    """

    store: CheckpointStore | None
    steps: StepCounts
    rows: list[dict[str, Any]]
    starts: dict[str, Errors] = field(default_factory=dict)
    first: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    now: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, store: CheckpointStore | None, choose: Callable[[], StepCounts]) -> _Progress:
        """Continue from the latest checkpoint of a store."""
        found = None if store is None else store.latest()
        if found is None:
            return cls(store, choose(), [])
        rows = [dict(row) for row in found.facts["history"]]
        return cls(store, StepCounts(*found.facts["steps"]), rows, now=dict(found.tensors))

    def begin(self, prefix: str, work: Reconstruction) -> int:
        """Note the state before the first unit, put back what was done, and return the number of units done."""
        self.first[prefix] = {name: value.clone() for name, value in work.network.state().items()}
        self.starts[prefix] = work.errors()
        start = f"{prefix}/"
        work.network.load({name.removeprefix(start): t for name, t in self.now.items() if name.startswith(start)})
        return len(self.rows_of(prefix))

    def add(self, prefix: str, work: Reconstruction, row: dict[str, Any]) -> dict[str, Any]:
        """Add the row of a unit, and keep a checkpoint; return the row with its number."""
        numbered = {"epoch": len(self.rows) + 1, "graph": prefix, **row}
        self.rows.append(numbered)
        self.now |= {f"{prefix}/{name}": value for name, value in work.network.state().items()}
        if self.store is not None:
            facts = {"history": self.rows, "steps": [self.steps.block, self.steps.network, self.steps.reround]}
            self.store.save(Checkpoint(len(self.rows), self.now, facts))
        return numbered

    def rows_of(self, prefix: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["graph"] == prefix]


def _short(number: Any) -> float:
    """Return a number in as many digits as a reader wants; the record is part of the file."""
    return float(f"{float(number):.4g}")


def _tightened(budgets: Mapping[str, float], excess: int) -> dict[str, float]:
    """Return budgets in bits that are lower, in proportion, by bytes of a file."""
    share = max(0.5, 1 - 8 * excess / max(sum(budgets.values()), 1.0))
    return {name: bits * share for name, bits in budgets.items()}


def _budget(network: LearnedNetwork, bits: float | None) -> CodeBudget | None:
    """Return the budget of a network whose codes are within it; None without."""
    if bits is None:
        return None
    budget = CodeBudget([*network.weights.values()], bits)
    budget.fit()
    return budget


def _nothing_to_improve(networks: Sequence[LearnedNetwork]) -> str:
    """Return why no weight can be improved; nothing if some can."""
    if any(network.weights for network in networks):
        return ""
    left = {name: why for network in networks for name, why in network.left.items()}
    said = "; ".join(f"{name}: {why}" for name, why in [*left.items()][:3]) or "none is quantized"
    return f"reconstruct finds no weight to improve ({said}); quantize some to 2 to 7 bits on affine grids first"
