"""Recipe: named models with their sources and stages, the data, the seeds; what :func:`attar.run` takes.

Every part checks itself, and the recipe checks how its parts fit together, before any compute.
"""

from __future__ import annotations

import re
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.registry import references_from
from attar._src.core.spec import Spec, explain, refused, refusing_at
from attar._src.measure.metric import METRICS
from attar._src.recipe.parts import DataSpec, ModelSpec, TeacherCacheSpec, registered_word
from attar._src.recipe.reference import Reference, expand_path, object_paths, to_json
from attar._src.recipe.teaching_order import teaching_order
from attar._src.recipe.yaml_text import apply_overrides, parse_yaml
from attar._src.work.stage import Stage

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _different(given: tuple[int, ...]) -> tuple[int, ...]:
    if not given or len(set(given)) != len(given):
        raise refused(f"{list(given)} should be different numbers, one at least")
    return given


def _with_batch_axis(given: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(given)) != len(given):
        raise refused(f"{list(given)} should be different numbers")
    if 0 not in given:
        raise refused(f"{list(given)} leaves out 0, the batch, which varies in training")
    return given


def _named_models(given: dict[str, Any]) -> dict[str, Any]:
    if not given:
        raise refused("there is none; name one with a source, as in {student: {source: net.py:build}}")
    for name in given:
        if not _FILE_NAME.fullmatch(name):
            raise refused("a name is letters, digits, _ and -, for it becomes the name of a file", name)
    return given


class Recipe(Spec):
    """Several models, what is done to each, and on what.

    Attributes:
        data: a word, an object of Python, or a :class:`Data`.
        seeds: the whole run once for each; the files of the first are in the run's folder, those of the others in
            ``seed-N`` there.
        precision: ``auto`` measures at the start.
        layout: of images in memory while training; ``auto`` measures at the start.
        devices: how many ranks train together.
        threads: of PyTorch in each rank; as many as it chooses where null.
        models: by name, in order; a stage of one may learn from another.
        teacher_cache: teachers whose outputs are computed once and kept instead of being computed at each step.
        baseline: the model the report compares with; by default the first that teaches, else the first.
        metric: ``accuracy``, ``mean_squared_error``, ``file.py:name``, or a function of outputs and targets.
        task: what the models are for; the data set's own where null.
        dynamic: axes of the inputs whose length may vary when a file is run; 0 is the batch.
        coder: entropy coder of the files.
        root: the folder its paths are relative to, itself relative to the folder of the recipe's file.

    Raises:
        SpecError: something cannot work; the message has the path in the recipe, what arrived and the nearest that
            would do.

    Example:
        >>> Recipe(data="digits", models={"net": {"source": "net.py:build"}}).seeds
        (0,)
    """

    data: Annotated[DataSpec, BeforeValidator(lambda given: given if _is_data(given) else {"source": given})]
    models: Annotated[dict[str, ModelSpec], AfterValidator(_named_models)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_different)] = (0,)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    layout: Literal["auto", "contiguous", "channels_last"] = "contiguous"
    devices: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] | None = None
    teacher_cache: dict[str, TeacherCacheSpec] = {}
    baseline: str | None = None
    metric: Annotated[Reference, registered_word("metric", METRICS)] = "accuracy"
    task: str | None = None
    dynamic: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_with_batch_axis)] = (0,)
    coder: Literal["rans", "huffman", "raw"] = "rans"
    root: str = "."

    _folder: Path = PrivateAttr(default_factory=Path)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(explain(error, where="recipe", given=fields)) from error

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, model in self.models.items():
            for index, stage in enumerate(model.stages):
                place = ("models", name, "stages", index)
                for teacher in stage.teachers():
                    self._refuse_unknown(teacher, *place, "teacher")
                self._check_inspected(stage, *place)
                self._check_variants(stage, *place)
        for name in self.teacher_cache:
            self._refuse_unknown(name, "teacher_cache")
        self._check_cache_files()
        if self.baseline is not None:
            self._refuse_unknown(self.baseline, "baseline")
        with refusing_at():
            teaching_order(self.stages, self.models)
        return self

    def _refuse_unknown(self, name: str, *place: str | int) -> None:
        if name not in self.models:
            raise refused(str(UnknownName("model", name, self.models)), *place)

    def _check_inspected(self, stage: Stage, *place: str | int) -> None:
        """Refuse to read layers of a teacher that has no program: of files and caches only outputs are known."""
        for name, below in stage.inspected_teachers().items():
            model, why = self.models[name], None
            if name in self.teacher_cache:
                why = f"is cached, and a cache keeps outputs alone; take {name!r} out of teacher_cache"
            elif model.source.file is not None:
                why = "is a file and gives outputs alone; give it a factory, and its weights as source.weights"
            elif model.ends_compressed:
                why = "is rounded after training and gives outputs alone; give its quantize epochs, or take it out"
            if why is not None:
                raise refused(f"the layers of {name!r} are read, which {why}", *place, *below)

    def _check_variants(self, stage: Stage, *place: str | int) -> None:
        cached = [self.teacher_cache[name] for name in stage.teachers() if name in self.teacher_cache]
        kept = {cache.variants for cache in cached} - {None}
        if len(kept) > 1:
            raise refused(
                f"its teachers have caches of {sorted(map(str, kept))} variants; they need the same ones, so give all "
                "of them the same number",
                *place,
            )

    def _check_cache_files(self) -> None:
        """Refuse a cache file of two teachers: of two models, or of one that is trained under several seeds."""
        kept: dict[str, str] = {}
        for name, cache in self.teacher_cache.items():
            if cache.file is None:
                continue
            place = ("teacher_cache", name, "file")
            if self.models[name].trains and len(self.seeds) > 1:
                raise refused(
                    f"{name!r} is trained, so it is another teacher under each of the seeds {list(self.seeds)}, and "
                    "one file keeps one teacher; leave out file, or give one seed",
                    *place,
                )
            other = kept.setdefault(normpath(expand_path(cache.file)), name)
            if other != name:
                raise refused(f"{cache.file} is the cache of {other!r} too; give each a file of its own", *place)

    @property
    def stages(self) -> dict[str, tuple[Stage, ...]]:
        """The stages of every model."""
        return {name: model.stages for name, model in self.models.items()}

    @property
    def folder(self) -> Path:
        """The folder its paths are relative to."""
        return self._folder / self.root

    @property
    def order(self) -> tuple[str, ...]:
        """The names of the models, teachers before those they teach."""
        return teaching_order(self.stages, self.models)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the models that teach, in order."""
        taught = {name for stages in self.stages.values() for stage in stages for name in stage.teachers()}
        return tuple(name for name in self.models if name in taught)

    @property
    def reference(self) -> str:
        """The name of the model the report compares with."""
        return self.baseline or next(iter([*self.teachers, *self.models]))

    def only(self, *names: str) -> Recipe:
        """Return the recipe of these models and of those that teach them.

        Each ends in the bytes it has in the whole, but for what is decided by all models together: ``auto`` precision
        and layout, and the seed of caches where one has a file. The report compares with the first of these where the
        baseline is not among them.

        Raises:
            SpecError: no name is given.
            UnknownName: there is no such model.
        """
        if not names:
            raise SpecError(f"only: name one model at least, of {', '.join(self.models)}")
        for name in names:
            if name not in self.models:
                raise UnknownName("model", name, self.models)
        kept = teaching_order(self.stages, names)
        return self.model_copy(
            update={
                "models": {name: model for name, model in self.models.items() if name in kept},
                "teacher_cache": {name: cache for name, cache in self.teacher_cache.items() if name in kept},
                "baseline": self.baseline if self.baseline in kept else None,
            }
        )

    def described(self) -> dict[str, Any]:
        """Return it as YAML and JSON have it, defaults written out; objects of Python are described."""
        found: dict[str, Any] = to_json(self)
        return found

    def objects(self) -> tuple[str, ...]:
        """Return the paths of objects of Python in it, which no file can hold."""
        return tuple(object_paths(self))

    @classmethod
    def schema(cls) -> dict[str, Any]:  # type: ignore[override]
        """Return the JSON schema of a recipe's file."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}


def read_recipe(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Recipe:
    """Return the recipe in a YAML file.

    Args:
        path: the file.
        overrides: ``models.student.stages.0.epochs=3``: what to put in place; values are YAML.

    Raises:
        SpecError: the file is no recipe, or something in it cannot work.
    """
    path = Path(path)
    tree = apply_overrides(parse_yaml(path), overrides)
    with references_from(path.parent / str(tree.get("root", "."))):
        recipe = Recipe(**tree)
    recipe._folder = path.parent
    return recipe


def _is_data(given: Any) -> bool:
    # A mapping of split to object is a source, not the fields of one.
    return isinstance(given, DataSpec) or (isinstance(given, dict) and not {"train", "test"} & set(given))
