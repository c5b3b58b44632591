"""Split a compressed tensor into streams of bytes and symbols, and restore it (``docs/format.md``, section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import (
    CodebookValue,
    CodeStream,
    DenseValue,
    QuantizedValue,
    ScaleStream,
    SparseValue,
    Stream,
    TableRecord,
    TensorValue,
)
from attar._src.coding.base import Symbols
from attar._src.coding.registry import CODERS
from attar._src.core.errors import ArtifactError
from attar._src.core.float16 import from_half, to_half
from attar._src.core.scheme import Shape
from attar._src.core.tensors import DTYPES, Codebook, CompressedTensor, Dense, Quantized, Sparse


@dataclass(frozen=True, eq=False)
class CodeArray:
    """The symbols of a tensor in C order, shape ``(n,)``, each below ``alphabet``; ``shape`` is the tensor's."""

    symbols: Symbols
    alphabet: int
    shape: Shape


@dataclass(frozen=True, eq=False)
class Table:
    """A coding table of a file: record and bytes."""

    record: TableRecord
    data: bytes


def split(tensor: CompressedTensor) -> list[bytes | CodeArray]:
    """Return the contents of a tensor's streams in file order: bytes for values, symbols for codes.

    Codes -7 to 7 of a 4-bit grid become symbols 0 to 14.
    """
    if isinstance(tensor, Dense):
        return [np.ascontiguousarray(tensor.data).tobytes()]
    if isinstance(tensor, Quantized):
        lowest = tensor.scheme.qmin % 256
        symbols = np.ascontiguousarray(tensor.codes).reshape(-1).view(np.uint8) - np.uint8(lowest)  # modulo 256
        zero_point = [] if tensor.zero_point is None else [tensor.zero_point.tobytes()]
        codes = CodeArray(symbols, tensor.scheme.levels, tensor.codes.shape)
        return [_floats(tensor.scale, tensor.scale_dtype), *zero_point, codes]
    if isinstance(tensor, Codebook):
        codes = CodeArray(np.ascontiguousarray(tensor.codes).reshape(-1), tensor.points.size, tensor.codes.shape)
        affine = [_floats(values, tensor.scale_dtype) for values in (tensor.scale, tensor.offset)]
        return [_floats(tensor.points), *affine, codes]
    mask = np.ascontiguousarray(tensor.mask).reshape(-1).view(np.uint8)
    return [CodeArray(mask, 2, tensor.mask.shape), *split(tensor.values)]


def record_streams(tensor: CompressedTensor, records: Iterator[Any]) -> TensorValue:
    """Return a tensor's value record from the records of its streams in file order."""

    def scales(dtype: str) -> ScaleStream:
        typed = {} if dtype == "f32" else {"dtype": dtype}  # an explicit type needs version 1.1
        return ScaleStream.model_validate({"length": next(records).length, **typed})

    if isinstance(tensor, Dense):
        return DenseValue.model_validate({"dtype": tensor.dtype, "data": next(records)})
    if isinstance(tensor, Quantized):
        return QuantizedValue(
            bits=tensor.scheme.bits,
            symmetric=tensor.scheme.symmetric,
            narrow=tensor.scheme.narrow_range,
            granularity=tensor.scheme.granularity,
            scale=scales(tensor.scale_dtype),
            zero_point=None if tensor.zero_point is None else next(records),
            codes=next(records),
        )
    if isinstance(tensor, Codebook):
        return CodebookValue(
            granularity=tensor.granularity,
            points=next(records),
            scale=scales(tensor.scale_dtype),
            offset=scales(tensor.scale_dtype),
            codes=next(records),
        )
    return SparseValue.model_validate({"mask": next(records), "values": record_streams(tensor.values, records)})


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
    count = value.granularity.count(shape)
    _check_plain("scale", value.scale, count, DTYPES[value.scale.dtype].itemsize)
    if isinstance(value, QuantizedValue):
        if value.symmetric != (value.zero_point is None):
            raise ArtifactError("zero points belong to asymmetric grids and only to them")
        if value.zero_point is not None:
            _check_plain("zero_point", value.zero_point, count, 1)
    else:
        scale, offset = value.scale.dtype, value.offset.dtype
        if offset != scale:
            raise ArtifactError(f"scale is {scale} and offset {offset}; they must have one type")
        _check_plain("offset", value.offset, count, DTYPES[offset].itemsize)
    _check_codes("codes", value.codes, elements, _alphabet(value), tables)


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


def _check_codes(name: str, stream: CodeStream, count: int, alphabet: int, tables: Sequence[Table]) -> None:
    if count == 0 and stream.length:
        raise ArtifactError(f"{name} has {stream.length} bytes for no elements")
    if stream.coder == "raw" and stream.length != (size := raw_bytes(count, alphabet)):
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


def raw_bytes(count: int, alphabet: int) -> int:
    """Return the size in bytes of ``count`` raw symbols: 100 of alphabet 15 take 4 bits each, 50 bytes."""
    return -(-count * (alphabet - 1).bit_length() // 8)


def _floats(values: NDArray[np.float32], dtype: str = "f32") -> bytes:
    return (values.astype("<f4") if dtype == "f32" else to_half(values, dtype)).tobytes()


class TensorDecoder:
    """Decodes the streams of one tensor in file order."""

    def __init__(self, data: memoryview, tables: Sequence[Table], threads: int) -> None:
        self._data, self._tables, self._threads = data, tables, threads
        self._at = 0

    def decode(self, value: TensorValue, shape: Shape) -> CompressedTensor:
        """Decode a tensor; raise ArtifactError or SpecError if its bytes are malformed."""
        if isinstance(value, SparseValue):
            mask = self._codes(value.mask, math.prod(shape), 2).view(np.bool_).reshape(shape)
            count = int(np.count_nonzero(mask))
            check_value(value.values, (count,), self._tables)
            values = self.decode(value.values, (count,))
            assert not isinstance(values, Sparse)
            return Sparse(mask, values)
        elements = math.prod(shape)
        if isinstance(value, DenseValue):
            data = self._array(value.data, value.dtype)
            if value.dtype == "bool" and data.view(np.uint8).max(initial=0) > 1:
                raise ArtifactError("a byte of a bool tensor is not 0 or 1")
            return Dense(data.reshape(shape), value.dtype)
        if isinstance(value, QuantizedValue):
            scheme = value.scheme
            scale = self._floats(value.scale)
            zero_point = None if value.zero_point is None else self._array(value.zero_point, "u8")
            symbols = self._codes(value.codes, elements, scheme.levels)
            codes: NDArray[Any] = (symbols + np.uint8(scheme.qmin % 256)).view(scheme.code_dtype)  # modulo 256
            return Quantized(codes.reshape(shape), scale, scheme, zero_point, value.scale.dtype)
        points, scale, offset = (self._floats(stream) for stream in (value.points, value.scale, value.offset))
        codes = self._codes(value.codes, elements, points.size).reshape(shape)
        return Codebook(codes, points, scale, offset, value.granularity, value.scale.dtype)

    def _take(self, stream: Stream | CodeStream) -> memoryview:
        start, self._at = self._at, self._at + stream.length
        return self._data[start : self._at]

    def _array(self, stream: Stream, dtype: str) -> NDArray[Any]:
        return np.frombuffer(self._take(stream), DTYPES[dtype]).copy()

    def _floats(self, stream: Stream) -> NDArray[np.float32]:
        dtype = stream.dtype if isinstance(stream, ScaleStream) else "f32"
        return from_half(np.frombuffer(self._take(stream), DTYPES[dtype]), dtype)

    def _codes(self, stream: CodeStream, count: int, alphabet: int) -> Symbols:
        data = self._take(stream)
        if count == 0:
            return np.zeros(0, np.uint8)
        table = b"" if stream.table is None else self._tables[stream.table].data
        return CODERS[stream.coder].decode(data, count, table, alphabet, threads=self._threads)
