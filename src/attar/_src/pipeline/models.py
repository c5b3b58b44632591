"""Work: the models of a run under one seed after another: trained, packed, written; what is done is not done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import filelock
from lightning_fabric import Fabric

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError
from attar._src.core.progress import track
from attar._src.core.tensors import Codebook, Quantized
from attar._src.deploy.dry_run import CAPTURED_IN_EVALUATION, DryRun
from attar._src.deploy.package import package
from attar._src.measure.metric import Metric
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.teachers.cache import KnownTeacher, TeacherCache, build_cache
from attar._src.methods.teachers.teacher import CachedTeacher, deployed_teacher, live_teacher
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.fabric import log_epoch
from attar._src.pipeline.folder import RunFolder, file_digest
from attar._src.pipeline.model_source import ModelSource, shared_parameters
from attar._src.recipe.check import taught_by
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path
from attar._src.runtime.session import Session
from attar._src.train.batch import Feed
from attar._src.train.feed import ArrayFeed
from attar._src.train.seeds import derive_seed
from attar._src.train.store import CheckpointStore
from attar._src.work.compressed_model import CalibrationInputs
from attar._src.work.context import Context, Teacher, Training
from attar._src.work.learner import Learner


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
        if self._packed(name) and all(self._packed(other) for other in self._pupils(name)):
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
        stages = model.stages
        for index, stage in enumerate(stages):
            if not isinstance(stage, PostTrainingQuantize):
                self._train(name, index, learner)
        if self.folder.first and not self._packed(name):
            self._pack(
                name, learner, next((stage for stage in stages if isinstance(stage, PostTrainingQuantize)), None)
            )

    def _train(self, name: str, index: int, learner: Learner) -> None:
        stage: Any = self.recipe.models[name].stages[index]
        journal, where = self.folder.journal, {"seed": self.seed, "model": name, "index": index, "stage": stage.stage}
        store = self.folder.store(self.seed, name, index, stage.stage.rpartition(":")[2])
        self._catch_up(store, where)
        if not journal.find("begun", **where):
            journal.add("begun", **where)
        stage.run(learner, self._context(name, index, stage, store, where))
        if not journal.find("done", **where):
            journal.add("done", **where)

    def _context(self, name: str, index: int, stage: Any, store: CheckpointStore, where: Mapping[str, Any]) -> Context:
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
        teachers: dict[str, Teacher] = {taught: self._teacher(taught) for taught in taught_by(stage)}
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
        return Context(
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
        if session is None and any(
            isinstance(stage, PostTrainingQuantize) for stage in self.recipe.models[name].stages
        ):
            # It was rounded on its way into the file: what is shipped is what teaches. The first rank wrote it.
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

    def _pupils(self, name: str) -> list[str]:
        """Return the models that learn from this one, and those that learn from them."""
        found = [
            other
            for other, model in self.recipe.models.items()
            if any(name in taught_by(each) for each in model.stages)
        ]
        return [*found, *(pupil for other in found for pupil in self._pupils(other))]

    def _packed(self, name: str) -> bool:
        """Return whether a model's file was written and is what it was."""
        rows = self.folder.journal.find("packed", seed=self.seed, model=name)
        path = self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar"
        return bool(rows) and path.is_file() and file_digest(path) == rows[-1]["sha256"]

    def _pack(self, name: str, learner: Learner, after: PostTrainingQuantize | None) -> None:
        model, piece = self.recipe.models[name], learner.deployed()
        calibration = self.calibration.of(self.origins[name].parameters)
        left = {key: why for constraint in learner.constraints for key, why in constraint.left.items()}
        if after is not None:
            piece = after.run(piece, calibration)
            left |= after.left(piece)
        # What one rule left alone another may have held.
        coded = {key for key, tensor in piece.tensors.items() if isinstance(tensor, Quantized | Codebook)}
        left = {key: why for key, why in left.items() if key not in coded}
        if self.rehearsed[name].mode == "eval":
            left["training"] = CAPTURED_IN_EVALUATION
        report = package(
            piece,
            self.folder.files(self.seed, self.recipe.seeds[0]) / f"{name}.attar",
            self.sets.use_of(model.licence),
            calibration,
            coder=self.recipe.coder,
            dry_run=self.rehearsed[name].parity,
            left=left,
            budget=next((stage.budget() for stage in reversed(model.stages) if isinstance(stage, Training)), None),
        )
        record = [dict(stage) for stage in piece.record]
        self.folder.journal.add("packed", seed=self.seed, model=name, sha256=report["sha256"], left=left, record=record)


def _tries(lock: filelock.FileLock) -> Iterator[None]:
    """Take a lock; yield each time that another has had it for half a second more."""
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout:
            yield
