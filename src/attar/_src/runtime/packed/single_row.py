"""Whether this machine multiplies a single row faster with packed weights than in float32: measured, once a process."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from attar._src.runtime.builder import external
from attar._src.runtime.engine import Engine
from attar._src.runtime.packed.blocks import packed_product

_WIDTH = 2048  # 16 MiB in float32, which caches of a core do not hold
_BLOCK = 128
_ROUNDS = 5
#: A ratio above is not worth a second copy of the weight.
_PAYS = 0.9


def pays_for_single_rows() -> bool:
    """Return whether packed weights take clearly less time."""
    return single_row_ratio() < _PAYS


def measured_single_row_ratio() -> float | None:
    """Return the ratio if this process has measured it, as it does when a file has large weights to pack."""
    return single_row_ratio() if single_row_ratio.cache_info().currsize else None


@cache
def single_row_ratio() -> float:
    """Return the time of a row by a packed matrix of 2048 x 2048 over that in float32, on one thread.

    The least of 5 rounds each, in turns: 0.5 on x86 with AVX-512, 15 where ONNX Runtime has no such kernel. It takes
    50 milliseconds.
    """
    blocks = _WIDTH // _BLOCK
    packed = packed_product(["x", "w", "scale"], "y", "packed", shape=(_WIDTH, _WIDTH), size=_BLOCK)
    codes = np.full((_WIDTH, blocks, _BLOCK // 2), 0x79, np.uint8)
    runs = [
        _engine(packed, {"w": codes, "scale": np.ones((_WIDTH, blocks), np.float32)}).run,
        _engine(helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": np.ones((_WIDTH, _WIDTH), np.float32)}).run,
    ]
    feed = {"x": np.ones((1, _WIDTH), np.float32)}
    times = np.empty((_ROUNDS, len(runs)))
    for row in times:
        for place, run in enumerate(runs):
            run(feed)
            before = time.perf_counter()
            run(feed)
            row[place] = time.perf_counter() - before
    packed_time, dense_time = times.min(axis=0)
    return float(packed_time / dense_time)


def _engine(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> Engine:
    info, shape = helper.make_tensor_value_info, [1, _WIDTH]
    x, y = (info(name, TensorProto.FLOAT, shape) for name in "xy")
    held = [external(name, array) for name, array in weights.items()]
    graph = helper.make_graph([node], "single_row", [x], [y], held)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Engine(model.SerializeToString(), weights=weights, threads=1)
