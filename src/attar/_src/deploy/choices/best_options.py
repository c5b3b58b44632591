"""``best=True``: the options of post-training quantization that lose least on held-out inputs, within some minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from attar._src.core.errors import DataError, SpecError
from attar._src.core.fields import main_output_name
from attar._src.measure.difference import SCORES
from attar._src.methods.allocate.coded_bytes import coded_bytes
from attar._src.methods.allocate.judge import Judge, Labelled, model_outputs
from attar._src.methods.quantize.ptq.observers.calibration import Automatic
from attar._src.methods.quantize.ptq.reconstruct.network import FINE
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SCHEMES, SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.ptq.weight_solvers import AFFINE, AUTO_SCALES
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context

#: One of so many examples is held out, and no fewer than that are needed.
HELD_OUT, FEWEST_EXAMPLES = 4, 8
#: Among options whose loss is within 5 % of the least, the smaller file is taken.
NEARLY = 1.05
#: Share of the time by which solvers, schemes and observers should be done; the rest is for reconstruction.
_SOLVERS = 0.6
#: The same for the first solver that sees inputs.
_FIRST_SEEING = 0.9
#: Reconstruction times its steps on one; it may take so many times as long.
_LONGER = 2.0
#: Share of what is left that reconstruction should take, on three of four examples and on all, and of the whole below
#: which none begins.
_SHARE, _LEAST = 0.8, 0.25
#: Times that what was timed once may take the next time.
_SPARE = 1.2
#: Times that a solver which sees inputs takes what one takes that does not, before any was timed.
_FIRST = 4.0


@dataclass(frozen=True)
class Tried:
    """Options that were tried.

    Attributes:
        changes: in words, from the options as they were given.
        loss: mean divergence of the class probabilities from those of the untouched module, in nats; without classes
            the squared error over the variance of its outputs.
        coded_bytes: of all tensors.
        seconds: it took.
        stage, model: the options, and what they made.
        reconstruct: with these steps, after the stage; None without.
        complete: whether all of these steps were done.
    """

    changes: str
    loss: float
    coded_bytes: int
    seconds: float
    stage: PostTrainingQuantize
    model: CompressedModel
    reconstruct: Reconstruct | None = None
    complete: bool = True

    def options(self, given: PostTrainingQuantize) -> dict[str, Any]:
        """Return the options of ``attar.quantize`` that make the same, where they are not those of ``given``."""
        fields = {name: getattr(self.stage, name) for name in type(self.stage).model_fields}
        found = {name: value for name, value in fields.items() if value != getattr(given, name)}
        if self.reconstruct:
            steps = {"steps": self.reconstruct.steps, "network_steps": self.reconstruct.network_steps}
            found["reconstruct"] = steps
        return found

    def __str__(self) -> str:
        return f"{self.changes} {self.loss:.3g} ({self.coded_bytes:,} B, {self.seconds:.0f} s)"


@dataclass
class Search:
    """Tries options in the order of their cost.

    Attributes:
        untouched: the module.
        context: with all inputs.
        learn: the inputs that solvers see while options are compared.
        held: the others.
        judge: compares outputs on ``held``.
        seconds: the time for all.
        clock: seconds since any moment.
    """

    untouched: CompressedModel
    context: Context
    learn: CalibrationInputs
    held: CalibrationInputs
    judge: Judge
    seconds: float
    clock: Callable[[], float] = time.monotonic
    started: float = 0.0
    tried: list[Tried] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    again: bool = False

    @classmethod
    def of(
        cls,
        untouched: CompressedModel,
        context: Context,
        minutes: float,
        started: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> Search:
        """Hold out one of four examples of the context's inputs.

        Raises:
            DataError: there are fewer than 8 examples.
        """
        inputs = context.calibration
        assert isinstance(inputs, CalibrationInputs)
        if inputs.examples < FEWEST_EXAMPLES:
            raise DataError(
                f"best compares options on held-out inputs; give {FEWEST_EXAMPLES} or more, got {inputs.examples}"
            )
        traced = untouched.main.traced
        learn, held = inputs.one_of(HELD_OUT, whole=not traced.any_batch)
        if learn is held:
            raise DataError(
                f"best compares options on held-out inputs, and the module has a fixed batch size; give {HELD_OUT} "
                "batches or more, got 1"
            )
        output = main_output_name({port.name: port.dtype.startswith("f") for port in traced.outputs})
        labelled = Labelled.of(context.judged, context.use)
        judge = Judge.of(traced.graph, replace(held, targets=()), output, labelled)
        return cls(untouched, context, learn, held, judge, 60 * minutes, clock, started)

    def run(self, given: PostTrainingQuantize) -> Tried:
        """Return the best of what was tried from ``given`` on, made of all inputs; options as given are tried always.

        Raises:
            SpecError: the options as given do not fit the module.
        """
        if given.scales == AUTO_SCALES and isinstance(given.bits, int) and not given.overrides:
            # By its own name, so that it is not tried twice.
            given = given.model_copy(update={"scales": SOLVERS[AUTO_SCALES].at_bits(given.bits).name})
        self._solve("as given", given)
        cheap = self.tried[0].seconds
        for name, changes, sees in _solvers(given):
            seen = [each.seconds for each in self.tried if each.stage.scales == "gptq"]
            expected = _SPARE * (max(seen) if seen else _FIRST * cheap) if sees else _SPARE * cheap
            # The first that sees inputs gains most for its time, and reconstruction in a hurry less.
            share = _SOLVERS if seen or not sees else _FIRST_SEEING
            if self._fits(name, expected, share):
                self._solve(name, given.model_copy(update=changes))
        for name, changes in _further(given):
            best = self.best()
            if self._fits(name, _SPARE * best.seconds, _SOLVERS):
                words = name if best.changes == "as given" else f"{best.changes}, {name}"
                self._solve(words, best.stage.model_copy(update=changes))
        if isinstance(given.bits, int) and given.bits < FINE:
            self._reconstruct()
        return self._of_all(self.best())

    def best(self) -> Tried:
        """Return the best so far."""
        return _best(self.tried)

    def note(self) -> str:
        """Return what was tried and gained, for the report."""
        best, first = self.best(), self.tried[0]
        measure = "divergence" if self.judge.kind == SCORES else "relative squared error"
        gain = f"{first.loss / best.loss:.2f} times less than as given" if best.loss else "none"
        said = (
            f"took {best.changes}: {measure} {best.loss:.3g} on {self.held.examples} held-out examples, {gain}; tried "
            f"in {self.clock() - self.started:.0f} of {self.seconds:.0f} s: {', '.join(map(str, self.tried))}"
        )
        if self.skipped:
            said += f"; left out for time: {', '.join(self.skipped)}"
        if self.failed:
            said += f"; not possible: {'; '.join(self.failed)}"
        if not self.again:
            return f"{said}; made of {self.learn.examples} examples, as there was no time for all"
        changed = ", ".join(f"{name}={value!r}" for name, value in best.options(first.stage).items())
        return f"{said}; then made of all examples, as without best{f' and with {changed}' if changed else ''}"

    def _left(self) -> float:
        return self.seconds - (self.clock() - self.started)

    def _fits(self, name: str, expected: float, share: float) -> bool:
        fits = self.clock() - self.started + expected <= share * self.seconds
        if not fits:
            self.skipped.append(name)
        return fits

    def _solve(self, name: str, stage: PostTrainingQuantize) -> None:
        begun = self.clock()
        try:
            model = stage.run(self.untouched, replace(self.context, calibration=self.learn))
        except SpecError as error:
            if not self.tried:
                raise
            self.failed.append(f"{name}: {error}")
            return
        self._judge(Tried(name, 0.0, 0, begun, stage, shorten_numbers(model)))

    def _reconstruct(self) -> None:
        """Improve the best affine model, in a time that is left again afterwards, to do the same with all inputs."""
        affine = [each for each in self.tried if each.stage.scheme == AFFINE]
        if not affine:
            return
        start, begun, left = _best(affine), self.clock(), self._left()
        name = "reconstruct" if start.changes == "as given" else f"{start.changes}, reconstruct"
        if left < _LEAST * self.seconds:
            self.skipped.append(name)
            return
        asked = Reconstruct(minutes=_SHARE * left / (2 * _LONGER) / 60)
        stopped = False

        def stop() -> bool:
            nonlocal stopped
            stopped = self._left() < 0
            return stopped

        try:
            context = replace(self.context, calibration=self.learn)
            model = asked.improve(start.model, context, stop=stop)
        except SpecError as error:
            self.failed.append(f"{name}: {error}")
            return
        steps = {each: model.record[-1][each] for each in ("steps", "network_steps")}
        done = asked.model_copy(update={**steps, "minutes": None})
        self._judge(Tried(name, 0.0, 0, begun, start.stage, shorten_numbers(model), done, not stopped))

    def _of_all(self, best: Tried) -> Tried:
        """Return the options made of all inputs; what they made of the others, where reconstruction has no time."""
        if best.reconstruct and (not best.complete or _SPARE * best.seconds > self._left()):
            return best
        model, self.again = best.stage.run(self.untouched, self.context), True
        model = best.reconstruct.improve(model, self.context) if best.reconstruct else model
        return replace(best, model=shorten_numbers(model))

    def _judge(self, made: Tried) -> None:
        """Add what was tried, with its loss and size; its ``seconds`` are when it begun."""
        program = made.model.simulate()
        with torch.no_grad():
            seen = self.judge.judge(model_outputs(program(*batch)) for batch in self.held.batches)
        loss = seen.error if seen.kl is None else seen.kl
        size = round(sum(coded_bytes(made.model.stored()).values()))
        self.tried.append(replace(made, loss=loss, coded_bytes=size, seconds=self.clock() - made.seconds))


def _best(tried: list[Tried]) -> Tried:
    least = min(each.loss for each in tried)
    near = [each for each in tried if each.loss <= NEARLY * least]
    return min(near, key=lambda each: each.coded_bytes)


def _solvers(given: PostTrainingQuantize) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield name, changes, and whether inputs are seen, of solvers and schemes other than the given ones."""
    affine: list[tuple[str, dict[str, Any], bool]] = []
    for scales, rate in (("mse", 0.0), ("gptq", 0.0), ("gptq", 0.001)) if given.bits != 1 else ():
        changes = {"scheme": AFFINE, "scales": scales, "rate": rate}
        if any(getattr(given, name) != value for name, value in changes.items()):
            affine.append((f"scales={scales}" + (f" rate={rate:g}" if rate else ""), changes, scales == "gptq"))
    # What may gain most for its time comes first: the schemes of most levels, and smaller files at last.
    yield from (each for each in affine if not each[1]["rate"])
    for name, scheme in reversed([*zip(SCHEMES, SCHEMES.values(), strict=True)]):
        if given.symmetric and given.bits in scheme.widths and given.scheme != name:
            yield f"scheme={name}", {"scheme": name, "scales": "gptq", "rate": 0.0}, True
    yield from (each for each in affine if each[1]["rate"])


def _further(given: PostTrainingQuantize) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and changes of what goes with any solver."""
    if not given.equalize:
        yield "equalize", {"equalize": True}
    if isinstance(given.activations, int):
        same = Automatic.chosen(given.activations).name if given.observer == Automatic.name else given.observer
        for observer in OBSERVERS:
            if observer not in (given.observer, Automatic.name, same):
                yield f"observer={observer}", {"observer": observer}
