"""Split a compressed tensor into streams of bytes and symbols, and restore it (``docs/format.md``, section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

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
    TensorValue,
)
from attar._src.artifact.stream_checks import INFINITY, MOST_SYMBOLS, Table, check_value
from attar._src.coding.base import Symbols
from attar._src.coding.integers import bit_width, packed_bytes, unpack_integers
from attar._src.coding.registry import CODERS
from attar._src.core.errors import ArtifactError
from attar._src.core.float16 import from_half, to_half
from attar._src.core.numbers.steps import from_steps, step_sizes
from attar._src.core.scheme import Shape
from attar._src.core.tensors import DTYPES, Codebook, CompressedTensor, Dense, Quantized, Sparse

_CODED_RECORD = 12  # about the bytes that the record of coded scales takes in the deflated manifest
_BITS = {4: "<u4", 2: "<u2"}


@dataclass(frozen=True, eq=False)
class CodeArray:
    """The symbols of a tensor in C order, shape ``(n,)``, each below ``alphabet``; ``shape`` is the tensor's."""

    symbols: Symbols
    alphabet: int
    shape: Shape


@dataclass(frozen=True, eq=False)
class CodedIntegers:
    """Whole numbers ``(n,)``: ``base + code``, every code below ``levels``."""

    codes: NDArray[np.uint32]
    base: int
    levels: int

    @classmethod
    def of(cls, numbers: NDArray[np.int64], most: int, **fields: Any) -> Self:
        """Return one number or more with the largest base, and a power of two of levels if none is beyond ``most``.

        Packed numbers take no more bits so, and the records of several tensors are more alike.
        """
        base = int(numbers.min())
        levels = int(numbers.max()) - base + 1
        even = 1 << bit_width(levels)
        return cls((numbers - base).astype(np.uint32), base, even if base + even - 1 <= most else levels, **fields)

    @cached_property
    def symbols(self) -> CodeArray | None:
        """The codes as symbols of a coder; None if there are too many levels."""
        return (
            CodeArray(self.codes.astype(np.uint8), self.levels, self.codes.shape)
            if self.levels <= MOST_SYMBOLS
            else None
        )

    def saves(self, size: int) -> bool:
        """Return whether packed codes with their record take less than ``size`` bytes."""
        return packed_bytes(self.codes.size, self.levels) + _CODED_RECORD < size

    def record(self, stream: Stream | CodeStream) -> Stream:
        """Return the record of the numbers from that of their symbols or packed bytes."""
        return IntegerStream(length=stream.length, integers=self._integers(stream))

    def _integers(self, stream: Stream | CodeStream) -> Integers:
        how = {"coder": stream.coder, "table": stream.table} if isinstance(stream, CodeStream) else {}
        return Integers.model_validate({"base": self.base, "levels": self.levels, **how})


@dataclass(frozen=True, eq=False)
class CodedScales(CodedIntegers):
    """Scales as whole numbers: their bits, as stored in ``dtype``, without the last ``shift``, which are zero."""

    dtype: str
    shift: int

    def record(self, stream: Stream | CodeStream) -> ScaleStream:
        fields = {"length": stream.length, "dtype": self.dtype, "shift": self.shift}
        return ScaleStream.model_validate(fields | {"integers": self._integers(stream)})


@dataclass(frozen=True, eq=False)
class CodedSteps(CodedIntegers):
    """A bias in whole steps of ``input_scale`` times the scales of ``weight``."""

    weight: str
    input_scale: float


Piece = bytes | CodeArray | CodedIntegers


def symbols_of(piece: Piece) -> CodeArray | None:
    """Return what a coder encodes of a piece; None if it is stored as bytes."""
    return piece.symbols if isinstance(piece, CodedIntegers) else piece if isinstance(piece, CodeArray) else None


def split(tensor: CompressedTensor, *, coded: bool = False) -> list[Piece]:
    """Return the contents of a tensor's streams in file order: bytes for values, symbols for codes.

    Codes -7 to 7 of a 4-bit grid become symbols 0 to 14. ``coded`` is whether scales may be coded, as since format 1.4.
    """
    if isinstance(tensor, Dense):
        return [np.ascontiguousarray(tensor.data).tobytes()]
    if isinstance(tensor, Quantized):
        lowest = tensor.scheme.qmin % 256
        symbols = np.ascontiguousarray(tensor.codes).reshape(-1).view(np.uint8) - np.uint8(lowest)  # modulo 256
        zero_point = [] if tensor.zero_point is None else [tensor.zero_point.tobytes()]
        scale = _scales(tensor.scale, tensor.scale_dtype, coded)
        return [scale, *zero_point, CodeArray(symbols, tensor.scheme.levels, tensor.codes.shape)]
    if isinstance(tensor, Codebook):
        codes = CodeArray(np.ascontiguousarray(tensor.codes).reshape(-1), tensor.points.size, tensor.codes.shape)
        affine = [_scales(values, tensor.scale_dtype, coded) for values in (tensor.scale, tensor.offset)]
        return [_floats(tensor.points), *affine, codes]
    mask = CodeArray(np.ascontiguousarray(tensor.mask).reshape(-1).view(np.uint8), 2, tensor.mask.shape)
    return [mask, *split(tensor.values, coded=coded)]


def _scales(values: NDArray[np.float32], dtype: str, coded: bool) -> bytes | CodedScales:
    """Return scales as bytes, or coded if that is smaller."""
    plain = _floats(values, dtype)
    found = code_scales(values, dtype) if coded and values.size else None
    return plain if found is None or not found.saves(len(plain)) else found


def code_scales(values: NDArray[np.float32], dtype: str) -> CodedScales | None:
    """Return scales ``(n,)``, exact in ``dtype``, as whole numbers, None if one is negative.

    The lowest bits that are zero in all of them are left out: those of 2^-7 times 1.0 to 1.984 in steps of 1/64 are 64
    levels, with a shift of 17 in float32.
    """
    stored = values.astype("<f4") if dtype == "f32" else to_half(values, dtype)
    bits = stored.view(_BITS[stored.itemsize]).astype(np.uint32)
    if np.signbit(values).any():
        return None
    used = int(np.bitwise_or.reduce(bits))
    shift = (used & -used).bit_length() - 1 if used else 0
    most = (INFINITY[dtype] - 1) >> shift
    return CodedScales.of((bits >> np.uint32(shift)).astype(np.int64), most, dtype=dtype, shift=shift)


def record_streams(tensor: CompressedTensor, records: Iterator[Any]) -> TensorValue:
    """Return a tensor's value record from the records of its streams in file order."""

    def scales(dtype: str) -> ScaleStream:
        typed = {} if dtype == "f32" else {"dtype": dtype}  # an explicit type needs version 1.1
        record = next(records)
        if isinstance(record, ScaleStream):
            return record
        return ScaleStream.model_validate({"length": record.length, **typed})

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
        assert not isinstance(value, StepsValue)
        if isinstance(value, QuantizedValue):
            scheme = value.scheme
            scale = self._floats(value.scale, value.granularity.count(shape))
            zero_point = None if value.zero_point is None else self._array(value.zero_point, "u8")
            symbols = self._codes(value.codes, elements, scheme.levels)
            codes: NDArray[Any] = (symbols + np.uint8(scheme.qmin % 256)).view(scheme.code_dtype)  # modulo 256
            return Quantized(codes.reshape(shape), scale, scheme, zero_point, value.scale.dtype)
        points = self._floats(value.points)
        scale, offset = (self._floats(stream, value.granularity.count(shape)) for stream in (value.scale, value.offset))
        codes = self._codes(value.codes, elements, points.size).reshape(shape)
        return Codebook(codes, points, scale, offset, value.granularity, value.scale.dtype)

    def scale(self, value: TensorValue, shape: Shape) -> NDArray[np.float32]:
        """Decode nothing but the scales of a quantized tensor, which come first."""
        assert isinstance(value, QuantizedValue)
        return self._floats(value.scale, value.granularity.count(shape))

    def decode_steps(self, value: StepsValue, shape: Shape, scale: NDArray[np.float32]) -> Dense:
        """Decode a bias in steps of these scales of its weight."""
        numbers = self._integers(value.data, value.data.integers, math.prod(shape)).view(np.int32)
        with np.errstate(over="ignore"):
            values = from_steps(numbers.astype(np.int64), step_sizes(value.input_scale, scale))
        if not np.isfinite(values).all():
            raise ArtifactError("a bias in steps is not finite")
        return Dense(values)

    def _take(self, stream: Stream | CodeStream) -> memoryview:
        start, self._at = self._at, self._at + stream.length
        return self._data[start : self._at]

    def _array(self, stream: Stream, dtype: str) -> NDArray[Any]:
        return np.frombuffer(self._take(stream), DTYPES[dtype]).copy()

    def _floats(self, stream: Stream, count: int = 0) -> NDArray[np.float32]:
        dtype = stream.dtype if isinstance(stream, ScaleStream) else "f32"
        if isinstance(stream, ScaleStream) and stream.integers is not None:
            bits = self._integers(stream, stream.integers, count) << np.uint32(stream.shift)
            return from_half(bits.astype(_BITS[DTYPES[dtype].itemsize]).view(DTYPES[dtype]), dtype)
        return from_half(np.frombuffer(self._take(stream), DTYPES[dtype]), dtype)

    def _integers(self, stream: Stream, integers: Integers, count: int) -> NDArray[np.uint32]:
        """Return ``base + code``, modulo 2^32."""
        base = np.uint32(integers.base % 2**32)
        if integers.levels > MOST_SYMBOLS:
            return base + unpack_integers(self._take(stream), count, integers.levels)
        codes = CodeStream(length=stream.length, coder=integers.coder, table=integers.table)
        return base + self._codes(codes, count, integers.levels).astype(np.uint32)

    def _codes(self, stream: CodeStream, count: int, alphabet: int) -> Symbols:
        data = self._take(stream)
        if count == 0:
            return np.zeros(0, np.uint8)
        table = b"" if stream.table is None else self._tables[stream.table].data
        return CODERS[stream.coder].decode(data, count, table, alphabet, threads=self._threads)
