"""Check the records of streams against shapes and coding tables, without decoding anything (``docs/format.md``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attar._src.artifact.manifest import (
    CodebookValue,
    CodeStream,
    DenseValue,
    Integers,
    IntegerStream,
    QuantizedValue,
    ScaleStream,
    SparseValue,
    StepsValue,
    Stream,
    TableRecord,
    TensorRecord,
    TensorValue,
)
from attar._src.coding.integers import packed_bytes
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import PerBucket, PerTensor, Shape
from attar._src.core.tensors import DTYPES

MOST_SYMBOLS = 256  # of a coder
#: Type of scales -> the bits of infinity, the least that no finite positive number has.
INFINITY = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}


@dataclass(frozen=True, eq=False)
class Table:
    """A coding table of a file: record and bytes."""

    record: TableRecord
    data: bytes


def coded_scales(record: TensorRecord) -> int:
    """Return the number of coded scales and offsets of a checked record, at most; they may take no bytes."""
    coded = sum(each.integers is not None for each in _scale_streams(record.value))
    return coded * _most_scales(record) if coded else 0


def check_slow(records: Iterable[TensorRecord], limit: int) -> None:
    """Raise if checked records have more symbols than ``limit`` that Python has to decode by contexts."""
    count = sum(map(_predicted_symbols, records))
    if count > limit:
        raise ArtifactError(
            f"slow_symbols: without its extension in C, Attar takes about {3e-6 * count:.0f} seconds to decode {count} "
            f"symbols of the coder 'context', more than the limit of {limit}; install Attar with a C compiler, raise "
            "the limit in Limits, or have the file made with --coder rans"
        )


def _predicted_symbols(record: TensorRecord) -> int:
    """Return the number of symbols of the coder ``context``, at most: a mask may let all elements have values."""
    streams = record.value.streams()
    codes = [each.coder for each in streams if isinstance(each, CodeStream)]
    steps = [each.integers.coder for each in streams if isinstance(each, IntegerStream)]
    scales = [each.integers.coder for each in _scale_streams(record.value) if each.integers is not None]
    of_scales = scales.count("context") * _most_scales(record) if scales else 0
    return (codes + steps).count("context") * record.elements + of_scales


def _scale_streams(value: TensorValue) -> list[ScaleStream]:
    return [each for each in value.streams() if isinstance(each, ScaleStream)]


def _most_scales(record: TensorRecord) -> int:
    """Return the number of scales of a checked record that has some; of offsets there are as many."""
    value, shape = record.value, record.shape
    if isinstance(value, QuantizedValue | CodebookValue):
        return value.granularity.count(shape)
    assert isinstance(value, SparseValue)
    assert not isinstance(value.values, DenseValue)
    # The number of values is known only after decoding the mask: as many as there are elements, each with a scale of
    # its own unless the granularity says less of any number.
    shared = value.values.granularity
    return shared.count(shape) if isinstance(shared, PerTensor | PerBucket) else math.prod(shape)


def check_value(value: TensorValue, shape: Shape, tables: Sequence[Table]) -> None:
    """Check stream lengths and coding tables without decoding anything."""
    elements = math.prod(shape)
    if isinstance(value, SparseValue):
        _check_codes("mask", value.mask, elements, 2, tables)
        if not isinstance(value.values, DenseValue):
            _check_table("values", value.values.codes, _alphabet(value.values), tables)
        return  # the number of values is known only after decoding the mask
    if isinstance(value, DenseValue):
        _check_plain("data", value.data, elements, DTYPES[value.dtype].itemsize)
        return
    if isinstance(value, StepsValue):
        if value.data.integers.base + value.data.integers.levels > 2**31:
            raise ArtifactError("data may have whole numbers beyond 32 bits")
        _check_integers("data", value.data.length, value.data.integers, elements, tables)
        return
    count = value.granularity.count(shape)
    _check_scales("scale", value.scale, count, tables)
    if isinstance(value, QuantizedValue):
        if value.symmetric != (value.zero_point is None):
            raise ArtifactError("zero points belong to asymmetric grids and only to them")
        if value.zero_point is not None:
            _check_plain("zero_point", value.zero_point, count, 1)
    else:
        scale, offset = value.scale.dtype, value.offset.dtype
        if offset != scale:
            raise ArtifactError(f"scale is {scale} and offset {offset}; they must have one type")
        _check_scales("offset", value.offset, count, tables)
    _check_codes("codes", value.codes, elements, _alphabet(value), tables)


def check_steps(record: TensorRecord, weight: TensorRecord | None) -> None:
    """Check that a bias in steps is of a weight with one symmetric scale, or one for each of its elements."""
    value = None if weight is None else weight.value
    scales = value.granularity.count(weight.shape) if weight and isinstance(value, QuantizedValue) else 0
    if not isinstance(value, QuantizedValue) or not value.symmetric or scales not in (1, record.elements):
        raise ArtifactError(
            "a bias in steps needs a weight on a symmetric grid, with one scale or as many as the bias has elements"
        )
    if len(record.shape) != 1:
        raise ArtifactError(f"a bias in steps is a vector, not of the shape {record.shape}")


def _alphabet(value: QuantizedValue | CodebookValue) -> int:
    if isinstance(value, QuantizedValue):
        return value.scheme.levels
    points, rest = divmod(value.points.length, 4)
    if rest or not 1 <= points <= 256:
        raise ArtifactError(f"{value.points.length} bytes are not 1 to 256 float32 points")
    return points


def _check_plain(name: str, stream: Stream, count: int, itemsize: int) -> None:
    if stream.length != count * itemsize:
        raise ArtifactError(f"{name} has {stream.length} bytes; {count} elements of {itemsize} were expected")


def _check_scales(name: str, stream: ScaleStream, count: int, tables: Sequence[Table]) -> None:
    """Check the length of scales, coded or not, and that coded ones are the bits of positive numbers."""
    integers, shift = stream.integers, stream.shift
    if integers is None:
        if shift:
            raise ArtifactError(f"{name} is not coded and must not have a shift, but has {shift}")
        _check_plain(name, stream, count, DTYPES[stream.dtype].itemsize)
        return
    largest = integers.base + integers.levels - 1
    if integers.base < 0 or largest << shift >= INFINITY[stream.dtype]:
        bits = f"{integers.base}..{largest} times 2^{shift}"
        raise ArtifactError(f"{name} has the bits {bits}, which are not of positive numbers of {stream.dtype}")
    _check_integers(name, stream.length, integers, count, tables)


def _check_integers(name: str, length: int, integers: Integers, count: int, tables: Sequence[Table]) -> None:
    if integers.levels <= MOST_SYMBOLS:
        stream = CodeStream(length=length, coder=integers.coder, table=integers.table)
        _check_codes(name, stream, count, integers.levels, tables)
    elif (integers.coder, integers.table) != ("raw", None):
        raise ArtifactError(f"{name} has {integers.levels} levels, which only the coder raw can have, without a table")
    elif length != (size := packed_bytes(count, integers.levels)):
        raise ArtifactError(f"{name} has {length} bytes; {count} numbers of {integers.levels} levels take {size}")


def _check_codes(name: str, stream: CodeStream, count: int, alphabet: int, tables: Sequence[Table]) -> None:
    if count == 0 and stream.length:
        raise ArtifactError(f"{name} has {stream.length} bytes for no elements")
    if stream.coder == "raw" and stream.length != (size := packed_bytes(count, alphabet)):
        symbols = f"{count} symbols of an alphabet of {alphabet}"
        raise ArtifactError(f"{name} has {stream.length} bytes; {symbols} take {size}")
    _check_table(name, stream, alphabet, tables)


def _check_table(name: str, stream: CodeStream, alphabet: int, tables: Sequence[Table]) -> None:
    if stream.coder == "raw":
        if stream.table is not None:
            raise ArtifactError(f"{name} is raw and must not name a table, but names {stream.table}")
        return
    if stream.table is None or stream.table >= len(tables):
        raise ArtifactError(f"{name} names table {stream.table} of {len(tables)}")
    table = tables[stream.table].record
    if (table.coder, table.alphabet) != (stream.coder, alphabet):
        raise ArtifactError(
            f"{name} takes a table of {stream.coder} for {alphabet} symbols; table {stream.table} is of "
            f"{table.coder} for {table.alphabet}"
        )
