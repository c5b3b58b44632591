"""Split symbols into independently coded chunks so that several cores can decode a tensor (``docs/format.md``, 4.3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import LANES, Bytes, Status, Symbols
from attar._src.core.errors import ArtifactError, SpecError

CHUNK = 1 << 19


def encode_chunks(symbols: Symbols, known: NDArray[np.bool_], encode: Callable[[Symbols], bytes]) -> bytes:
    """Return the payload of ``symbols``, shape ``(n,)``: the lengths of all chunks but the last, then the chunks.

    ``known (alphabet,)`` is True for symbols the table can code; ``encode`` gets contiguous chunks of known symbols.
    """
    chunks = []
    for start in range(0, symbols.size, CHUNK):
        part = np.ascontiguousarray(symbols[start : start + CHUNK], np.uint8)
        seen = np.flatnonzero(np.bincount(part))
        lacking = [symbol for symbol in seen.tolist() if symbol >= known.size or not known[symbol]]
        if lacking:
            raise SpecError(
                f"symbols {lacking[:8]} are not in the table of an alphabet of {known.size}; "
                "build the table from a histogram that counts them"
            )
        chunks.append(encode(part))
    return b"".join([*(_varint(len(chunk)) for chunk in chunks[:-1]), *chunks])


def decode_chunks(
    payload: memoryview, count: int, decode: Callable[[Bytes, Symbols], int], *, threads: int = 1
) -> Symbols:
    """Invert :func:`encode_chunks`; ``decode(chunk, symbols)`` fills ``symbols`` in place and returns a ``Status``.

    The caller should have checked ``count`` against its memory limit.

    Raises:
        ArtifactError: the lengths of chunks are malformed, or a chunk is refused.
    """
    data = np.frombuffer(payload, np.uint8)
    chunks = _split(data, -(-count // CHUNK))
    symbols = np.empty(count, np.uint8)
    parts = [symbols[start : start + CHUNK] for start in range(0, count, CHUNK)]
    if threads > 1 and len(parts) > 1:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 -- few tensors have several chunks

        with ThreadPoolExecutor(min(threads, len(parts))) as pool:
            statuses = list(pool.map(decode, chunks, parts))
    else:
        statuses = list(map(decode, chunks, parts))
    for status, chunk, part in zip(statuses, chunks, parts, strict=True):
        if status:
            raise ArtifactError(_sentence(status, chunk, part.size))
    return symbols


def _sentence(status: int, chunk: Bytes, count: int) -> str:
    match status:
        case Status.BAD_LANES:
            return f"a rANS chunk declares {chunk[:1].tolist()} lanes; it should have 1 or {LANES}"
        case Status.BAD_STATE:
            return f"a chunk of {chunk.size} bytes begins with a state below the lowest, or with a zero byte too many"
        case Status.BAD_LENGTH:
            return f"a rANS chunk cannot have {chunk.size} bytes: its states and words do not fill them"
    return f"a chunk of {chunk.size} bytes does not hold {count} symbols of its table"


def _split(data: Bytes, chunks: int) -> list[Bytes]:
    if chunks == 0:
        if data.size:
            raise ArtifactError(f"a payload of no symbols has {data.size} bytes; it should be empty")
        return []
    lengths = []
    start = 0
    for _ in range(chunks - 1):
        length, start = _read_varint(data, start)
        lengths.append(length)
    if start + sum(lengths) > data.size:
        raise ArtifactError(
            f"a payload of {data.size} bytes declares {sum(lengths)} bytes of chunks before the last one"
        )
    return np.split(data[start:], np.cumsum(lengths, dtype=np.int64))


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _read_varint(data: Bytes, start: int) -> tuple[int, int]:
    """Return the number at ``start`` and the position after it; a chunk length takes at most four bytes."""
    value = 0
    for place, byte in enumerate(data[start : start + 4].tolist()):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            if byte == 0 and place:
                break
            return value, start + place + 1
    raise ArtifactError("a payload has a malformed chunk length")
