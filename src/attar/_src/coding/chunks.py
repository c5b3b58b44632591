"""Chunks: runs of symbols coded on their own, so that several cores can decode one tensor (``docs/format.md``, 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from attar._src.coding.base import Symbols
from attar._src.core.errors import ArtifactError, SpecError

CHUNK = 1 << 19

Bytes = NDArray[np.uint8]


def encode_chunks(symbols: Symbols, known: NDArray[np.bool_], encode: Callable[[Symbols], bytes]) -> bytes:
    """Return the payload of ``symbols``: the lengths of all chunks but the last, then the chunks.

    Args:
        symbols: ``(n,)``.
        known: ``(alphabet,)``, which symbols the table has.
        encode: makes one chunk of some of the symbols, contiguous and all known.

    Raises:
        SpecError: a symbol is not known.
    """
    chunks = []
    for start in range(0, symbols.size, CHUNK):
        part = np.ascontiguousarray(symbols[start : start + CHUNK], np.uint8)
        seen = np.flatnonzero(np.bincount(part))
        lacking = [symbol for symbol in seen.tolist() if symbol >= known.size or not known[symbol]]
        if lacking:
            raise SpecError(
                f"symbols {lacking[:8]} are not in the table of an alphabet of {known.size}; "
                "make the table of a histogram that has them"
            )
        chunks.append(encode(part))
    return b"".join([*(_varint(len(chunk)) for chunk in chunks[:-1]), *chunks])


def decode_chunks(
    payload: memoryview, count: int, decode: Callable[[Bytes, Symbols], None], *, threads: int = 1
) -> Symbols:
    """Return the ``count`` symbols of ``payload``, on up to ``threads`` cores.

    Args:
        payload: what :func:`encode_chunks` made.
        count: how many symbols there are; the caller has checked that so many may be allocated.
        decode: fills its second argument with the symbols of the chunk that is its first.
        threads: how many chunks are decoded at once.

    Raises:
        ArtifactError: the lengths do not fit the payload, or a chunk is malformed.
    """
    data = np.frombuffer(payload, np.uint8)
    spans = list(_spans(data, -(-count // CHUNK)))
    symbols = np.empty(count, np.uint8)
    parts = [symbols[start : start + CHUNK] for start in range(0, count, CHUNK)]
    chunks = [data[start:stop] for start, stop in spans]
    if threads > 1 and len(parts) > 1:
        with ThreadPoolExecutor(min(threads, len(parts))) as pool:
            list(pool.map(decode, chunks, parts))
    else:
        for chunk, part in zip(chunks, parts, strict=True):
            decode(chunk, part)
    return symbols


def _spans(data: Bytes, chunks: int) -> Iterator[tuple[int, int]]:
    """Yield where each chunk starts and stops."""
    if chunks == 0:
        if data.size:
            raise ArtifactError(f"a payload of no symbols has {data.size} bytes; it should be empty")
        return
    lengths = []
    start = 0
    for _ in range(chunks - 1):
        length, start = _read_varint(data, start)
        lengths.append(length)
    last = data.size - start - sum(lengths)
    if last < 0:
        raise ArtifactError(f"a payload of {data.size} bytes has chunks of {sum(lengths)} bytes and one more")
    for length in [*lengths, last]:
        yield start, start + length
        start += length


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _read_varint(data: Bytes, start: int) -> tuple[int, int]:
    """Return the number at ``start`` and where the next begins; four bytes hold the length of any chunk."""
    value = 0
    for place, byte in enumerate(data[start : start + 4].tolist()):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            if byte == 0 and place:
                break
            return value, start + place + 1
    raise ArtifactError("a payload has a malformed chunk length")
