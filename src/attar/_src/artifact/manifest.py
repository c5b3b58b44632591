"""The manifest's records as strict frozen specs (``docs/format.md``, section 2)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, JsonValue

from attar._src.core.float16 import ScaleType
from attar._src.core.scheme import Granularity, PerBlock, PerChannel, Scheme
from attar._src.core.spec import Spec

#: Names have no control characters because they are printed on terminals.
NAME_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"
Name = Annotated[str, Field(min_length=1, max_length=512, pattern=NAME_PATTERN)]
Size = Annotated[int, Field(ge=0, le=2**48)]
Index = Annotated[int, Field(ge=0, le=2**31)]
Dims = Annotated[tuple[Size, ...], Field(max_length=16)]
DType = Literal["f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool"]
CoderName = Literal["rans", "context", "huffman", "raw"]


class SectionRecord(Spec):
    """A run of bytes, before version 1.4 of the format with its own checksum."""

    kind: Literal["tables", "tensors", "graph"]
    length: Size
    crc32: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None


class TableRecord(Spec):
    """A table of an entropy coder."""

    coder: Literal["rans", "context", "huffman"]
    alphabet: Annotated[int, Field(ge=1, le=256)]
    length: Size


class Stream(Spec):
    """Uncoded values."""

    length: Size


class Integers(Spec):
    """How whole numbers ``base + code`` are stored, each code below ``levels``; since version 1.4 of the format."""

    base: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    levels: Annotated[int, Field(ge=1, le=2**31)]
    coder: CoderName = "raw"
    table: Index | None = None


class ScaleStream(Stream):
    """Scales or offsets; ``dtype`` exists since version 1.1 of the format.

    Since 1.4 their bits may be ``integers``, followed by ``shift`` zeros.
    """

    dtype: ScaleType = "f32"
    shift: Annotated[int, Field(ge=0, le=31)] = 0
    integers: Integers | None = None


class CodeStream(Spec):
    """Entropy-coded symbols."""

    length: Size
    coder: CoderName = "rans"
    table: Index | None = None


class StoredValue(Spec):
    """The record of a tensor's values. Streams are fields in file order."""

    def streams(self) -> tuple[Stream | CodeStream, ...]:
        """Return the streams in file order."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        return tuple(field for field in fields if isinstance(field, Stream | CodeStream))


class DenseValue(StoredValue):
    """Uncompressed values."""

    kind: Literal["dense"] = "dense"
    dtype: DType = "f32"
    data: Stream


class QuantizedValue(StoredValue):
    """Codes on an affine grid."""

    kind: Literal["quantized"] = "quantized"
    bits: Annotated[int, Field(ge=1, le=8)]
    symmetric: bool = True
    narrow: bool = True
    granularity: Granularity = PerChannel()
    scale: ScaleStream
    zero_point: Stream | None = None
    codes: CodeStream

    @property
    def scheme(self) -> Scheme:
        """The grid of the codes."""
        return Scheme(bits=self.bits, symmetric=self.symmetric, narrow_range=self.narrow, granularity=self.granularity)


class IntegerStream(Stream):
    """Whole numbers."""

    integers: Integers


class StepsValue(StoredValue):
    """A bias in whole steps of ``input_scale`` times the scales of a ``weight``; since version 1.4 of the format."""

    kind: Literal["steps"] = "steps"
    weight: Name
    input_scale: Annotated[float, Field(gt=0)]
    data: IntegerStream


class CodebookValue(StoredValue):
    """Codes into a table of points."""

    kind: Literal["codebook"] = "codebook"
    granularity: Granularity
    points: Stream
    scale: ScaleStream
    offset: ScaleStream
    codes: CodeStream


class SparseValue(StoredValue):
    """Values where a mask is set, zero elsewhere."""

    kind: Literal["sparse"] = "sparse"
    mask: CodeStream
    values: Annotated[DenseValue | QuantizedValue | CodebookValue, Field(discriminator="kind")]

    def streams(self) -> tuple[Stream | CodeStream, ...]:
        return (self.mask, *self.values.streams())


TensorValue = Annotated[
    DenseValue | QuantizedValue | CodebookValue | SparseValue | StepsValue, Field(discriminator="kind")
]


class TensorRecord(Spec):
    """A named tensor and the section of its streams."""

    name: Name
    shape: Dims
    section: Index
    value: TensorValue

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class Part(Spec):
    """A run ``[start, stop)`` of a tensor's elements in C order; without bounds, the whole tensor."""

    tensor: Name
    start: Size | None = None
    stop: Size | None = None


class Binding(Spec):
    """An initializer of a graph as a function of stored tensors (``docs/format.md``, section 5)."""

    to: Name
    parts: Annotated[tuple[Part, ...], FailFast()] = ()
    permute: Annotated[tuple[Index, ...], Field(max_length=16)] | None = None
    shape: Dims | None = None


class Port(Spec):
    """An input or output of a graph."""

    name: Name
    dtype: DType
    shape: Annotated[tuple[Size | Name, ...], Field(max_length=16)]
    example: Dims | None = None

    @property
    def batch_axis(self) -> int:
        """The axis that counts examples: the one called ``batch``, else the first."""
        return self.shape.index("batch") if "batch" in self.shape else 0


class Activation(Spec):
    """A quantized value of a graph."""

    value: Name
    bits: Annotated[int, Field(ge=2, le=8)] = 8
    signed: bool = False
    scale: Annotated[float, Field(gt=0)]
    zero_point: int = 0

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


class GraphRecord(Spec):
    """A graph without its weights, and the bindings that restore them.

    ``dynamic`` exists since version 1.3, ``rows`` since 1.4.
    """

    name: Name = "main"
    section: Index
    length: Size
    bindings: Annotated[tuple[Binding, ...], FailFast()] = ()
    inputs: Annotated[tuple[Port, ...], FailFast()]
    outputs: Annotated[tuple[Port, ...], FailFast()]
    activations: Annotated[tuple[Activation, ...], FailFast()] = ()
    dynamic: Annotated[tuple[Name, ...], FailFast()] = ()
    rows: Annotated[tuple[Name, ...], FailFast()] = ()


class Fold(Spec):
    """A batch-norm folded into the weight and bias of another module."""

    batch_norm: Name
    into: Name


class Preprocessing(Spec):
    """Maps a raw example to an input: ``(raw * scale - mean[c]) / std[c]``, c along the axis C of ``layout``."""

    name: Name
    layout: Annotated[str, Field(min_length=1, max_length=16)]
    scale: float = 1.0
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0,)
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0,)


class Manifest(Spec):
    """The root record of a file."""

    sections: Annotated[tuple[SectionRecord, ...], FailFast()]
    tables: Annotated[tuple[TableRecord, ...], FailFast()] = ()
    tensors: Annotated[tuple[TensorRecord, ...], FailFast()] = ()
    aliases: dict[Name, Name] = {}
    graphs: Annotated[tuple[GraphRecord, ...], FailFast()]
    folds: Annotated[tuple[Fold, ...], FailFast()] = ()
    parameters: Size
    preprocessing: Preprocessing | None = None
    task: Name | None = None
    class_names: Annotated[tuple[str, ...], FailFast()] = ()
    metric: Name | None = None
    recipe: dict[str, JsonValue] = {}
    versions: dict[Name, Name] = {}
    licence: str | None = None


def least_minor(manifest: Manifest) -> int:
    """Return the lowest minor version of the format that can express a manifest.

    4 if a table is of the context coder, a scale is coded, a bias in steps or a dynamic node scales rows, else 3 if a
    graph has dynamic nodes, else 2 if scales are those of blocks, else 1 if a scale has a type, else 0.
    """
    values = [record.value for record in manifest.tensors]
    scales = [stream for value in values for stream in value.streams() if isinstance(stream, ScaleStream)]
    whole = any(stream.integers is not None for stream in scales) or any(
        isinstance(each, StepsValue) for each in values
    )
    rows = any(graph.rows for graph in manifest.graphs)
    if whole or rows or any(table.coder == "context" for table in manifest.tables):
        return 4
    if any(graph.dynamic for graph in manifest.graphs):
        return 3
    inner = [value.values if isinstance(value, SparseValue) else value for value in values]
    if any(isinstance(getattr(value, "granularity", None), PerBlock) for value in inner):
        return 2
    return int(any("dtype" in stream.model_fields_set for stream in scales))


def canonical(spec: Any) -> Any:
    """Return the JSON value to write, without fields that equal their default, so that equal content is equal bytes.

    ``kind`` is always written, because it discriminates unions.
    """
    if isinstance(spec, Spec):
        fields = type(spec).model_fields.items()
        told = [name for name, field in fields if name == "kind" or getattr(spec, name) != field.default]
        return {name: canonical(getattr(spec, name)) for name in told}
    if isinstance(spec, tuple | list):
        return [canonical(item) for item in spec]
    if isinstance(spec, dict):
        return {key: canonical(value) for key, value in spec.items()}
    return spec
