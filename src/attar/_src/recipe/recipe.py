"""Recipe: named models with sources and stages, data and seeds; checks how these parts fit together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.registry import references_from
from attar._src.core.spec import Spec, explain, refused, refusing_at, registered_word
from attar._src.deploy.tolerance import TOLERANCE, Tolerance
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.measure.metric import METRICS
from attar._src.recipe.parts import DataSpec, ModelSpec, TeacherCacheSpec
from attar._src.recipe.reference import PLAIN, Reference, expand_path, leaves, to_json
from attar._src.recipe.teaching_order import teaching_order
from attar._src.recipe.yaml_text import apply_overrides, parse_yaml
from attar._src.work.stage import Stage

#: The key of a recipe with holes that says how they are filled (``attar.run_search``).
SEARCH_KEY = "search"
#: Keys that tell a hole from a mapping of a recipe.
HOLE_MARKS = ("choose", "between")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _different(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or len(set(value)) != len(value):
        raise refused(f"{list(value)} should be one or more different numbers")
    return value


def _tuples(value: Any) -> Any:
    """Return axes by name with lists, as YAML has them, as tuples."""
    if not isinstance(value, dict):
        return value
    return {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}


def _with_batch_axis(value: Any) -> Any:
    if isinstance(value, tuple) and 0 not in value:
        raise refused(f"{list(value)} should include 0, the batch axis, which varies in training")
    return value


def _named_models(value: dict[str, Any]) -> dict[str, Any]:
    if not value:
        raise refused("the recipe has no model; add one, as in {student: {source: net.py:build}}")
    for name in value:
        if not _FILE_NAME.fullmatch(name):
            raise refused("a name becomes a file name; use letters, digits, _ and - only", name)
    return value


_Different = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_different)]


class Recipe(Spec):
    """Models, the stages of each, and the data they are trained and tested on.

    Attributes:
        data: a data set's word, a Python object, or a :class:`DataSpec`.
        seeds: the run is repeated for each; files of the first seed are in the run's folder, those of the others in
            its subfolders ``seed-N``.
        precision: precision of training; ``auto`` chooses the faster one by a measurement at the start.
        layout: memory layout of images in training; ``auto`` measures as well.
        devices: number of ranks that train together.
        threads: PyTorch threads of each rank; if null, PyTorch's default divided by ``devices``.
        models: name -> model; a stage of one model may learn from another.
        teacher_cache: teachers whose outputs are computed once and stored, instead of in every step.
        baseline: the model the report compares with; by default the first teacher, or the first model.
        metric: ``accuracy``, ``mean_squared_error``, ``file.py:name``, or a function of outputs and targets.
        class_axis: axis of the outputs that has the classes, such as 1 of maps ``(N, C, H, W)``; if null, the shapes
            of outputs and labels tell it.
        ignore_index: target that losses, metrics and reports leave out; if null, that of the losses, or -100.
        task: task of the models; if null, the data set's own.
        dynamic: axes of the inputs whose length may vary at run time, of every input (0 is the batch) or by name, as
            ``attar.quantize`` takes them; by default the batch and what varies between calibration batches.
        coder: entropy coder of the files: ``auto`` takes ``context`` in small files where it saves more than 1 %, else
            ``rans``.
        tolerance: from which loss against its floating-point model on a file gets a warning; null for none.
        root: folder that paths in the recipe are relative to, itself relative to the folder of the recipe's file.

    Raises:
        SpecError: a field is invalid or parts contradict each other; the message has the path in the recipe.

    Example:
        >>> Recipe(data="digits", models={"net": {"source": "net.py:build"}}).seeds
        (0,)
    """

    data: Annotated[
        DataSpec,
        BeforeValidator(
            lambda value: value if _is_data(value) else {"source": value}, json_schema_input_type=str | DataSpec
        ),
    ]
    models: Annotated[dict[str, ModelSpec], AfterValidator(_named_models)]
    seeds: _Different = (0,)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    layout: Literal["auto", "contiguous", "channels_last"] = "contiguous"
    devices: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] | None = None
    teacher_cache: dict[str, TeacherCacheSpec] = {}
    baseline: str | None = None
    metric: Annotated[Reference, registered_word(METRICS)] = "accuracy"
    class_axis: int | None = None
    ignore_index: int | None = None
    task: str | None = None
    dynamic: Annotated[
        dict[str, _Different] | _Different | None, BeforeValidator(_tuples), AfterValidator(_with_batch_axis)
    ] = None
    coder: Literal["auto", "rans", "context", "huffman", "raw"] = "auto"
    tolerance: Tolerance | None = TOLERANCE
    root: str = "."

    _folder: Path = PrivateAttr(default_factory=Path)

    def __init__(self, **fields: Any) -> None:
        if SEARCH_KEY in fields:
            raise SpecError(
                "recipe.search: a recipe with a search has values to choose; run it by `attar run` on its file or by "
                "attar.run_search, or run one of the recipes without holes that it found"
            )
        try:
            super().__init__(**fields)
        except ValidationError as error:
            if (hole := first_hole(fields)) is not None:
                raise unfilled_hole(hole) from error
            raise SpecError(explain(error, where="recipe", given=fields)) from error

    @model_validator(mode="after")
    def _check(self) -> Self:
        for _, name, index, stage in self.each_stage():
            place = ("models", name, "stages", index)
            self._refuse_unknown(stage.teachers(), *place, "teacher")
            self._check_inspected(stage, *place)
            self._check_variants(stage, *place)
        self._check_ignored()
        self._refuse_unknown(self.teacher_cache, "teacher_cache")
        self._check_cache_files()
        self._refuse_unknown(() if self.baseline is None else (self.baseline,), "baseline")
        with refusing_at():
            teaching_order(self.models, self.models)
        return self

    def _refuse_unknown(self, names: Iterable[str], *place: str | int) -> None:
        for name in names:
            if name not in self.models:
                raise refused(str(UnknownName("model", name, self.models)), *place)

    def _check_ignored(self) -> None:
        """Refuse losses that ignore another target than the recipe or each other: all are for the same labels."""
        seen = self.ignore_index
        for _, name, index, stage in self.each_stage():
            for ignored in stage.ignored_targets():
                if seen is not None and ignored != seen:
                    raise refused(
                        f"a loss has ignore_index {ignored}, and {seen} was given before; all are for the same labels: "
                        f"set one beside data, as in ignore_index: {ignored}, and remove it from the losses",
                        *("models", name, "stages", index),
                    )
                seen = ignored

    def _check_inspected(self, stage: Stage, *place: str | int) -> None:
        """Refuse a stage that looks into a teacher of which only the main output is known: a file or a cache."""
        for name, below in stage.inspected_teachers().items():
            model, why = self.models[name], None
            if name in self.teacher_cache:
                why = f"is cached, and a cache has its main output only; remove {name!r} from teacher_cache"
            elif model.source.file is not None:
                why = "is a file and has its main output only; give it a factory, and its weights as source.weights"
            elif model.ends_compressed:
                why = (
                    "is quantized after training and has its main output only; give its quantize epochs, or remove "
                    "that stage"
                )
            if why is not None:
                raise refused(f"the stage reads layers or other outputs of {name!r}, which {why}", *place, *below)

    def _check_variants(self, stage: Stage, *place: str | int) -> None:
        cached = [self.teacher_cache[name] for name in stage.teachers() if name in self.teacher_cache]
        kept = {str(cache.variants) for cache in cached if cache.variants is not None}
        if len(kept) > 1:
            raise refused(f"its teachers have caches of {sorted(kept)} variants; give all the same number", *place)

    def _check_cache_files(self) -> None:
        """Refuse a cache file for two teachers: two models, or one model trained under several seeds."""
        kept: dict[str, str] = {}
        for name, cache in self.teacher_cache.items():
            if cache.file is None:
                continue
            place = ("teacher_cache", name, "file")
            if self.models[name].trains and len(self.seeds) > 1:
                raise refused(
                    f"{name!r} is trained and differs between the seeds {list(self.seeds)}, but a file caches one "
                    "teacher; remove file, or give one seed",
                    *place,
                )
            other = kept.setdefault(normpath(expand_path(cache.file)), name)
            if other != name:
                raise refused(f"{cache.file} is also the cache of {other!r}; give each its own file", *place)

    def each_stage(self) -> Iterator[tuple[str, str, int, Stage]]:
        """Yield ``("recipe.models.net.stages.0", "net", 0, stage)`` for each stage of each model, in order."""
        for name, model in self.models.items():
            for index, stage in enumerate(model.stages):
                yield f"recipe.models.{name}.stages.{index}", name, index, stage

    @property
    def folder(self) -> Path:
        """The folder that paths in the recipe are relative to."""
        return self._folder / self.root

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the models, teachers before their students."""
        return teaching_order(self.models, self.models)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the models that teach, in the order of ``models``."""
        taught = {name for *_, stage in self.each_stage() for name in stage.teachers()}
        return tuple(name for name in self.models if name in taught)

    @property
    def class_layout(self) -> ClassLayout:
        """The class axis of outputs and the target to ignore, for losses, metrics and reports."""
        found = [ignored for *_, stage in self.each_stage() for ignored in stage.ignored_targets()]
        ignored = self.ignore_index if self.ignore_index is not None else next(iter(found), IGNORE_INDEX)
        return ClassLayout(self.class_axis, ignored)

    @property
    def reference(self) -> str:
        """Name of the model the report compares with."""
        return self.baseline or next(iter([*self.teachers, *self.models]))

    def only(self, *names: str) -> Recipe:
        """Return the recipe of the named models and their teachers; a baseline left out becomes the default one.

        Their files have the same bytes as in a run of the whole recipe, unless ``auto`` precision or layout, which
        depends on all models, or the seed of shared caches differs.

        Raises:
            SpecError: no name is given, or there is no such model.
        """
        if not names:
            raise SpecError(f"only: give at least one model of {', '.join(self.models)}")
        for name in names:
            if name not in self.models:
                raise UnknownName("model", name, self.models)
        kept = teaching_order(self.models, names)
        return self.model_copy(
            update={
                "models": {name: model for name, model in self.models.items() if name in kept},
                "teacher_cache": {name: cache for name, cache in self.teacher_cache.items() if name in kept},
                "baseline": self.baseline if self.baseline in kept else None,
            }
        )

    def described(self) -> dict[str, Any]:
        """Return the recipe as JSON values, defaults included; Python objects are described."""
        return dict(to_json(self))

    def objects(self) -> tuple[str, ...]:
        """Return the paths of Python objects in the recipe, which cannot be written to a file."""
        return tuple(path for path, value in leaves(self) if not isinstance(value, PLAIN))

    @classmethod
    def schema(cls) -> dict[str, Any]:  # type: ignore[override]
        """Return the JSON schema of a recipe's file."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}


def read_recipe(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Recipe:
    """Return the recipe in a YAML file, with overrides such as ``models.student.stages.0.epochs=3``.

    Raises:
        SpecError: the file is missing or is not a valid recipe.
    """
    path = Path(path)
    return recipe_of_tree(apply_overrides(parse_yaml(path), overrides), path.parent)


def as_recipe(given: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
    """Return a recipe, the one in a YAML file, or that of a mapping of the same form, which may have Python objects.

    Raises:
        SpecError: it is something else, or no valid recipe.
    """
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return recipe_of_tree(given, Path())
    if not isinstance(given, str | Path):
        raise SpecError(
            f"{type(given).__name__} is no recipe; give the path of one in YAML, a mapping such as {{'data': 'digits', "
            "'models': {'net': {'source': 'net.py:build'}}}, or an attar.Recipe"
        )
    return read_recipe(given)


def unfilled_hole(path: str) -> SpecError:
    """Return the error of a recipe that has a hole, and no search."""
    return SpecError(
        f"recipe.{path} is a hole, and nothing says how to fill it; add a search, as in search: {{max_drop: 0.5, "
        "minimise: bytes, trials: 40}, and run it by `attar run` or attar.run_search"
    )


def first_hole(tree: Any) -> str | None:
    """Return the path of the first hole in a tree, ``{choose: [...]}`` or ``{between: [...]}``; None without.

    Example:
        >>> first_hole({"models": {"net": {"stages": [{"bits": {"choose": [2, 4]}}]}}})
        'models.net.stages.0.bits'
    """
    if isinstance(tree, Mapping) and any(isinstance(tree.get(mark), list | tuple) for mark in HOLE_MARKS):
        return ""
    inner = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in inner:
        if (found := first_hole(value)) is not None:
            return f"{key}.{found}" if found else str(key)
    return None


def recipe_of_tree(tree: Mapping[str, Any], folder: Path) -> Recipe:
    """Return the recipe of a tree as YAML has it; its root is relative to ``folder``.

    Raises:
        SpecError: it is not a valid recipe.
    """
    with references_from(folder / str(tree.get("root", "."))):
        recipe = Recipe(**tree)
    recipe._folder = folder
    return recipe


def _is_data(value: Any) -> bool:
    # A mapping of split -> object is a source, not the fields of a DataSpec.
    return isinstance(value, DataSpec) or (isinstance(value, dict) and not {"train", "test"} & set(value))
