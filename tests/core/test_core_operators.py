"""The table of operators itself; ``tests/model/test_operators.py`` holds it against PyTorch."""

from dataclasses import replace

import onnx
import pytest

from attar._src.artifact.graph.operators import MAX_OPSET, OPERATORS
from attar._src.core import operators
from attar._src.core.operators import INTEGER_KERNELS, OPERATOR_TABLE, OperatorRow, onnx_types


@pytest.mark.parametrize("name", sorted(onnx_types(lambda row: True) | INTEGER_KERNELS.keys()))
def test_onnx_types_exist_and_a_file_may_hold_them(name):
    assert onnx.defs.has(name, MAX_OPSET, "")
    assert name in OPERATORS


def test_an_overload_has_one_row_or_rows_that_one_argument_tells_apart():
    rows = {}
    for row in OPERATOR_TABLE:
        for name in row.aten.split():
            rows.setdefault(name, []).append(row.when)
    for name, when in rows.items():
        assert when == [None] or len(when) == 1 or len({argument for argument, _ in when}) == 1, name
        assert len(set(when)) == len(when), name


def test_every_product_has_its_integer_kernels_described():
    assert onnx_types(lambda row: row.kind in ("layer", "product")) <= INTEGER_KERNELS.keys()


def test_what_keeps_order_and_what_binds_moves_or_clips():
    assert all(row.kind in ("move", "clip") for row in OPERATOR_TABLE if row.keeps_order)
    assert all(row.kind == "move" for row in OPERATOR_TABLE if row.binds or row.joins or row.fills or row.flips)


@pytest.mark.parametrize("name", ["Where", "Slice", "Relu"])
def test_an_added_row_is_found_by_its_onnx_type(name, monkeypatch):
    def holds(row):
        return row.kind == "clip"

    before, more = onnx_types(holds), (*OPERATOR_TABLE, OperatorRow("", name, "clip"))
    monkeypatch.setattr(operators, "OPERATOR_TABLE", more)
    assert onnx_types(holds) == before | {name}
    monkeypatch.setattr(operators, "OPERATOR_TABLE", [replace(row, kind="other") for row in more])
    assert name not in onnx_types(holds)
