"""The parts of a recipe: data, models with their sources, teacher caches; each checks its own fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from attar._src.core.spec import Spec, refused, refusing_at, registered_word
from attar._src.data.preprocessing import PREPROCESSINGS
from attar._src.data.registry import DATASETS
from attar._src.data.texts import TEXT
from attar._src.methods.stages import StageChoice
from attar._src.recipe.reference import Reference
from attar._src.train.augment import AugmentationChoice
from attar._src.work.compressed_model import CompressedModel

_Share = Annotated[float, Field(ge=0, lt=1)]


class DataSpec(Spec):
    """Examples for training, validation, calibration and test.

    Attributes:
        source: a registered data set (``digits``, ``npz:PATH``); ``text:PATH`` with ``{split}`` in the path; or
            ``file.py:factory``, called as ``factory(split="train")`` (then ``test``, and ``validation`` if requested),
            which returns a Dataset, a pair of arrays ``(x, y)`` or a DataLoader; in Python also a mapping of split ->
            such an object.
        validation: share of the training examples to hold out; 0 for none; ``own`` for the source's own split. If
            null, a tenth of arrays, and for loaders the entry ``validation`` of a mapping.
        preprocessing: turns raw examples into inputs: a registered word or ``none``; if null, the data set's own.
        augment: random changes, new in each epoch: first those with a finite number of variants (crop, flip), on raw
            examples, then the others, on inputs. Not for loaders.
        tokenizer: folder of the tokenizer of ``text:PATH``, such as that of the model.
        max_length: tokens of every text, cut or padded.
        calibration: number of training examples for calibration and for comparing files.
        seed: chooses the examples held out.
    """

    source: Annotated[Reference, registered_word(DATASETS)]
    validation: _Share | Literal["own"] | None = None
    preprocessing: Annotated[str, registered_word(PREPROCESSINGS)] | None = None
    augment: tuple[AugmentationChoice, ...] = ()
    tokenizer: str | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    calibration: Annotated[int, Field(ge=2)] = 512
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_text = isinstance(self.source, str) and self.source.startswith(f"{TEXT}:")
        for name in ("tokenizer", "max_length"):
            if is_text and getattr(self, name) is None:
                raise refused("texts need it, as in tokenizer: FOLDER, max_length: 128", name)
            if not is_text and getattr(self, name) is not None:
                raise refused("is for texts, source: text:PATH; remove it", name)
        if is_text and "{split}" not in self.source:
            raise refused("would be training and test split alike; write text:reviews-{split}.tsv", "source")
        return self


class SourceSpec(Spec):
    """Source of a model: a factory, or a ``.attar`` file that only teaches.

    Attributes:
        factory: ``file.py:name`` or ``package.module:name`` of a class or function; ``hf:FOLDER``, a model of
            ``transformers``; a ``.pt2`` file; in Python also a module itself.
        arguments: keyword arguments of the factory, or of ``from_pretrained``.
        weights: trained weights to start from: ``.safetensors``, a state dict, or a ``.attar`` file of the same module.
        file: a ``.attar`` file, without the other fields.
    """

    factory: Reference = None
    arguments: dict[str, Any] = {}
    weights: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.factory is None) == (self.file is None):
            raise refused(f"give either factory or file (got {'both' if self.file else 'neither'})")
        extra = [name for name in ("arguments", "weights") if getattr(self, name)] if self.file else []
        if extra:
            raise refused("a file takes none; remove it", extra[0])
        return self


def _with_factory(value: Any) -> Any:
    return value if isinstance(value, dict | SourceSpec) else {"factory": value}


class ModelSpec(Spec):
    """A model of the recipe.

    Attributes:
        source: its source; a string alone is the factory.
        stages: compression steps in order; without any, the model is packed as it is.
        licence: note on the licence of the weights, stored in the file.
    """

    source: Annotated[SourceSpec, BeforeValidator(_with_factory, json_schema_input_type=str | SourceSpec)]
    stages: tuple[StageChoice, ...] = ()
    licence: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source.file is not None and self.stages:
            raise refused(
                f"{self.source.file} is a file, which cannot be trained, only teach; remove its stages, or give a "
                "factory and weights",
                "stages",
            )
        for index, stage in enumerate(self.stages):
            with refusing_at("stages", index):
                stage.check(self.stages[:index])
                stage.check_behind(self.stages[index + 1 :])
        return self

    @property
    def trains(self) -> bool:
        """Whether a stage trains the model."""
        return any(stage.batch_size() is not None for stage in self.stages)

    @property
    def ends_compressed(self) -> bool:
        """Whether the last stage works on a compressed model, so that the file teaches in place of a program."""
        return bool(self.stages) and self.stages[-1].works_on is CompressedModel


class TeacherCacheSpec(Spec):
    """Outputs of a teacher, computed once and stored on disk.

    Attributes:
        variants: number of augmented variants stored for each example, drawn at random; null stores all of a finite
            number.
        file: path of a cache shared by all seeds and by other runs; if null, each seed has one in the run's folder.
    """

    variants: Annotated[int, Field(ge=1)] | None = None
    file: str | None = None
