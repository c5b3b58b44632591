"""The parts of a recipe: data, models with their sources, teacher caches. Every part checks itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from attar._src.core.errors import UnknownName
from attar._src.core.registry import Registry
from attar._src.core.spec import Spec, refused, refusing_at
from attar._src.data.registry import DATASETS
from attar._src.methods.stages import StageChoice
from attar._src.recipe.reference import Reference
from attar._src.train.augment import AugmentationChoice
from attar._src.work.compressed_model import CompressedModel

_Share = Annotated[float, Field(ge=0, lt=1)]


def registered_word(what: str, registry: Registry[Any]) -> AfterValidator:
    """Refuse a word that is neither registered nor a reference; objects of Python pass."""

    def check(given: Any) -> Any:
        if isinstance(given, str) and ":" not in given and given not in set(registry):
            raise refused(str(UnknownName(what, given, registry)))
        return given

    return AfterValidator(check)


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

    source: Annotated[Reference, registered_word("data set", DATASETS)]
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.factory is None) == (self.file is None):
            raise refused(f"one of factory and file is needed, {'both' if self.file else 'none'} came")
        extra = [name for name in ("arguments", "weights") if getattr(self, name)] if self.file else []
        if extra:
            raise refused("a file needs none; take it out", extra[0])
        return self


class ModelSpec(Spec):
    """A model of the recipe.

    Attributes:
        source: where it comes from; a word alone is its factory.
        stages: what is done to it, in order; none packs it as it comes.
        licence: a note on the licence of its weights; it travels in the file.
    """

    source: Annotated[SourceSpec, BeforeValidator(lambda given: given if _spelled(given) else {"factory": given})]
    stages: tuple[StageChoice, ...] = ()
    licence: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source.file is not None and self.stages:
            raise refused(
                f"{self.source.file} is a file, through which no gradient goes; a file can only teach: take its stages "
                "out, or give a factory and weights",
                "stages",
            )
        for index, stage in enumerate(self.stages):
            with refusing_at("stages", index):
                stage.check(self.stages[:index])
        return self

    @property
    def trains(self) -> bool:
        """Whether a stage trains the model."""
        return any(stage.batch_size() is not None for stage in self.stages)

    @property
    def ends_compressed(self) -> bool:
        """Whether the last stage leaves a compressed model, which has no program: it teaches by its file."""
        return bool(self.stages) and self.stages[-1].works_on is CompressedModel


class TeacherCacheSpec(Spec):
    """Outputs of a teacher computed once and kept.

    Attributes:
        variants: how many augmented forms of an example are kept, drawn at random; null for all, which must be finite.
        file: where they are kept, for all seeds and for other runs too; in the run's own folder, one for each seed,
            where null.
    """

    variants: Annotated[int, Field(ge=1)] | None = None
    file: str | None = None


def _spelled(given: Any) -> bool:
    return isinstance(given, dict | SourceSpec)
