"""Files with a tensor of every kind, grid, sharing of scales and type of numbers."""

from dataclasses import replace

import numpy as np
from tests import samples

from attar._src.artifact.contents import Contents
from attar._src.core.float16 import to_half
from attar._src.core.scheme import PerBlock, PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Dense, round_to_grid

SHARING = {
    "tensor": PerTensor(),
    "first": PerChannel(),
    "middle": PerChannel(axis=1),
    "last": PerChannel(axis=2),
    "groups": PerGroup(axis=1, size=5),
    "groups.last": PerGroup(axis=2, size=3),
    "groups.long": PerGroup(axis=0, size=2**40),
    "buckets": PerBucket(size=7),
    "bucket": PerBucket(size=2**33),
    "blocks": PerBlock(sizes=(2, 1, 3)),
    "blocks.one": PerBlock(sizes=(4, 5, 6)),
}
SHAPE = (4, 5, 6)
FLOATS = np.array(
    [0, -0.0, 1.5, -2.25, np.inf, -np.inf, np.nan, 6e-8, -6.1e-5, 65504, 1e-7, 1e-45, -1e-40, 3e38], np.float32
)


def contents() -> Contents:
    """Return a convolutional net with all of them beside it."""
    rng = np.random.default_rng(19)
    grids = {f"grid.{bits}.{symmetric}": (bits, symmetric) for bits in range(1, 9) for symmetric in (True, False)}
    tensors = {name: samples.quantized(rng, (3, 40), *grid) for name, grid in grids.items()}
    for name, granularity in SHARING.items():
        tensors[f"quantized.{name}"] = samples.quantized(rng, SHAPE, symmetric=False, granularity=granularity)
        tensors[f"codebook.{name}"] = samples.codebook(rng, SHAPE, granularity=granularity)
    for dtype in ("f16", "bf16"):
        tensors[f"quantized.{dtype}"] = samples.narrowed(samples.quantized(rng, (9, 4)), dtype)
        tensors[f"codebook.{dtype}"] = samples.narrowed(samples.codebook(rng, (9, 4)), dtype)
        tensors[f"floats.{dtype}"] = Dense(to_half(np.nan_to_num(FLOATS, nan=1), dtype), dtype)
    halves = np.r_[np.arange(0, 2**16, 97), [0x7C01, 0xFE00, 0x7FFF]].astype(np.uint16)
    tensors |= {
        "floats": Dense(FLOATS),
        "every.f16": Dense(halves.view(np.float16), "f16"),
        "every.bf16": Dense(halves, "bf16"),
    }
    for dtype, kind in {"i64": np.int64, "i32": np.int32, "i16": np.int16, "i8": np.int8, "u8": np.uint8}.items():
        ends = np.iinfo(kind)
        tensors[dtype] = Dense(np.array([ends.min, ends.max, 1, 0x5A], kind), dtype)
    tensors["bool"] = Dense(np.array([True, False, True]), "bool")
    tensors |= _sparse(rng)
    tensors |= {
        "scalar": samples.dense(rng),
        "no elements": samples.dense(rng, 3, 0, 5),
        "no codes": samples.quantized(rng, (0, 3)),
        "one code": samples.quantized(rng, (1,), granularity=PerTensor()),
        "sixteen axes": samples.dense(rng, *[1] * 7, 2, *[1] * 7, 3),
        'a "quote", a back\\slash': samples.dense(rng, 1),
        "h\u00e9 \u6f22 \U0001f600": samples.dense(rng, 1),
        "long": samples.quantized(rng, (70, 100)),
        "smooth": _smooth(rng, (40, 90), 4),
        "smooth.bytes": _smooth(rng, (30, 6, 5, 5), 8),
        "smooth.mask": replace(samples.sparse(rng, (60, 90)), **_half(rng)),
        "lone points": samples.codebook(rng, (30,), levels=1),
        "many points": samples.codebook(rng, (90,), levels=256),
    }
    tensors |= _coded(rng)
    net = samples.on_steps()
    fields = {name: getattr(net, name) for name in net.__dataclass_fields__}
    return Contents(**fields | {"tensors": {**net.tensors, **tensors}, "aliases": {"tied": "i8"}})


def _smooth(rng, shape, bits):
    """Codes that tell of their neighbours, for the context coder."""
    scheme = Scheme(bits=bits, granularity=PerTensor())
    waves = np.sin(np.arange(np.prod(shape)) / 9).reshape(shape) + 0.05 * rng.normal(size=shape)
    return round_to_grid(waves.astype(np.float32), np.array([0.9 / scheme.qmax], np.float32), None, scheme)


def _half(rng):
    """A mask of which one half has nearly all ones."""
    mask = np.arange(90) + 5 * rng.normal(size=(60, 90)) < 45
    return {"mask": mask, "values": samples.quantized(rng, (int(mask.sum()),), granularity=PerTensor())}


def _coded(rng):
    """Tensors whose scales, and offsets, are coded since 1.4: in up to 256 levels, in more, in one, in 16 bits."""

    def scaled(tensor, digits, dtype="f32"):
        names = [name for name in ("scale", "offset") if hasattr(tensor, name)]
        few = {name: np.ldexp(1 + rng.integers(0, 2**digits, tensor.scale.size) / 2**digits, -6) for name in names}
        return replace(tensor, **{name: each.astype(np.float32) for name, each in few.items()}, scale_dtype=dtype)

    def grid(count):
        return samples.quantized(rng, (count,), granularity=PerGroup(axis=0, size=1))

    found = {"symbols": 6, "packed": 11, "equal": 0}
    found = {f"coded.{name}": scaled(samples.quantized(rng, (401, 3)), digits) for name, digits in found.items()}
    skewed = samples.quantized(rng, (3000, 2))
    few = np.where(rng.random(3000) < 0.9, 0.25, rng.choice([0.125, 0.375, 0.5], 3000)).astype(np.float32)
    sparse = samples.sparse(rng, (30, 40), lambda count: scaled(grid(count), 5))
    return found | {
        "coded.f16": scaled(samples.quantized(rng, (300, 2)), 4, "f16"),
        "coded.bf16": scaled(samples.codebook(rng, (300, 9), granularity=PerChannel()), 7, "bf16"),
        "coded.codebook": scaled(samples.codebook(rng, (400, 9), granularity=PerChannel()), 3),
        "coded.offsets": scaled(samples.codebook(rng, (400, 9), granularity=PerChannel()), 12),
        "coded.sparse": sparse,
        "coded.skewed": replace(skewed, scale=few),
    }


def _sparse(rng):
    def grouped(count):
        return samples.quantized(rng, (count,), symmetric=False, granularity=PerGroup(axis=0, size=3))

    def integers(count):
        return Dense(rng.integers(-9, 9, count).astype(np.int32), "i32")

    def halves(count):
        return Dense(rng.normal(size=count).astype(np.float16), "f16")

    makers = {"codebook": None, "groups": grouped, "i32": integers, "f16": halves}
    found = {f"sparse.{name}": samples.sparse(rng, (7, 9), maker) for name, maker in makers.items()}
    empty = samples.sparse(rng, (0,), lambda count: samples.quantized(rng, (count,)))
    none = replace(found["sparse.groups"], mask=np.zeros((7, 9), bool), values=grouped(0))
    every = replace(found["sparse.groups"], mask=np.ones((7, 9), bool), values=grouped(63))
    return found | {"sparse.empty": empty, "sparse.none": none, "sparse.all": every}
