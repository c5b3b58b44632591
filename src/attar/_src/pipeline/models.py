"""The models of a run, trained and packed under one seed after another; finished work is not repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import filelock
from lightning_fabric import Fabric

from attar._src.artifact.writer import write_atomically
from attar._src.core.digest import file_digest
from attar._src.core.errors import AttarError, DataError, ModelError, SpecError
from attar._src.core.progress import track
from attar._src.deploy.dry_run import DryRun
from attar._src.deploy.fidelity import ComparedExamples, Floating
from attar._src.deploy.package import package
from attar._src.deploy.parity import EXAMPLES
from attar._src.measure.metric import Metric
from attar._src.methods.teachers.cache import KnownTeacher, TeacherCache, build_cache
from attar._src.methods.teachers.teacher import CachedTeacher, DeployedTeacher, live_teacher
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.fabric import log_epoch
from attar._src.pipeline.floating import compared_examples, compression_start, floating_before
from attar._src.pipeline.folder import RunFolder
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.pipeline.stage_sequence import StageSequence
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path
from attar._src.recipe.teaching_order import students_of
from attar._src.runtime.session import Session
from attar._src.train.feed import ArrayFeed, LoaderFeed
from attar._src.train.seeds import derive_seed
from attar._src.train.store import CheckpointStore
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import MAIN, CompressedModel
from attar._src.work.context import JudgedExamples, Teacher, TrainingContext
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage

#: Validation examples at most on which a stage measures what a file loses.
JUDGED = 2000


@dataclass
class RunModels:
    """The inputs and the state of a run's training; mappings are by name of a model.

    Attributes:
        recipe: without ``auto`` fields.
        dry_runs: those of modules; files have none.
        metric: name and function.
        fabric: already launched.
        foreseen: warnings from the trial of the stages.
        seed: the current seed.
        learners: models of this seed that are trained or restored.
    """

    recipe: Recipe
    splits: DataSplits
    sources: Mapping[str, ModelSource]
    dry_runs: Mapping[str, DryRun]
    calibration: CalibrationInputs
    metric: tuple[str, Metric]
    folder: RunFolder
    fabric: Fabric
    foreseen: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    learners: dict[str, Learner] = field(default_factory=dict)

    def run_seed(self, seed: int) -> None:
        """Run every model under a seed, teachers first."""
        self.seed, self.learners = seed, {}
        for name in self.recipe.order:
            self._run_model(name)

    def _run_model(self, name: str) -> None:
        """Run all stages of a model and write its file; does nothing if it and its students are packed."""
        source = self.sources[name]
        if source.session is not None:
            if self.folder.first:
                write_atomically(self._path(name), source.path.read_bytes())
            return
        if self._packed(name) and all(self._packed(other) for other in students_of(self.recipe.models, name)):
            return
        source.begin(self.seed)
        dry_run, model = self.dry_runs[name], self.recipe.models[name]
        assert source.module is not None
        learner = self.learners[name] = Learner(
            source.module,
            dry_run.captured,
            dry_run.traced,
            use=replace(self.splits.use, licence=model.licence),
            coder=self.recipe.coder,
        )
        if name in self.foreseen:
            learner.warn(self.foreseen[name])
        sequence = StageSequence(learner, model.stages)
        packs = self.folder.first and not self._packed(name)
        trained = max((i for i, stage in enumerate(model.stages) if stage.works_on is Learner), default=-1)
        examples, floating = self._examples(name) if packs else None, None
        start = compression_start(model.stages)
        for index in range(len(model.stages) if packs else trained + 1):
            if examples is not None and index == start:
                floating = floating_before(learner, model.stages, index, examples)
            self._run_stage(name, index, sequence)
        if examples is not None:
            self._pack(name, sequence.compressed(), examples, floating)

    def _examples(self, name: str, most: int = EXAMPLES) -> ComparedExamples:
        """Return the examples on which a file is compared with its floating-point model."""
        held_out, parameters = self.splits.validation, shared_parameters(self.sources)
        feed = None if held_out is None else self.splits.feed(held_out, parameters, seed=self.seed)
        return compared_examples(
            self.sources[name], feed, self.calibration, self.metric, self.recipe.class_layout, most
        )

    def _path(self, name: str) -> Path:
        return self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar"

    def _run_stage(self, name: str, index: int, sequence: StageSequence) -> None:
        stage = self.recipe.models[name].stages[index]
        where = {"seed": self.seed, "model": name, "index": index, "stage": stage.stage}
        store = self.folder.store(self.seed, name, index, stage.stage.rpartition(":")[2])
        self._catch_up(store, where)
        self._journal_once("begun", where)
        context = self._context(stage, store, where)
        with _stopped_at(f"recipe.models.{name}.stages.{index}"):
            sequence.apply(index, lambda stage, model: stage.run(model, context))
        self._journal_once("done", where)

    def _journal_once(self, event: str, where: Mapping[str, Any]) -> None:
        if not self.folder.journal.find(event, **where):
            self.folder.journal.add(event, **where)

    def _context(self, stage: Stage, store: CheckpointStore, where: Mapping[str, Any]) -> TrainingContext:
        name, seed = where["model"], derive_seed(self.seed, "stage", where["model"], where["index"])
        teachers: dict[str, Teacher] = {teacher: self._teacher(teacher) for teacher in stage.teachers()}
        cached = [teacher for teacher in teachers if teacher in self.recipe.teacher_cache]
        caches = {teacher: self._cache(teacher, teachers[teacher], self._feed(seed)) for teacher in cached}
        calibration, held_out, parameters = self.calibration, self.splits.validation, shared_parameters(self.sources)
        judged = JudgedExamples(None, self.metric, self.recipe.class_layout, given=True)
        if stage.works_on is CompressedModel:
            calibration = calibration.of(self.sources[name].parameters)
            judged = replace(judged, inputs=None if held_out is None else self._examples(name, JUDGED).with_targets())
        return TrainingContext(
            fabric=self.fabric,
            feed=partial(self._feed, seed, caches=tuple(caches.values())),
            validation=None if held_out is None else self.splits.feed(held_out, parameters, seed=seed),
            metric=self.metric[1],
            metric_name=self.metric[0],
            teachers=teachers | {teacher: CachedTeacher(cache, teachers[teacher]) for teacher, cache in caches.items()},
            calibration=calibration,
            seed=seed,
            use=replace(self.splits.use, licence=self.recipe.models[name].licence),
            coder=self.recipe.coder,
            judged=judged,
            store=store,
            log=partial(self._log, where),
            layout=self.recipe.class_layout,
        )

    def _feed(self, seed: int, batch: int = 256, caches: Sequence[TeacherCache] = ()) -> ArrayFeed | LoaderFeed:
        feed = self.splits.feed(
            self.splits.train,
            shared_parameters(self.sources),
            batch=batch,
            seed=seed,
            augment=True,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        for cache in caches:
            assert isinstance(feed, ArrayFeed)
            feed = cache.limit(feed)
        return feed

    def _teacher(self, name: str) -> KnownTeacher:
        session = self.sources[name].session
        if session is None and self.recipe.models[name].ends_compressed:
            # Without a program after its last stage, the model teaches by its file, which the first rank wrote.
            self.fabric.barrier()
            session = Session(self._path(name), threads=self.recipe.threads)
        return DeployedTeacher(session) if session is not None else live_teacher(self.learners[name], self.fabric)

    def _cache(self, name: str, teacher: Any, feed: Any) -> TeacherCache:
        """Return the cache of a teacher; the first rank builds it if it does not exist."""
        spec, caches = self.recipe.teacher_cache[name], self.recipe.teacher_cache.values()
        path = self.folder.state / "teacher_cache" / f"seed-{self.seed}" / f"{name}.safetensors"
        if spec.file is not None:
            path = self.recipe.folder / expand_path(spec.file)
        # All caches need the same seed, as a student of several sees variants that all of them have. A cache with a
        # file serves all seeds and other runs, so if one has a file, none depends on the run's seed.
        seed = 0 if any(cache.file is not None for cache in caches) else self.seed
        build = partial(build_cache, teacher, feed, path, variants=spec.variants, seed=seed)
        if self.folder.first:
            # Another run may be building it.
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
                for _ in track(_tries(lock), f"waiting for another run, which makes {path.name}"):
                    pass
            except OSError as error:
                raise AttarError(
                    f"recipe.teacher_cache.{name}: the folder {path.parent} cannot be written ({error.strerror}); "
                    f"grant permission, or set teacher_cache.{name}.file to a file in another folder"
                ) from error
            try:
                build()
            finally:
                lock.release()
        self.fabric.barrier()
        return build()

    def _notes(self, name: str) -> dict[str, str]:
        """Return what was done to a module and its data to make them fit, by topic."""
        evaluated = [note] if (note := self.dry_runs[name].note) else []
        said = {"training": evaluated, "module": self.sources[name].notes, "data": self.calibration.notes}
        return {topic: "; ".join(sentences) for topic, sentences in said.items() if sentences}

    def _log(self, where: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        self.folder.journal.add("epoch", **where, **row)
        log_epoch(self.fabric, {**where, **row})

    def _catch_up(self, store: CheckpointStore, where: Mapping[str, Any]) -> None:
        """Journal epochs that were checkpointed but not journaled when the run was killed."""
        checkpoint = store.latest() if self.folder.first else None
        known = len(self.folder.journal.find("epoch", **where))
        for row in [] if checkpoint is None else checkpoint.facts["history"][known:]:
            self._log(where, row)

    def _packed(self, name: str) -> bool:
        """Return whether the model's file exists and is unchanged since it was written."""
        rows, path = self.folder.journal.find("packed", seed=self.seed, model=name), self._path(name)
        return bool(rows) and path.is_file() and file_digest(path) == rows[-1]["sha256"]

    def _pack(
        self, name: str, compressed: CompressedModel, examples: ComparedExamples, floating: Floating | None
    ) -> None:
        stages, dry_run = self.recipe.models[name].stages, self.dry_runs[name]
        report = package(
            compressed,
            self._path(name),
            self.learners[name].use,
            self.calibration.of(self.sources[name].parameters),
            coder=self.recipe.coder,
            dry_run=dry_run.parity,
            floating={} if floating is None else {MAIN: floating},
            examples=examples,
            tolerance=self.recipe.tolerance,
            notes=self._notes(name),
            budget=next((each for stage in reversed(stages) if (each := stage.size_budget()) is not None), None),
        )
        self.folder.journal.add(
            "packed",
            seed=self.seed,
            model=name,
            sha256=report["sha256"],
            left_in_floating_point=report["left_in_floating_point"],
            warnings=report["warnings"],
            fidelity=report["fidelity"],
            notes=report["notes"],
            record=[dict(stage) for stage in compressed.record],
        )


@contextmanager
def _stopped_at(where: str) -> Iterator[None]:
    """Prefix the message of an AttarError with the path of the stage in the recipe; its class stays."""
    try:
        yield
    except AttarError as error:
        kind = next((each for each in (DataError, ModelError, SpecError) if isinstance(error, each)), AttarError)
        raise kind(f"{where}: {error}") from error


def _tries(lock: filelock.FileLock) -> Iterator[None]:
    """Acquire a lock; yield after every half second that another process holds it."""
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout:
            yield
