"""Pack codes: choose for each stream a shared coding table or the raw coder, and encode it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import CodeStream, TableRecord
from attar._src.artifact.streams import CodeArray, raw_bytes
from attar._src.coding.base import Coder, Symbols
from attar._src.coding.registry import CODERS
from attar._src.coding.sharing import share_tables

_CHUNK = 1 << 22  # symbols per bincount, which widens each to 8 bytes
_RAW = "raw"


@dataclass(frozen=True)
class Packed:
    """Coding tables of a file, and the record and payload of every stream of codes, in input order."""

    tables: list[tuple[TableRecord, bytes]]
    streams: list[tuple[CodeStream, bytes]]


def pack_codes(codes: Sequence[CodeArray], coder: Coder) -> Packed:
    """Encode every stream such that streams and tables together are small.

    Tables are chosen from the histograms of all streams before anything is encoded. A stream is stored raw if ``coder``
    saves nothing; a table that saves less than its own length is dropped.
    """
    chosen = _choose(codes, coder)
    payloads: list[tuple[bytes, bytes | None]] = []
    for item, table in zip(codes, chosen, strict=True):
        payload = None if table is None else coder.encode(item.symbols, table, item.alphabet)
        if payload is None or len(payload) >= raw_bytes(item.symbols.size, item.alphabet):
            payloads.append((_raw(item), None))
        else:
            payloads.append((payload, table))
    tables: dict[tuple[int, bytes], int] = {}
    streams: list[tuple[CodeStream, bytes]] = []
    for item, (payload, table) in zip(codes, payloads, strict=True):
        index = None if table is None else tables.setdefault((item.alphabet, table), len(tables))
        name = _RAW if table is None else coder.name
        streams.append((CodeStream.model_validate({"length": len(payload), "coder": name, "table": index}), payload))
    records = [
        (TableRecord.model_validate({"coder": coder.name, "alphabet": alphabet, "length": len(table)}), table)
        for alphabet, table in tables
    ]
    return Packed(records, streams)


def symbol_histogram(symbols: Symbols, alphabet: int) -> NDArray[np.int64]:
    """Return the number of occurrences of each symbol, shape ``(alphabet,)``."""
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, symbols.size, _CHUNK):
        counts += np.bincount(symbols[start : start + _CHUNK], minlength=alphabet)
    return counts


def _choose(codes: Sequence[CodeArray], coder: Coder) -> list[bytes | None]:
    """Return the table of each stream, None for raw."""
    histograms = [symbol_histogram(item.symbols, item.alphabet) for item in codes]
    raw = [8 * raw_bytes(item.symbols.size, item.alphabet) for item in codes]
    left = [] if coder.name == _RAW else [index for index, bits in enumerate(raw) if bits]
    chosen: list[bytes | None] = [None] * len(codes)
    for _ in range(2):  # the second pass leaves out streams that turned out to be smaller raw
        tables, assignment = share_tables(coder, [histograms[index] for index in left])
        gain = [-8.0 * len(table) for table in tables]
        costs = [coder.cost(histograms[index], tables[table]) for index, table in zip(left, assignment, strict=True)]
        for index, table, cost in zip(left, assignment, costs, strict=True):
            gain[table] += max(raw[index] - cost, 0)
        chosen = [None] * len(codes)
        for index, table, cost in zip(left, assignment, costs, strict=True):
            if cost < raw[index] and gain[table] > 0:
                chosen[index] = tables[table]
        kept = [index for index in left if chosen[index] is not None]
        if len(kept) == len(left):
            break
        left = kept
    return chosen


def _raw(item: CodeArray) -> bytes:
    return CODERS[_RAW].encode(item.symbols, b"", item.alphabet) if item.symbols.size else b""
