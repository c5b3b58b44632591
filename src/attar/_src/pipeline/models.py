"""Work: the models of a run under one seed after another: trained, packed, written; what is done is not done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import filelock
from lightning_fabric import Fabric

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError
from attar._src.core.progress import track
from attar._src.deploy.dry_run import CAPTURED_IN_EVALUATION, DryRun
from attar._src.deploy.package import package
from attar._src.measure.metric import Metric
from attar._src.methods.teachers.cache import KnownTeacher, TeacherCache, build_cache
from attar._src.methods.teachers.teacher import CachedTeacher, deployed_teacher, live_teacher
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.fabric import log_epoch
from attar._src.pipeline.folder import RunFolder, file_digest
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.pipeline.stage_sequence import StageSequence
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path
from attar._src.recipe.teaching_order import students_of
from attar._src.runtime.session import Session
from attar._src.train.batch import Feed
from attar._src.train.feed import ArrayFeed
from attar._src.train.seeds import derive_seed
from attar._src.train.store import CheckpointStore
from attar._src.work.compressed_model import CalibrationInputs, CompressedModel
from attar._src.work.context import Teacher, TrainingContext
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


@dataclass
class RunModels:
    """What a run works with, and where it is.

    Attributes:
        recipe: with everything decided.
        sets, calibration: the data.
        origins: every model by name.
        rehearsed: those that are modules, captured.
        metric: its name and itself.
        folder: the run's.
        fabric: launched.
        seed: the one that is worked under.
        learners: the models of this seed that are worked or loaded.
    """

    recipe: Recipe
    sets: DataSplits
    origins: Mapping[str, ModelSource]
    rehearsed: Mapping[str, DryRun]
    calibration: CalibrationInputs
    metric: tuple[str, Metric]
    folder: RunFolder
    fabric: Fabric
    seed: int = 0
    learners: dict[str, Learner] = field(default_factory=dict)

    def begin(self, seed: int) -> None:
        """Go on with another seed."""
        self.seed, self.learners = seed, {}

    def model(self, name: str) -> None:
        """Do every stage of a model and write its file, unless that is done and nobody learns from it any more."""
        origin = self.origins[name]
        if origin.session is not None:
            if self.folder.first:
                write_atomically(
                    self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar", origin.path.read_bytes()
                )
            return
        if self._packed(name) and all(self._packed(other) for other in students_of(self.recipe.stages, name)):
            return
        origin.begin(self.seed)
        rehearsed = self.rehearsed[name]
        assert origin.module is not None
        model = self.recipe.models[name]
        learner = self.learners[name] = Learner(
            origin.module,
            rehearsed.captured,
            rehearsed.traced,
            use=self.sets.use_of(model.licence),
            coder=self.recipe.coder,
        )
        sequence = StageSequence(learner, model.stages)
        ships = self.folder.first and not self._packed(name)
        trained = max((i for i, stage in enumerate(model.stages) if stage.works_on is Learner), default=-1)
        for index in range(len(model.stages) if ships else trained + 1):
            self._run_stage(name, index, sequence)
        if ships:
            self._pack(name, sequence.compressed())

    def _run_stage(self, name: str, index: int, sequence: StageSequence) -> None:
        stage = self.recipe.models[name].stages[index]
        journal, where = self.folder.journal, {"seed": self.seed, "model": name, "index": index, "stage": stage.stage}
        store = self.folder.store(self.seed, name, index, stage.stage.rpartition(":")[2])
        self._catch_up(store, where)
        if not journal.find("begun", **where):
            journal.add("begun", **where)
        context = self._context(name, index, stage, store, where)
        if stage.works_on is CompressedModel:
            context = replace(context, calibration=self.calibration.of(self.origins[name].parameters))
        sequence.apply(index, lambda model: stage.run(model, context))
        if not journal.find("done", **where):
            journal.add("done", **where)

    def _context(
        self, name: str, index: int, stage: Stage, store: CheckpointStore, where: Mapping[str, Any]
    ) -> TrainingContext:
        seed, parameters = derive_seed(self.seed, "stage", name, index), shared_parameters(self.origins)
        draw = partial(
            self.sets.feed,
            self.sets.train,
            parameters,
            seed=seed,
            augment=True,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        teachers: dict[str, Teacher] = {taught: self._teacher(taught) for taught in stage.teachers()}
        kept = [taught for taught in teachers if taught in self.recipe.teacher_cache]
        caches = {taught: self._cache(taught, teachers[taught], draw()) for taught in kept}
        teachers |= {taught: CachedTeacher(cache, teachers[taught]) for taught, cache in caches.items()}

        def feed(batch: int) -> Feed:
            made = draw(batch=batch)
            for cache in caches.values():
                assert isinstance(made, ArrayFeed)
                made = cache.limit(made)
            return made

        held = self.sets.validation
        return TrainingContext(
            fabric=self.fabric,
            feed=feed,
            validation=None if held is None else self.sets.feed(held, parameters, seed=seed),
            metric=self.metric[1],
            metric_name=self.metric[0],
            teachers=teachers,
            calibration=self.calibration,
            seed=seed,
            store=store,
            log=partial(self._log, where),
        )

    def _teacher(self, name: str) -> KnownTeacher:
        session = self.origins[name].session
        if session is None and self.recipe.models[name].ends_compressed:
            # It has no program after its last stage: its file teaches, which the first rank wrote.
            self.fabric.barrier()
            path = self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar"
            session = Session(path, threads=self.recipe.threads)
        return deployed_teacher(session) if session is not None else live_teacher(self.learners[name], self.fabric)

    def _cache(self, name: str, teacher: Any, feed: Any) -> TeacherCache:
        """Return the cache of a teacher, which the first rank makes where it is not there.

        Raises:
            AttarError: its folder cannot be written.
        """
        given, caches = self.recipe.teacher_cache[name], self.recipe.teacher_cache.values()
        path = self.folder.state / "teacher_cache" / f"seed-{self.seed}" / f"{name}.safetensors"
        if given.file is not None:
            path = self.recipe.folder / expand_path(given.file)
        # One seed for all: students of several caches see variants that all of them have. A file serves every seed of
        # this run and other runs, so where one cache has a file, none of them is drawn by the run's own seed.
        seed = 0 if any(cache.file is not None for cache in caches) else self.seed
        make = partial(build_cache, teacher, feed, path, variants=given.variants, seed=seed)
        if self.folder.first:
            # Another run may be making it.
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                alone = filelock.FileLock(path.with_name(f".{path.name}.lock"))
                for _ in track(_tries(alone), f"waiting for another run, which makes {path.name}"):
                    pass
            except OSError as error:
                raise AttarError(
                    f"recipe.teacher_cache.{name}: the folder {path.parent} cannot be written ({error.strerror}); give "
                    f"permission, or name a file in another folder as teacher_cache.{name}.file"
                ) from error
            try:
                make()
            finally:
                alone.release()
        self.fabric.barrier()
        return make()

    def _log(self, where: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        self.folder.journal.add("epoch", **where, **row)
        log_epoch(self.fabric, {**where, **row})

    def _catch_up(self, store: CheckpointStore, where: Mapping[str, Any]) -> None:
        """Journal the epochs that were checkpointed just before the run was killed."""
        checkpoint = store.latest() if self.folder.first else None
        known = len(self.folder.journal.find("epoch", **where))
        for row in [] if checkpoint is None else checkpoint.facts["history"][known:]:
            self._log(where, row)

    def _packed(self, name: str) -> bool:
        """Return whether a model's file was written and is what it was."""
        rows = self.folder.journal.find("packed", seed=self.seed, model=name)
        path = self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar"
        return bool(rows) and path.is_file() and file_digest(path) == rows[-1]["sha256"]

    def _pack(self, name: str, compressed: CompressedModel) -> None:
        model, dry_run = self.recipe.models[name], self.rehearsed[name]
        report = package(
            compressed,
            self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar",
            self.sets.use_of(model.licence),
            self.calibration.of(self.origins[name].parameters),
            coder=self.recipe.coder,
            dry_run=dry_run.parity,
            notes={"training": CAPTURED_IN_EVALUATION} if dry_run.mode == "eval" else {},
            budget=next((each for stage in reversed(model.stages) if (each := stage.size_budget()) is not None), None),
        )
        self.folder.journal.add(
            "packed",
            seed=self.seed,
            model=name,
            sha256=report["sha256"],
            left=report["left_in_floating_point"] | report["notes"],
            record=[dict(stage) for stage in compressed.record],
        )


def _tries(lock: filelock.FileLock) -> Iterator[None]:
    """Take a lock; yield each time that another has had it for half a second more."""
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout:
            yield
