"""Pack codes: choose for each stream a shared coding table or the raw coder, and encode it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import CodeStream, TableRecord
from attar._src.artifact.streams import CodeArray
from attar._src.coding.base import Coder, Symbols
from attar._src.coding.integers import packed_bytes
from attar._src.coding.registry import CODERS
from attar._src.coding.sharing import share_tables

_CHUNK = 1 << 22  # symbols per bincount, which widens each to 8 bytes
_RAW = "raw"


class Packed(NamedTuple):
    """Coding tables of a file, and the record and payload of every stream of codes, in input order."""

    tables: list[tuple[TableRecord, bytes]]
    streams: list[tuple[CodeStream, bytes]]


def pack_codes(codes: Sequence[CodeArray], coder: Coder) -> Packed:
    """Encode every stream such that streams and tables together are small.

    Tables are chosen from the histograms of all streams before anything is encoded. A stream is stored raw if ``coder``
    saves nothing; a table that saves less than its own length is dropped.
    """
    tables: dict[tuple[int, bytes], int] = {}
    streams: list[tuple[CodeStream, bytes]] = []
    for item, table in zip(codes, _choose(codes, coder), strict=True):
        payload = None if table is None else coder.encode(item.symbols, table, item.alphabet)
        if table is None or payload is None or len(payload) >= packed_bytes(item.symbols.size, item.alphabet):
            index, name = None, _RAW
            payload = CODERS[_RAW].encode(item.symbols, b"", item.alphabet) if item.symbols.size else b""
        else:
            index, name = tables.setdefault((item.alphabet, table), len(tables)), coder.name
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
    raw = [8 * packed_bytes(item.symbols.size, item.alphabet) for item in codes]
    left = [] if coder.name == _RAW else [index for index, bits in enumerate(raw) if bits]
    for _ in range(2):  # the second pass leaves out streams that turned out to be smaller raw
        tables, assignment = share_tables(coder, [histograms[index] for index in left])
        pairs = list(zip(left, assignment, strict=True))
        saved = [raw[index] - coder.cost(histograms[index], tables[table]) for index, table in pairs]
        gain = [-8.0 * len(table) for table in tables]
        for table, bits in zip(assignment, saved, strict=True):
            gain[table] += max(bits, 0)
        chosen: list[bytes | None] = [None] * len(codes)
        for (index, table), bits in zip(pairs, saved, strict=True):
            if bits > 0 and gain[table] > 0:
                chosen[index] = tables[table]
        kept = [index for index in left if chosen[index] is not None]
        if len(kept) == len(left):
            break
        left = kept
    return chosen
