"""Trained files: each is a recipe, run in a folder of its own below that of the search."""

from __future__ import annotations

import copy
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import SpecError
from attar._src.core.spec import build_spec
from attar._src.pipeline.execution.preparation import Preparation, prepare_run
from attar._src.recipe.parts import DataSpec
from attar._src.recipe.recipe import Recipe
from attar._src.search.search_folder import TRIALS, JournaledFolder
from attar._src.search.training.next_trained import Target, TrainedStep
from attar._src.search.training.parts import TrainingParts
from attar._src.search.training.registry import TRAINED_WAYS
from attar._src.search.training.student_facts import StudentFacts
from attar._src.search.training.way import ITSELF, STUDENT, TEACHER, Stages, TrainingTarget
from attar._src.search.trial import run_trial
from attar._src.train.augment import Finite
from attar._src.work.size_budget import BudgetError

#: Outputs of the teacher for at most so many augmented forms of each example, computed once, and the share of the time
#: of a search that they may take.
_VARIANTS, _TEACHING = 8, 0.1
_TEACHER_OUTPUTS = "teacher.safetensors"
#: The last that is decided of all trainings.
_DECIDED_EPOCHS = "epochs of a training"
#: Epochs of a whole training: of many examples, and of few.
_EPOCHS, _MANY, _EPOCHS_OF_FEW = 20, 20_000, 30
_FEWEST_EPOCHS = 3
#: Whole trainings that a search takes, about, and those that it makes time for by fewer epochs: with less of them no
#: size could be tried after one that did not hold.
_TRAININGS, _LEAST_TRAININGS = 9, 4
#: Time of a step on grids over that of a plain one, and seconds of checks and packing.
_ON_GRIDS, _AROUND = 2.0, 10.0
#: Share of the epochs of a whole training with which a last one is worth its time.
_WORTH = 0.4
#: Spare time over what was expected.
_SPARE = 1.15


@dataclass
class Trainer:
    """Makes trained files.

    Attributes:
        parts: data and models of the recipes.
        fields: further fields of every recipe: metric, classes, task, axes.
        folder: of the search.
        licence: of the files.
        keep: globs of layers that stay in floating point.
        activations: bits of what layers read; None for floating point.
        epochs: of a whole training; 0 until :meth:`decide`.
        precision, layout: of all trainings, as of a recipe; those that train fastest after :meth:`decide`.
        others: whether the module has outputs beside the main one, which are learned from the module itself: a teacher
            may not have them, and a cache of its outputs does not.
        variants: of each example, whose outputs of the teacher are computed once, where augmentation makes more.
    """

    parts: TrainingParts
    fields: Mapping[str, Any]
    folder: Path
    licence: str | None = None
    keep: tuple[str, ...] = ()
    activations: int | None = None
    epochs: int = 0
    precision: str = "32-true"
    layout: str = "contiguous"
    others: bool = False
    variants: int = _VARIANTS
    _prepared: Preparation | None = field(default=None, init=False)
    _facts: StudentFacts | None = field(default=None, init=False)
    _untouched: nn.Module | None = field(default=None, init=False)
    _taught: float = field(default=0.0, init=False)
    _slower: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def facts(self) -> StudentFacts:
        """What is known of the module and its examples, measured once.

        Raises:
            AttarError: what is there cannot be trained; the message has the reason.
        """
        if self._facts is None:
            self._prepared = prepare_run(self.recipe([]))
            self._facts = StudentFacts.of(self._prepared, STUDENT, TEACHER)
        return self._facts

    def decide(self, folder: JournaledFolder, seconds: float | None) -> None:
        """Decide what all trainings have in common: precision, memory layout, and epochs that fit into a time.

        Args:
            folder: whose journal keeps what is decided.
            seconds: that are left, if there is a limit.

        Raises:
            AttarError: what is there cannot be trained.
        """
        facts = self.facts
        # Epochs alone are of a search of before there was a choice: its trainings and outputs go on with no others.
        plain = folder.decided(_DECIDED_EPOCHS) is not None
        fastest = folder.decide(
            "precision and layout of trainings",
            lambda: [self.precision, self.layout] if plain else [facts.precision, facts.layout],
        )
        self.variants = folder.decide(
            "variants of an example", lambda: _VARIANTS if plain else self._affordable_variants(seconds)
        )
        self.epochs = folder.decide(_DECIDED_EPOCHS, lambda: self.choose_epochs(seconds))
        if [self.precision, self.layout] != fastest:
            self.precision, self.layout = fastest
            # Modules of another layout serve no run.
            self._prepared = None

    def choose_epochs(self, seconds: float | None) -> int:
        """Return the epochs of a whole training, so that several trainings fit into a time, if there is one.

        In much time a search takes nine trainings of up to twice the usual epochs; in less, fewer trainings, and only
        below four of them with fewer epochs than usual.
        """
        if self.parts.epochs is not None:
            return self.parts.epochs
        usual = _EPOCHS if self.facts.examples >= _MANY else _EPOCHS_OF_FEW
        if seconds is None:
            return usual
        of_one = max(_ON_GRIDS * self.facts.step_seconds * self.facts.steps, 1e-9)
        trainings = min(max(seconds / (_AROUND + usual * of_one), _LEAST_TRAININGS), _TRAININGS)
        fitting = math.floor((seconds / trainings - _AROUND) / of_one)
        return max(min(fitting, 2 * usual), _FEWEST_EPOCHS)

    def _affordable_variants(self, seconds: float | None) -> int:
        of_one = self.facts.steps * self.facts.output_seconds
        if seconds is None or of_one <= 0:
            return _VARIANTS
        return min(max(math.floor(_TEACHING * seconds / of_one), 1), _VARIANTS)

    def epochs_within(self, step: TrainedStep, seconds: float) -> int | None:
        """Return with how many epochs a step ends in a time; None if these are too few to be worth it."""
        around = self.expected(replace(step, epochs=0))
        of_one = (self.expected(replace(step, epochs=self.epochs)) - around) / max(self.epochs, 1)
        fitting = math.floor((seconds - around) / max(of_one, 1e-9))
        least = max(_FEWEST_EPOCHS, math.ceil(_WORTH * self.epochs))
        return fitting if fitting >= least else None

    def stages(self, step: TrainedStep) -> Stages | None:
        """Return the stages of a step, None if its way does not apply."""
        return TRAINED_WAYS[step.way].stages(self.target(step.target, step.epochs))

    def target(self, target: Target, epochs: int | None = None) -> TrainingTarget:
        """Return a target with what is known of the module and its examples; ``epochs`` for a shorter training."""
        size, facts = target.get("max_bytes"), self.facts
        return TrainingTarget(
            max_bytes=None if size is None else int(size),
            macs=target.get("macs"),
            weights=facts.weights,
            vectors=facts.vectors,
            channels=facts.channels,
            layers=facts.layers,
            epochs=self.epochs if epochs is None else epochs,
            batch=facts.batch,
            optimizer=facts.optimizer,
            activations=self.activations,
            labels=facts.labels,
            keep=self.keep,
            others=self._teacher_of_others,
        )

    def ranked(self, target: Target) -> list[str]:
        """Return the ways that have stages for a target, the likeliest to hold first."""
        known = self.target(target)
        ways = [way for way in TRAINED_WAYS.values() if way.stages(known) is not None]
        return [way.name for way in sorted(ways, key=lambda way: not way.suits(known))]

    def expected(self, step: TrainedStep) -> float:
        """Return the seconds that a step may take, by those before it."""
        known = self._slower.get(step.way, max(self._slower.values(), default=1.0))
        return _SPARE * known * self.plain_seconds(self.stages(step) or []) + self._teacher_seconds()

    def took(self, way: str, stages: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """Count what a step took."""
        seconds = max(seconds - self._taught, seconds / 2)
        self._taught = 0.0
        self._slower[way] = max(self._slower.get(way, 0.0), seconds / self.plain_seconds(stages))

    def _teacher_seconds(self) -> float:
        """Return the seconds that outputs of the teacher are going to take once, for all trainings."""
        if not self.facts.output_seconds or (self.folder / _TEACHER_OUTPUTS).exists():
            return 0.0
        return self._kept_variants * self.facts.steps * self.facts.output_seconds

    @property
    def _kept_variants(self) -> int:
        """Of each example, whose outputs of the teacher are kept; 0 where the teacher is asked at each step."""
        asked = self._teacher_of_others == TEACHER
        return 0 if asked else min(_variants(self.parts.data) or 0, self.variants)

    @property
    def _teacher_of_others(self) -> str:
        return "" if not self.others else TEACHER if self.parts.teacher is None else ITSELF

    def plain_seconds(self, stages: Sequence[Mapping[str, Any]]) -> float:
        """Return the seconds of stages by the time of a plain step of the whole module.

        Outputs of the teacher that the first training computes for all are not among them: :meth:`expected` adds them.
        """
        epochs = sum(each.get("epochs", 0) * (_ON_GRIDS if each["stage"] == "compress" else 1) for each in stages)
        return _AROUND + float(epochs) * self.facts.steps * self.facts.step_seconds

    def make(self, step: TrainedStep, path: Path) -> tuple[str, Stages]:
        """Train and pack the file of a step.

        Returns:
            The path of the recipe that makes it again, below the folder of the search, and its stages.

        Raises:
            AttarError: as :func:`attar.run`.
        """
        stages = self.stages(step) or []
        return self.run(stages, step.name, path), stages

    def run(self, stages: Stages, name: str, path: Path) -> str:
        """Train and pack the file of these stages of the student; return the path of the recipe, as :meth:`make`."""
        name = re.sub(r"[^0-9a-z]+", "-", name.lower()).strip("-")
        folder, self._taught = self.folder / TRIALS / name, self._teacher_seconds()
        self._prepared = self._prepared or prepare_run(self.recipe([]))
        try:
            outcome = run_trial(self.recipe(stages), folder, model=STUDENT, prepared=self._prepared)
        except SpecError as error:
            # Whoever asked for a size wrote no recipe, so that the fix in a recipe is none here.
            if small := _too_small(error):
                raise SpecError(f"no file is so small this way: {small}") from error
            raise
        write_atomically(path, (folder / outcome.file).read_bytes())
        # Checkpoints serve to go on with a training, and this one is over.
        shutil.rmtree(folder / "state", ignore_errors=True)
        return f"{TRIALS}/{name}/recipe.yaml"

    def recipe(self, stages: Sequence[Mapping[str, Any]]) -> Recipe:
        """Return the recipe with these stages of the student."""
        models = {
            TEACHER: {"source": self._teacher_source()},
            STUDENT: {"source": dict(self.parts.model), "stages": list(stages), "licence": self.licence},
        }
        if self._teacher_of_others == ITSELF:
            models[ITSELF] = {"source": self._untouched_source()}
        kept = self._kept_variants
        cache = {TEACHER: {"variants": kept, "file": str(self.folder / _TEACHER_OUTPUTS)}} if kept and stages else {}
        made: Recipe = build_spec(
            Recipe,
            where="recipe",
            data=dict(self.parts.data),
            models=models,
            teacher_cache=cache,
            threads=torch.get_num_threads(),
            precision=self.precision,
            layout=self.layout,
            baseline=TEACHER,
            **self.fields,
        )
        return made

    def described(self) -> dict[str, Any]:
        """Return what all trainings have in common, as JSON values: a search goes on with the same alone."""
        return {**self.recipe([]).described(), "epochs": self.parts.epochs}

    def _teacher_source(self) -> dict[str, Any]:
        return self._untouched_source() if self.parts.teacher is None else dict(self.parts.teacher)

    def _untouched_source(self) -> dict[str, Any]:
        """Return the source of the module as it was given: what is trained is that module itself."""
        source = dict(self.parts.model)
        if isinstance(source["factory"], nn.Module):
            self._untouched = self._untouched or copy.deepcopy(source["factory"])
            source["factory"] = self._untouched
        return source


def _too_small(error: BaseException | None) -> str:
    """Return what a budget left nothing for, if that caused an error; else nothing."""
    while error is not None and not isinstance(error, BudgetError):
        error = error.__cause__
    return "" if error is None else error.facts


def _variants(data: Mapping[str, Any]) -> int | None:
    """Return the number of forms that augmentation makes of an example, None if they are endless."""
    augment = build_spec(DataSpec, where="data", **data).augment
    if not all(isinstance(each, Finite) for each in augment):
        return None
    return math.prod(each.variants for each in augment if isinstance(each, Finite))
