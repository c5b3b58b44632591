"""Pack codes: choose for each stream a shared coding table or the raw coder, and encode it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.manifest import CodeStream, TableRecord
from attar._src.artifact.streams import CodeArray
from attar._src.coding.base import Coder, Symbols
from attar._src.coding.contexts.fit import fit_table
from attar._src.coding.integers import packed_bytes
from attar._src.coding.registry import CODERS
from attar._src.coding.sharing import share_tables
from attar._src.core.errors import UnknownName

_CHUNK = 1 << 22  # symbols per bincount, which widens each to 8 bytes
_RAW, _CONTEXT = "raw", "context"
AUTO = "auto"
#: Symbols a second on one core, and how long opening a file may take for contexts.
_SPEED_OF_RANS, _SPEED_OF_CONTEXT, _SECONDS = 5e8, 2.5e7, 0.1
_RECORD = 8  # bytes of a table's record and of its number in the deflated manifest, about


class Packed(NamedTuple):
    """Coding tables of a file, and the record and payload of every stream of codes, in input order."""

    tables: list[tuple[TableRecord, bytes]]
    streams: list[tuple[CodeStream, bytes]]


def demand_coder(name: str) -> None:
    """Check the name of a coder, or ``auto``.

    Raises:
        UnknownName: there is no such coder.
    """
    if name not in {AUTO, *CODERS}:
        # The registry also resolves a user's file.py:name, which other readers could not decode.
        raise UnknownName("coder", name, [AUTO, *CODERS])


def _bytes(packed: Packed) -> int:
    tables = sum(len(table) + _RECORD for _, table in packed.tables)
    return tables + sum(len(payload) for _, payload in packed.streams)


def pack_codes(codes: Sequence[CodeArray], coder: str, *, length: Callable[[Packed], int] = _bytes) -> Packed:
    """Encode every stream such that streams and tables together are small.

    ``auto`` takes ``context`` for the streams that it makes smaller if that saves more than 1 % of the file and all
    streams still decode in 0.1 s on one core, about 2.5 million symbols, and ``rans`` for the others. ``context`` takes
    it wherever it makes a stream smaller.

    Args:
        codes: the streams.
        coder: name of a coder, or ``auto``.
        length: returns the bytes of the file with these streams; by default, of streams and tables alone.
    """
    if coder not in (AUTO, _CONTEXT):
        return _pack(codes, CODERS[coder], {})
    plain = _pack(codes, CODERS["rans"], {})
    predicted = {index: _predict(codes[index]) for index in (_quickly(codes) if coder == AUTO else range(len(codes)))}
    smaller = {
        index: each
        for index, each in predicted.items()
        if len(each.payload) + len(each.table) + _RECORD < len(plain.streams[index][1])
    }
    packed = _pack(codes, CODERS["rans"], smaller) if smaller else plain
    if coder == _CONTEXT or packed is plain:
        return packed
    return packed if length(packed) < 0.99 * length(plain) else plain


class _Predicted(NamedTuple):
    """A stream of the context coder."""

    table: bytes
    payload: bytes


def _quickly(codes: Sequence[CodeArray]) -> list[int]:
    """Return streams, the smallest first, that the context coder decodes in time."""
    sizes = [item.symbols.size for item in codes]
    left = _SECONDS - sum(sizes) / _SPEED_OF_RANS
    found = []
    for index in sorted(range(len(codes)), key=sizes.__getitem__):
        left -= sizes[index] / _SPEED_OF_CONTEXT
        if left < 0:
            break
        found.append(index)
    return found


def _predict(item: CodeArray) -> _Predicted:
    table = fit_table(item.symbols, item.shape, item.alphabet).write()
    return _Predicted(table, CODERS[_CONTEXT].encode(item.symbols, table, item.alphabet))


def _pack(codes: Sequence[CodeArray], coder: Coder, predicted: Mapping[int, _Predicted]) -> Packed:
    """Encode the streams that are not predicted.

    Tables are chosen from the histograms of all these before anything is encoded. A stream is stored raw if ``coder``
    saves nothing; a table that saves less than its own length is dropped.
    """
    tables: dict[tuple[str, int, bytes], int] = {}
    streams: list[tuple[CodeStream, bytes]] = []
    chosen = iter(_choose([item for index, item in enumerate(codes) if index not in predicted], coder))
    for index, item in enumerate(codes):
        name, table, payload = coder.name, None, None
        if index in predicted:
            name, table, payload = _CONTEXT, *predicted[index]
        elif (table := next(chosen)) is not None:
            payload = coder.encode(item.symbols, table, item.alphabet)
        if table is None or payload is None or len(payload) >= packed_bytes(item.symbols.size, item.alphabet):
            name, place = _RAW, None
            payload = CODERS[_RAW].encode(item.symbols, b"", item.alphabet) if item.symbols.size else b""
        else:
            place = tables.setdefault((name, item.alphabet, table), len(tables))
        streams.append((CodeStream.model_validate({"length": len(payload), "coder": name, "table": place}), payload))
    records = [
        (TableRecord.model_validate({"coder": name, "alphabet": alphabet, "length": len(table)}), table)
        for name, alphabet, table in tables
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
