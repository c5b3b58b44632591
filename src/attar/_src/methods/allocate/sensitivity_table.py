"""SensitivityTable: what each layer costs and gives at several levels; the file that allocation reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from attar._src.core.errors import AttarError
from attar._src.core.spec import Spec, explain, refused
from attar._src.methods.allocate.level import Level

#: Name of the file in a folder of ``attar sensitivity``.
TABLE = "sensitivity.json"
#: Bits that a weight may have in a table.
ROUNDED_BITS = range(2, 9)

#: What the levels of a table are.
LevelKind = Literal["bits", "sparsity", "channels"]
#: A figure that is not negative.
_Amount = Annotated[float, Field(ge=0)]


class LevelFigures(Spec):
    """A tensor at one level, all others as they were.

    Attributes:
        level: bits of a weight, the share of its elements that are pruned, or of the channels of a group that are
            removed.
        rate: of the solver, which prefers codes that take fewer bits.
        sparsity: share of its elements that were pruned before it was rounded.
        scheme, granularity: of its grid; empty for those of ``method``.
        bytes: of the tensor in a file, entropy-coded; of a group, of all parameters that have its channels, 4 bytes an
            element.
        beside: bytes of what changes with it: the bias that is corrected for its rounding.
        error: squared error of the main output over its variance, the sum over the graphs; None if an output was not
            finite.
        signal_to_noise_db: ``-10 log10(error)``; None without an error.
        kl: of the predictions, in nats; None without classes.
        changed: share of predictions that differ; None of outputs that are values.
        metric: with labels.
        estimate: what gradients tell without a run: of the KL with classes, else of ``error``; None without gradients.
        macs: multiplications of the network for one example; None if they do not change.
    """

    level: float
    rate: _Amount = 0.0
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scheme: str = ""
    granularity: str = ""
    bytes: _Amount
    beside: _Amount = 0.0
    error: _Amount | None
    signal_to_noise_db: float | None = None
    kl: float | None = None
    changed: float | None = None
    metric: float | None = None
    estimate: float | None = None
    macs: int | None = None

    @property
    def key(self) -> Level:
        """The level."""
        return Level(self.level, self.rate, self.sparsity, self.scheme, self.granularity)


class LayerSensitivity(Spec):
    """A tensor, or a group of channels, at all levels.

    Attributes:
        name: of the tensor in the module; of a group, of the first weight whose output channels they are.
        role: ``product``, ``recurrent`` or ``embedding``; ``tensor`` if it multiplies nothing; ``channels`` of a group.
        shape: of the tensor; of a group, the number of its units.
        before: bytes of the tensor, and of what changes with it, as they were.
        levels: in ascending order; those of all tensors are the same.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    before: _Amount
    levels: tuple[LevelFigures, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        product = 1
        for length in self.shape:
            product *= length
        return product

    def at(self, level: float, rate: float = 0.0) -> LevelFigures:
        """Return the figures at a level that was measured."""
        return next(each for each in self.levels if each.key == Level(level, rate))


class SensitivityTable(Spec):
    """Sensitivities of a model.

    Attributes:
        format: version of the file.
        what: ``bits``, ``sparsity`` or ``channels``.
        method: record of the stage that rounded, or of the pruning.
        model: SHA-256 of names and values of the tensors, so that a table of another model is refused.
        data: SHA-256 of the inputs.
        levels: that were measured.
        macs: multiplications of the network as it was, where levels change them.
        rates: with which they were; not every level with every rate.
        examples: number of inputs.
        output: name of the main output of each graph.
        kind: how it is judged: ``scores``, ``decisions``, ``values`` or ``integers``.
        metric: name of the metric; None without labels.
        floating: the metric of the model as it was.
        layers: in the order of the model.
        notes: remarks, by topic.
    """

    format: Literal[1] = 1
    what: LevelKind
    method: dict[str, Any]
    model: str
    data: str
    levels: tuple[float, ...] = Field(min_length=1)
    macs: int | None = None
    rates: tuple[float, ...] = (0.0,)
    examples: int
    output: str
    kind: str
    metric: str | None = None
    floating: float | None = None
    layers: tuple[LayerSensitivity, ...]
    notes: dict[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [layer.name for layer in self.layers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise refused(f"{sorted(twice)[:3]} came twice", "layers")
        for place, layer in enumerate(self.layers):
            for row, each in enumerate(layer.levels):
                least = 1 if each.scheme else ROUNDED_BITS.start
                if self.what == "bits" and each.level not in range(least, ROUNDED_BITS.stop):
                    words = f"{each.level:g} bits: whole numbers from 2 to 8, or 1 of a scheme that has it"
                    raise refused(words, "layers", place, "levels", row)
                if self.what != "bits" and not 0 < each.level < 1:
                    raise refused(f"{each.level:g}: a share between 0 and 1", "layers", place, "levels", row)
            keys = [each.key for each in layer.levels]
            if not keys or len(set(keys)) < len(keys) or set(keys) != {each.key for each in self.layers[0].levels}:
                raise refused(f"{layer.name} has other levels than {names[0]}, or one twice", "layers", place)
        return self

    def text(self) -> str:
        """Return the file's text: JSON, the same bytes for the same table."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> SensitivityTable:
        """Read ``sensitivity.json``, or the one in a folder.

        Raises:
            AttarError: there is none, or it is damaged; the message has the field.
        """
        path = Path(path) / TABLE if Path(path).is_dir() else Path(path)
        try:
            found = json.loads(path.read_bytes())
        except OSError as error:
            raise AttarError(f"{path}: {error.strerror}; `attar sensitivity ... -o FOLDER` makes one") from error
        except (ValueError, RecursionError) as error:
            raise AttarError(f"{path} is no JSON ({error}); measure again") from error
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise AttarError(explain(error, where=str(path), given=found)) from error

    def at_rate(self, rate: float) -> SensitivityTable:
        """Return the part that was measured at a rate, one of ``rates``."""
        own = {layer.name: tuple(each for each in layer.levels if each.rate == rate) for layer in self.layers}
        layers = tuple(layer.model_copy(update={"levels": own[layer.name]}) for layer in self.layers)
        return self.model_copy(update={"layers": layers, "rates": (rate,)})

    def every_level(self) -> tuple[Level, ...]:
        """Return the levels with their rates, in order."""
        return tuple(dict.fromkeys(each.key for layer in self.layers for each in layer.levels))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a flat row for each layer and level, as in the CSV file."""
        for layer in self.layers:
            for figures in layer.levels:
                yield {
                    "layer": layer.name,
                    "role": layer.role,
                    "elements": layer.elements,
                    **figures.model_dump(),
                    "bits_per_weight": None if self.what == "channels" else 8 * figures.bytes / max(layer.elements, 1),
                }
