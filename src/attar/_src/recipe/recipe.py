"""Recipe: named models with their sources and stages, the data, the seeds; what :func:`attar.run` takes.

The fields are here, what they mean together is checked in ``recipe.check``; both before any compute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.registry import references_from
from attar._src.core.spec import Spec, explain
from attar._src.recipe.check import check_recipe, order, taught_by, taught_through
from attar._src.recipe.reference import Reference, object_paths, to_json
from attar._src.recipe.stages import Stage
from attar._src.recipe.yaml_text import apply_overrides, parse_yaml
from attar._src.train.augment import AugmentationChoice

_Share = Annotated[float, Field(ge=0, lt=1)]


class DataSpec(Spec):
    """What is trained and judged on.

    Attributes:
        source: a data set's word (``digits``, ``npz:PATH``); ``file.py:factory``, called with each ``split=`` (train,
            test and, where it is asked for, validation) and returning a Dataset, a pair of arrays ``(x, y)`` or a
            DataLoader; in Python also a mapping of split to such an object.
        validation: the share of the training examples held out; 0 for none; ``own`` for the source's own split. Where
            null, a tenth of arrays, and of loaders what a mapping has under ``validation``.
        preprocessing: what turns raw examples into inputs: a registered word or ``none``; the data set's own where
            null.
        augment: changes drawn anew each epoch: those with counted variants in order on raw training examples, then the
            endless ones in order on inputs. Not for loaders.
        calibration: how many training examples ranges are found on and files are compared on.
        seed: which examples are held out.
    """

    source: Reference
    validation: _Share | Literal["own"] | None = None
    preprocessing: str | None = None
    augment: tuple[AugmentationChoice, ...] = ()
    calibration: Annotated[int, Field(ge=2)] = 512
    seed: Annotated[int, Field(ge=0)] = 0


class SourceSpec(Spec):
    """Where a module comes from: a factory, or a file that only teaches.

    Attributes:
        factory: ``file.py:name`` or ``package.module:name`` of a class or function; in Python also a module itself.
        arguments: keyword arguments of the factory.
        weights: trained weights to begin with: ``.safetensors``, a state dict, or a ``.attar`` file of the same module.
        file: a ``.attar`` file, alone.
    """

    factory: Reference = None
    arguments: dict[str, Any] = {}
    weights: str | None = None
    file: str | None = None


class ModelSpec(Spec):
    """A model of the recipe.

    Attributes:
        source: where it comes from; a word alone is its factory.
        stages: what is done to it, in order; none packs it as it comes.
        licence: a note on the licence of its weights; it travels in the file.
    """

    source: Annotated[SourceSpec, BeforeValidator(lambda given: given if _spelled(given) else {"factory": given})]
    stages: tuple[Stage, ...] = ()
    licence: str | None = None


class TeacherCacheSpec(Spec):
    """Outputs of a teacher computed once and kept.

    Attributes:
        variants: how many augmented forms of an example are kept, drawn at random; null for all, which must be finite.
        file: where they are kept, for all seeds and for other runs too; in the run's own folder, one for each seed,
            where null.
    """

    variants: Annotated[int, Field(ge=1)] | None = None
    file: str | None = None


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
    models: dict[str, ModelSpec]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    layout: Literal["auto", "contiguous", "channels_last"] = "contiguous"
    devices: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] | None = None
    teacher_cache: dict[str, TeacherCacheSpec] = {}
    baseline: str | None = None
    metric: Reference = "accuracy"
    task: str | None = None
    dynamic: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    coder: Literal["rans", "huffman", "raw"] = "rans"
    root: str = "."

    _folder: Path = PrivateAttr(default_factory=Path)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(explain(error, where="recipe", given=fields)) from error
        check_recipe(self)

    @property
    def folder(self) -> Path:
        """The folder its paths are relative to."""
        return self._folder / self.root

    @property
    def order(self) -> tuple[str, ...]:
        """The names of the models, teachers before those they teach."""
        return order(self)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the models that teach, in order."""
        taught = {name for model in self.models.values() for stage in model.stages for name in taught_by(stage)}
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
        kept = taught_through(self, names)
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


def _spelled(given: Any) -> bool:
    return isinstance(given, dict | SourceSpec)


def _is_data(given: Any) -> bool:
    # A mapping of split to object is a source, not the fields of one.
    return isinstance(given, DataSpec) or (isinstance(given, dict) and not {"train", "test"} & set(given))
