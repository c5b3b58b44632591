"""A comparison: methods are tuned to the targets, and the files that stand for them are measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attar._src.core.digest import file_digest
from attar._src.core.errors import AttarError, ModelError, SpecError
from attar._src.core.interrupt import interruptible
from attar._src.report.wording import clock, plural
from attar._src.search.comparison.answer import answer, equals
from attar._src.search.comparison.comparison_folder import ComparisonFolder
from attar._src.search.comparison.comparison_try import ComparisonTry
from attar._src.search.comparison.measured import MeasuredFiles, measure_files
from attar._src.search.comparison.method import CompressionMethod, Variant
from attar._src.search.comparison.post_training_files import PostTrainingFiles
from attar._src.search.comparison.target import EqualTarget, next_strength
from attar._src.search.comparison.trained_files import TrainedFiles
from attar._src.search.plan import UNTOUCHED
from attar._src.search.searched_module import SearchedModule
from attar._src.search.step_times import SOLVING, begun_words

#: Why methods that train are left out where nothing was said of training.
NO_TRAINING = "trains; give train=(x, y)"
#: What a file takes before one was made, in times of that in floating point: sized by the integer program, rounded,
#: pruned.
_FIRST_SIZE, _FIRST_ROUNDED, _FIRST_PRUNED = 10, 2, 4
#: Times that what was timed may take the next time.
_SPARE = 1.2
#: Seconds that it takes to measure one file.
_MEASURING = 4.0
#: Targets where none is given: a part of the bytes of the file in floating point, and points.
_USUAL_BYTES, _USUAL_DROP = 1 / 8, 1.0


@dataclass
class Comparison:
    """Tunes the methods in order, then measures the files that stand for them.

    Attributes:
        of: the module.
        folder: of the files and the journal.
        maker: makes files without training.
        trained: makes files by training; None if nothing may be trained.
        methods: to compare.
        targets: to tune them to; those that are usual if empty.
        seconds: for all; None for as long as it takes.
        started: when the time began.
        say: called with a line on each file.
        tries: that were made.
        left_out: variant -> why it cannot be had here.
        skipped: what there was no time for.
    """

    of: SearchedModule
    folder: ComparisonFolder
    maker: PostTrainingFiles
    methods: Sequence[CompressionMethod]
    targets: list[EqualTarget]
    seconds: float | None
    started: float
    say: Callable[[str], None]
    trained: TrainedFiles | None = None
    tries: list[ComparisonTry] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _before: float = 0.0
    #: Why nothing is trained.
    _untrained: str = ""

    def run(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of ``compare.json``; ``facts`` are those of the module, its data and options.

        Raises:
            AttarError: another process compares in the folder.
        """
        with self.folder.alone():
            return self._compared(facts)

    def _compared(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        self.tries = self.folder.begin(facts)
        self._before = self.folder.spent()
        if said := self.folder.going_on(sum(not each.failed for each in self.tries)):
            self.say(said)
        try:
            with interruptible():
                if not self._own(UNTOUCHED, 0):
                    self._try(UNTOUCHED, Variant(), 0, 0.0)
                if not self.targets:
                    usual = round(_USUAL_BYTES * self._floating_bytes)
                    self.targets = [EqualTarget("bytes", usual), EqualTarget("drop", _USUAL_DROP)]
                for method in self.methods:
                    self._tune(method)
        except KeyboardInterrupt:
            if self._own(UNTOUCHED, 0) and self.targets:
                self._finish("interrupted; go on with resume", quick=True)
            raise
        ended = "the time was up for what was left to try" if self.skipped else "every method was tuned"
        return self._finish(ended)

    @property
    def _floating_bytes(self) -> int:
        size = self._own(UNTOUCHED, 0)[0].file_bytes
        assert size is not None
        return size

    def _own(self, method: str, variant: int | None = None) -> list[ComparisonTry]:
        return [each for each in self.tries if each.method == method and variant in (None, each.variant)]

    def _tune(self, method: CompressionMethod) -> None:
        for place, variant in enumerate(method.variants):
            if "labels" in variant.needs and not self.of.labelled:
                self.left_out[f"{method.name}, {variant.words()}"] = "needs labels; give the data as (x, y)"
                continue
            if "training" in variant.needs and not self._may_train():
                self.left_out[method.name] = self._untrained
                continue
            for target in self.targets:
                self._tune_to(target, method.name, variant, place)

    def _tune_to(self, target: EqualTarget, method: str, variant: Variant, place: int) -> None:
        while True:
            own = self._own(method, place)
            if any(each.hopeless for each in own):
                return
            strength = next_strength(
                variant.tuned,
                target,
                own,
                self._floating_bytes,
                trained=variant.train is not None,
                first=self._first(target, variant),
            )
            if strength is None:
                return
            if not self._fits(variant, own, strength):
                self.skipped.append(f"{method}, at {target.words(self._unit)}")
                return
            self._try(method, variant, place, strength)

    def _first(self, target: EqualTarget, variant: Variant) -> float | None:
        """Return the strength of a method without training whose file has the bytes that are sought."""
        known = target.best([each for each in self._own(variant.like) if not each.failed]) if variant.like else None
        if known is None or variant.tuned is None or variant.tuned.name not in known.options.get("prune", {}):
            return None
        return known.strength

    def _may_train(self) -> bool:
        """Prepare the training when it comes to it; return whether it is possible."""
        if self.trained is None:
            self._untrained = NO_TRAINING
        elif not self.trained.trainer.epochs and not self._untrained:
            left = None if self.seconds is None else self.seconds - self._spent()
            try:
                self.trained.trainer.decide(self.folder, left)
            except AttarError as error:
                self._untrained = str(error)
        return not self._untrained

    def _try(self, method: str, variant: Variant, place: int, strength: float) -> None:
        begun = time.monotonic()
        option = variant.tuned
        value = None if option is None else option.value(strength, self._floating_bytes)
        options = variant.options(value)
        fields: dict[str, Any] = {"method": method, "variant": place, "strength": strength}
        path = self.folder.file_of(method, place, value)
        told = self.maker.every_option(options)
        self._announce(_named(method, value), variant, self._own(method, place), strength)
        try:
            with self.folder.counting_cuts(_named(method, value)):
                if variant.train is None:
                    steps_saw = self.maker.save(options, path)
                else:
                    assert self.trained is not None
                    told["train"], steps_saw = self.trained.save(options["train"], path.stem, path)
                seen = self.of.seen(path)
            drop = self.of.judge.points(seen)
            if not math.isfinite(drop + (seen.worst_other or 0.0)):
                raise SpecError("its outputs are not finite on validation examples")
            fields |= {
                "file": path.relative_to(self.folder.path).as_posix(),
                "sha256": file_digest(path),
                "file_bytes": path.stat().st_size,
                "drop": round(drop, 6),
                "unit": self.of.judge.unit,
                "noise": self.of.noise(seen),
                "metric": seen.metric,
                "ruined": self.of.judge.ruins(seen),
                "others": seen.worst_other,
                "training_examples": steps_saw,
            }
        except AttarError as error:
            if method == UNTOUCHED:
                # All others are compared with it.
                raise
            # What is too strong for an option is another one's concern than what no strength can do.
            fields |= {"failed": str(error), "hopeless": option is None or isinstance(error, ModelError)}
        seconds = round(time.monotonic() - begun, 3)
        tried = ComparisonTry(**fields, options=told, seconds=seconds)
        self.tries.append(tried)
        self.folder.add(tried)
        self.say(self._line(tried, value))

    def _line(self, tried: ComparisonTry, value: float | None) -> str:
        name = _named(tried.method, value)
        left = "" if self.seconds is None else f", {clock(self.seconds - self._spent())} left"
        if tried.failed:
            return f"{name}: {tried.failed}{left}"
        return f"{name}: {tried.file_bytes:,} bytes, {tried.drop:.3g} {tried.unit} lost{left}"

    @property
    def _unit(self) -> str:
        return self._own(UNTOUCHED, 0)[0].unit

    def _spent(self) -> float:
        return self._before + time.monotonic() - self.started

    def _announce(self, name: str, variant: Variant, own: Sequence[ComparisonTry], strength: float) -> None:
        """Say of a file that will take long what it is, and about how long."""
        solving = _sized(variant) and not self.maker.solved(variant.options(None))
        expected = self._expected(variant, own, strength) if self._own(UNTOUCHED, 0) else 0.0
        if said := begun_words(name, expected, SOLVING if solving else ""):
            self.say(said)

    def _expected(self, variant: Variant, own: Sequence[ComparisonTry], strength: float) -> float:
        """Return the seconds that one more file of a variant may take, by those of it that are there."""
        times = _FIRST_SIZE if _sized(variant) else _FIRST_ROUNDED if variant.quantize else _FIRST_PRUNED
        first = times * self._own(UNTOUCHED, 0)[0].seconds
        if self.trained is not None and variant.train is not None and variant.tuned is not None:
            options = variant.options(variant.tuned.value(strength, self._floating_bytes))
            first = self.trained.expected(options["train"])
        return _SPARE * max((each.seconds for each in own), default=first)

    def _fits(self, variant: Variant, own: Sequence[ComparisonTry], strength: float) -> bool:
        """Return whether one more file is expected to be made, and all to be measured, in time."""
        if self.seconds is None:
            return True
        files = {each.file for target in self.targets for each in self._best(target).values() if each is not None}
        expected = self._expected(variant, own, strength)
        return self._spent() + expected + _MEASURING * (len(files) + 2) <= self.seconds

    def _best(self, target: EqualTarget) -> dict[str, ComparisonTry | None]:
        """Return method -> the file that stands for it."""
        return {
            each.name: target.best([one for one in self._own(each.name) if not one.failed]) for each in self.methods
        }

    def _finish(self, ended: str, *, quick: bool = False) -> dict[str, Any]:
        floating = self._own(UNTOUCHED, 0)[0]
        best = [self._best(target) for target in self.targets]
        names = list(dict.fromkeys(each.file for found in best for each in found.values() if each is not None))
        roughly = ", roughly" if quick else f": about {clock(_MEASURING * (len(names) + 1))}"
        self.say(f"times in turns and memory of {plural(len(names) + 1, 'file')}{roughly}")
        measured = measure_files(self.of, self.folder.path, [floating.file, *names], quick=quick)
        about = {
            "unit": self._unit,
            "calibration": self.of.inputs.examples,
            "validation": self.of.held.examples,
            "energy": measured.energy,
        }
        first = {**floating.model_dump(mode="json"), **measured.files[floating.file]}
        targets = []
        for target, found in zip(self.targets, best, strict=True):
            untried = "interrupted" if quick else "no time"
            rows = [self._row(target, name, each, measured, untried) for name, each in found.items()]
            told: dict[str, Any] = {"what": target.what, "most": target.most, "words": target.words(self._unit)}
            told |= {"rows": rows, "kept": self._kept()}
            recommended = next((row["method"] for row in equals(target.what, rows)), None)
            reached = recommended is not None or (target.what == "bytes" and target.holds(floating))
            answered = {"recommended": recommended, "reached": reached, "answer": answer(told, first, about)}
            targets.append({**told, **answered})
        result = {
            **about,
            "instructions": measured.instructions,
            "floating": first,
            "targets": targets,
            "ended": ended,
            "left_out": self.left_out,
            "skipped": list(dict.fromkeys(self.skipped)),
            "tries": [each.model_dump(mode="json") for each in self.tries],
        }
        self.folder.finish(result)
        return result

    def _kept(self) -> dict[str, Any] | None:
        """Return name, bytes and loss of the smallest file that is not ruined; None without one."""
        made = [each for each in self.tries if each.method != UNTOUCHED and not each.failed and not each.ruined]
        least = min(made, key=lambda each: each.file_bytes or 0, default=None)
        fields = ("method", "file_bytes", "drop")
        return None if least is None else {name: getattr(least, name) for name in fields}

    def _why_untried(self, target: EqualTarget, method: str, untried: str) -> str:
        """Return why no file of a method was made; ``untried`` if nothing spoke against it."""
        if target.what == "bytes" and self._floating_bytes <= target.most:
            return "not needed"
        left_out = [why for name, why in self.left_out.items() if name.partition(", prune")[0] == method]
        return left_out[0] if left_out else untried

    def _row(
        self, target: EqualTarget, method: str, best: ComparisonTry | None, measured: MeasuredFiles, untried: str
    ) -> dict[str, Any]:
        own = self._own(method)
        row: dict[str, Any] = {
            "method": method,
            "holds": best is not None,
            "why": target.why(best, own) if own else self._why_untried(target, method, untried),
            "nearest": target.nearest(own),
            "tries": len(own),
            "tuning_seconds": round(sum(each.seconds for each in own), 3),
        }
        if best is None:
            return row
        return {**row, **best.model_dump(mode="json"), **measured.files[best.file]}


def _named(method: str, value: float | None) -> str:
    """Return the name of a file: of its method, and the value of the option that is tuned."""
    return method if value is None else f"{method} at {value:,.6g}"


def _sized(variant: Variant) -> bool:
    """Return whether an integer program chooses bits, on solutions at all levels that are made first."""
    return variant.quantize is not None and "max_bytes" in variant.quantize
