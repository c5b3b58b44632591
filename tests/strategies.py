"""Hypothesis strategies: shapes, arrays, schemes, and compressed tensors of every kind."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attar._src.core.float16 import HALF_TYPES, from_half, to_half
from attar._src.core.scheme import PerBlock, PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import DTYPES, Codebook, Dense, Quantized, Sparse

#: Shapes from none to four axes, of no elements, one, or some.
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
#: float32 numbers that are scales: positive, normal, and such that products with codes stay finite.
scales = st.floats(2.0**-100, 2.0**100, width=32)
#: Finite float32 numbers, zeros of both signs and denormals included.
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def arrays(shape, elements=finite, dtype=np.float32):
    """Arrays of a shape."""
    return hnp.arrays(dtype, shape, elements=elements)


def narrow_scales(dtype, low=2.0**-24):
    """Numbers from ``low`` to 2^15 that a type of 16 bits holds."""
    floats = st.floats(low, 2.0**15, width=32)
    return floats.map(lambda value: float(from_half(to_half(np.array([value], np.float32), dtype), dtype)[0]))


@st.composite
def float_arrays(draw, specials=False):
    """float32 arrays of any shape; with specials, NaN and infinities are among them."""
    elements = st.floats(width=32) if specials else finite
    return draw(arrays(draw(shapes), elements))


@st.composite
def granularities(draw, shape):
    """Granularities that fit a shape."""
    sizes = st.integers(1, 9)
    options = [st.just(PerTensor()), st.builds(PerBucket, size=sizes)]
    if shape:
        axes = st.integers(0, len(shape) - 1)
        options += [st.builds(PerChannel, axis=axes), st.builds(PerGroup, axis=axes, size=sizes)]
        divisors = [[size for size in range(1, length + 1) if length % size == 0] or [1, 2] for length in shape]
        options.append(st.builds(PerBlock, sizes=st.tuples(*map(st.sampled_from, divisors))))
    return draw(st.one_of(options))


@st.composite
def schemes(draw, shape):
    """Schemes that fit a shape."""
    return Scheme(
        bits=draw(st.integers(1, 8)),
        symmetric=draw(st.booleans()),
        narrow_range=draw(st.booleans()),
        granularity=draw(granularities(shape)),
    )


@st.composite
def dense(draw, shape=None):
    """Dense tensors of every type; floating ones may hold NaN and infinities."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    data = draw(hnp.arrays(DTYPES[dtype], draw(shapes) if shape is None else shape))
    return Dense(data, dtype)


@st.composite
def quantized(draw, shape=None):
    """Tensors of codes on an affine grid."""
    shape = draw(shapes) if shape is None else shape
    scheme = draw(schemes(shape))
    count = scheme.granularity.count(shape)
    codes = draw(hnp.arrays(scheme.code_dtype, shape, elements=st.integers(scheme.qmin, scheme.qmax)))
    zero_point = draw(hnp.arrays(np.uint8, (count,), elements=st.integers(0, scheme.qmax)))
    dtype = draw(st.sampled_from(("f32", *HALF_TYPES)))
    scale = draw(arrays((count,), scales if dtype == "f32" else narrow_scales(dtype)))
    return Quantized(codes, scale, scheme, None if scheme.symmetric else zero_point, dtype)


@st.composite
def codebooks(draw, shape=None):
    """Tensors of codes into a few points."""
    shape = draw(shapes) if shape is None else shape
    granularity = draw(granularities(shape))
    levels = draw(st.sampled_from((1, 2, 3, 5, 16, 256)))
    count = granularity.count(shape)
    moderate = st.floats(-(2.0**40), 2.0**40, width=32)
    dtype = draw(st.sampled_from(("f32", *HALF_TYPES)))
    affine = moderate if dtype == "f32" else narrow_scales(dtype, -(2.0**15))
    return Codebook(
        draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, levels - 1))),
        draw(arrays((levels,), moderate)),
        draw(arrays((count,), affine)),
        draw(arrays((count,), affine)),
        granularity,
        dtype,
    )


@st.composite
def sparse(draw):
    """Masks over values of another kind."""
    mask = draw(hnp.arrays(np.bool_, draw(shapes)))
    shape = (int(mask.sum()),)
    return Sparse(mask, draw(st.one_of(dense(shape), quantized(shape), codebooks(shape))))


#: Compressed tensors of every kind.
tensors = st.one_of(dense(), quantized(), codebooks(), sparse())
