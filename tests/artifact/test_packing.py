"""Which coder each stream of codes gets."""

from __future__ import annotations

import numpy as np
import pytest

from attar._src.artifact import packing
from attar._src.artifact.packing import AUTO, Packed, pack_codes
from attar._src.artifact.streams import CodeArray


def stream(shape: tuple[int, ...], related: bool, seed: int = 0) -> CodeArray:
    """Return 4-bit codes of a tensor whose neighbours in a row resemble each other, or do not."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 2.0, shape)
    if related:
        values = (values + np.roll(values, 1, -1) + np.roll(values, 2, -1)) / 3**0.5
    return CodeArray((np.clip(np.rint(values), -7, 7) + 7).astype(np.uint8).reshape(-1), 15, shape)


def coders(packed: Packed) -> list[str]:
    return [record.coder for record, _ in packed.streams]


def test_auto_predicts_the_streams_that_it_makes_smaller() -> None:
    codes = [stream((64, 300), True), stream((64, 300), False, 1), stream((100, 100), True, 2), stream((5,), True)]
    assert coders(pack_codes(codes, AUTO)) == ["context", "rans", "context", "raw"]
    assert coders(pack_codes(codes, "context")) == ["context", "rans", "context", "raw"]
    assert coders(pack_codes(codes, "rans")) == ["rans", "rans", "rans", "raw"]
    small, plain = (sum(len(data) for _, data in pack_codes(codes, name).streams) for name in (AUTO, "rans"))
    assert small < 0.95 * plain


def test_tables_that_no_stream_needs_any_more_are_left_out() -> None:
    packed = pack_codes([stream((64, 300), True)], AUTO)
    assert [record.coder for record, _ in packed.tables] == ["context"]


def test_auto_leaves_a_file_alone_of_which_it_saves_less_than_one_percent() -> None:
    codes = [stream((64, 300), True)]
    assert coders(pack_codes(codes, AUTO, beside=1_000_000)) == ["rans"]
    assert coders(pack_codes(codes, "context", beside=1_000_000)) == ["context"]


def test_auto_predicts_no_more_symbols_than_decode_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [stream((64, 300), True), stream((100, 100), True, 2)]
    # 29,200 symbols of rANS take a thousandth of what they take with contexts here.
    monkeypatch.setattr(packing, "_SPEED_OF_RANS", 1e3 * packing._SPEED_OF_CONTEXT)
    monkeypatch.setattr(packing, "_SECONDS", 15_000 / packing._SPEED_OF_CONTEXT)
    assert coders(pack_codes(codes, AUTO)) == ["rans", "context"]
    monkeypatch.setattr(packing, "_SECONDS", 5_000 / packing._SPEED_OF_CONTEXT)
    assert coders(pack_codes(codes, AUTO)) == ["rans", "rans"]
