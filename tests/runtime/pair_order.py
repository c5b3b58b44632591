"""Which pairs of weights the integer kernels of this processor add in 16 bits, found by running them.

A weight has one output channel for each pair of places in it: 127 at both, zero elsewhere. On inputs of code 255 a
channel gives 64,770, or 32,767 if its two products are added in 16 bits. ``python -m tests.runtime.pair_order`` prints
a line for each kind of layer: its name, ``equal`` or ``different`` from ``neighbours``, and how many pairs saturated.
"""

import itertools
import math
import sys

import numpy as np
from tests.runtime.reference import act, file_of, node

from attar._src.core.scheme import PerTensor, Scheme
from attar._src.core.tensors import Quantized
from attar._src.runtime.accumulator import largest_pairs, neighbours
from attar._src.runtime.engine import Engine
from attar._src.runtime.lower import lower

#: Name -> sizes of an output channel of the weight, groups, and the input but for its batch.
CONVOLUTIONS = {
    "3x3 of 8 channels": ((8, 3, 3), 1, (8, 4, 4)),
    "3x3 of 3 channels": ((3, 3, 3), 1, (3, 4, 4)),
    "3x3 of 1 channel": ((1, 3, 3), 1, (1, 4, 4)),
    "2x2 of 4 channels, in 2 groups": ((4, 2, 2), 2, (8, 3, 3)),
    "2x2 of 3 channels, in 2 groups": ((3, 2, 2), 2, (6, 3, 3)),
    "1x1 of 12 channels": ((12, 1, 1), 1, (12, 2, 2)),
    "4 of 5 channels, one axis": ((5, 4), 1, (5, 6)),
    "2x2x2 of 3 channels": ((3, 2, 2, 2), 1, (3, 3, 3, 3)),
}
#: Name -> rows of the input, inputs, and whether the weight is (out, in).
MATRICES = {
    "matrix of 12 rows": (1, 12, False),
    "matrix of 13 rows, transposed": (1, 13, True),
    "matrix of 13 rows, batch 5": (5, 13, False),
    "matrix of 400 rows": (3, 400, False),
}


def pairs_of(shape, groups=1):
    """The weight (out, *shape) with a channel for each pair of places; of long ones only pairs near each other."""
    size = math.prod(shape)
    places = [pair for pair in itertools.combinations(range(size), 2) if size < 100 or pair[1] - pair[0] < 4]
    # A multiple of 32, so that kernels for whole blocks of channels run.
    codes = np.zeros((-(-len(places) // 32) * 32 * groups, size), np.int8)
    for group in range(groups):
        for channel, pair in enumerate(places, group * len(codes) // groups):
            codes[channel, list(pair)] = 127
    return codes.reshape(-1, *shape)


def convolution_file(codes, groups, data):
    """A file of one convolution, its output in units of 512."""
    nodes = [node("Conv", "x w", "c", group=groups), node("Neg", "c", "y")]
    grids = [act("x", 1.0), act("c", 512.0)]
    rank = [f"s{axis}" for axis in range(len(data) - 1)]
    return file_of(nodes, {"w": held(codes)}, grids, x=("batch", *data), y=("batch", len(codes), *rank))


def matrix_file(codes, transposed):
    """A file of one product by a matrix."""
    weight = held(codes if transposed else np.ascontiguousarray(codes.T))
    nodes = [node("Gemm" if transposed else "MatMul", "x w", "y", **({"transB": 1} if transposed else {}))]
    return file_of(nodes, {"w": weight}, [act("x", 1.0)], x=("n", codes.shape[1]), y=("n", len(codes)))


def convolution(codes, groups, data):
    """The lowered file of a convolution and its input of largest codes."""
    return lower(convolution_file(codes, groups, data)), np.full((2, *data), 255, np.float32)


def matrix(codes, rows, transposed):
    """The lowered file of a matrix and its input of largest codes."""
    return lower(matrix_file(codes, transposed)), np.full((rows, codes.shape[1]), 255, np.float32)


def held(codes):
    """Codes in a single step of 1."""
    return Quantized(codes, np.ones(1, np.float32), Scheme(bits=8, granularity=PerTensor()))


def saturated(lowered, x, exact):
    """Whether each output channel lost something on the fast kernels of this processor."""
    engine = Engine(lowered.bare.SerializeToString(), weights=lowered.weights, threads=1, exact=False)
    found = np.abs(engine.run({"x": x})[0])
    lost: np.ndarray = (np.moveaxis(found, 1, 0).reshape(found.shape[1], -1) < exact[:, None] * 0.9).any(1)
    return lost


def layers():
    """Name -> codes (out, ...), groups, lowered model and its input."""
    for name, (shape, groups, data) in CONVOLUTIONS.items():
        codes = pairs_of(shape, groups)
        yield name, codes, groups, *convolution(codes, groups, data)
    depthwise = pairs_of((1, 3, 3))
    for count in (64, 5):
        yield f"depthwise of {count}", depthwise[:count], count, *convolution(depthwise[:count], count, (count, 4, 4))
    for name, (rows, size, transposed) in MATRICES.items():
        codes = pairs_of((size,))
        yield name, codes, 1, *matrix(codes, rows, transposed)


def main():
    for name, codes, groups, lowered, x in layers():
        exact = np.minimum(255.0 * codes.reshape(len(codes), -1).astype(np.int64).sum(1), 255 * 512)
        lost = saturated(lowered, x, exact)
        expected = largest_pairs(neighbours(codes, 0, groups)) > 128
        same = "equal" if np.array_equal(lost, expected) else "different"
        sys.stdout.write(f"{name}: {same}, {lost.sum()} of {len(codes)}, kept {len(lowered.saturating)}\n")


if __name__ == "__main__":
    main()
