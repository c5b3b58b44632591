"""Which coder each stream of codes gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.samples import conv_net

from attar._src.artifact import packing
from attar._src.artifact.manifest import QuantizedValue
from attar._src.artifact.packing import AUTO, Packed, pack_codes
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.streams import CodeArray
from attar._src.artifact.writer import pack
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import Quantized


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

    def length(packed: Packed) -> int:
        return 1_000_000 + sum(len(data) for _, data in packed.streams)

    assert coders(pack_codes(codes, AUTO, length=length)) == ["rans"]
    assert coders(pack_codes(codes, "context", length=length)) == ["context"]


@pytest.mark.parametrize(("letters", "coder"), [(0, "context"), (600_000, "rans")])
def test_graph_and_manifest_are_a_part_of_the_file_of_which_auto_saves_one_percent(letters: int, coder: str) -> None:
    """Contexts that make a file slower to open for less than ``auto`` promises to save."""
    related = stream((64, 300), True)
    codes = (related.symbols.astype(np.int8) - 7).reshape(related.shape)
    weight = Quantized(codes, np.ones(64, np.float32), Scheme(bits=4, granularity=PerChannel()))
    contents = conv_net()
    note = np.random.default_rng(0).bytes(letters // 2).hex()
    data = pack(replace(contents, tensors={**contents.tensors, "more": weight}, recipe={"note": note}))
    value = open_artifact(data).records["more"].value
    assert isinstance(value, QuantizedValue)
    assert value.codes.coder == coder


def test_auto_predicts_no_more_symbols_than_decode_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [stream((64, 300), True), stream((100, 100), True, 2)]
    # 29,200 symbols of rANS take a thousandth of what they take with contexts here.
    monkeypatch.setattr(packing, "_SPEED_OF_RANS", 1e3 * packing._SPEED_OF_CONTEXT)
    monkeypatch.setattr(packing, "_SECONDS", 15_000 / packing._SPEED_OF_CONTEXT)
    assert coders(pack_codes(codes, AUTO)) == ["rans", "context"]
    monkeypatch.setattr(packing, "_SECONDS", 5_000 / packing._SPEED_OF_CONTEXT)
    assert coders(pack_codes(codes, AUTO)) == ["rans", "rans"]
