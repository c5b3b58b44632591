import heapq
from pathlib import Path

import numpy as np
import pytest
from tests import samples

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.registry import load_object
from attar._src.core.scheme import PerBucket, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Dense, Quantized, Sparse

SOURCE = Path(__file__).parents[2] / "studies" / "polino2018" / "huffman_size.py"
HuffmanSize, huffman_size = (load_object(f"{SOURCE}:{name}") for name in ("HuffmanSize", "huffman_size"))


def codebook(codes, size=256, levels=None):
    codes = np.asarray(codes, np.uint8)
    levels = levels or int(codes.max()) + 1
    count = PerBucket(size=size).count(codes.shape)
    ones = np.ones(count, np.float32)
    return Codebook(codes, np.linspace(0, 1, levels, dtype=np.float32), ones, ones, PerBucket(size=size))


def floats(count):
    return Dense(np.zeros(count, np.float32))


@pytest.mark.parametrize(("bits", "stated"), [(2, 14.22), (4, 7.53)])
def test_the_paper_s_ratios_where_all_codes_are_as_frequent(bits, stated):
    # k f / (k b + 2 f), k = 256 and f = 32 (section 2.1).
    codes = np.tile(np.arange(1 << bits), 256 * 64 // (1 << bits))
    found = huffman_size({"weight": codebook(codes)})
    assert found == HuffmanSize(unquantized=0, codes=16384, buckets=64, mean_length=bits)
    assert round(found.ratio, 2) == stated
    assert found.bytes == 16384 * bits / 8 + 8 * 64


def by_merging(counts):
    """Bits of a Huffman code over all: the sum of what is merged (Huffman 1952)."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits


def test_one_code_serves_all_tensors():
    rng = np.random.default_rng(0)
    first = np.minimum(rng.geometric(0.5, 3000) - 1, 15)
    second = np.minimum(rng.geometric(0.2, 1000) - 1, 15)
    found = huffman_size({"a": codebook(first, 100), "b": codebook(second, 300), "bias": floats(17)})
    bits = by_merging(np.bincount(np.concatenate([first, second])).tolist())
    assert found.mean_length == pytest.approx(bits / 4000)
    assert found.bytes == pytest.approx(17 * 4 + bits / 8 + 8 * (30 + 4))
    apart = sum(by_merging(np.bincount(each).tolist()) for each in (first, second))
    assert bits > apart


def test_codes_may_be_longer_than_a_file_has_them():
    counts = [1, 1]
    while len(counts) < 20:
        counts.append(counts[-1] + counts[-2])
    codes = np.repeat(np.arange(20), counts)
    assert huffman_size({"a": codebook(codes)}).mean_length == pytest.approx(by_merging(counts) / len(codes))


def test_signed_codes_are_counted_from_their_lowest():
    scheme = Scheme(bits=2, granularity=PerTensor())
    signed = Quantized(np.array([[-1, 0, 1, 1]], np.int8), np.ones(1, np.float32), scheme)
    found = huffman_size({"signed": signed, "unsigned": codebook([0, 1, 2, 2])})
    # Two of three symbols are twos: lengths 1 and 2 and 2.
    assert found == HuffmanSize(unquantized=0, codes=8, buckets=2, mean_length=(4 * 1 + 4 * 2) / 8)


def test_what_is_no_parameter_and_what_has_a_mask():
    mask = np.array([True, False, True, True])
    sparse = Sparse(mask, codebook([0, 1, 1]))
    numbers = Dense(np.zeros(9, np.int64), "i64")
    found = huffman_size({"sparse": sparse, "shape": numbers, "half": Dense(np.zeros(5, np.float16), "f16")})
    assert (found.unquantized, found.codes, found.buckets) == (5, 3, 1)
    assert found.bytes == pytest.approx(5 * 4 + (3 + 4) / 8 + 8)


def test_without_codes_or_with_one_alone():
    assert huffman_size({"bias": floats(3)}) == HuffmanSize(unquantized=3, codes=0, buckets=0, mean_length=0.0)
    assert huffman_size({"bias": floats(3)}).ratio == 1
    assert huffman_size({}).ratio == 1
    assert huffman_size({"same": codebook(np.zeros(512))}).bytes == 16


def test_of_a_file():
    rng = np.random.default_rng(1)
    tensors = {
        "a": samples.codebook(rng, (12, 40), levels=16),
        "b": samples.quantized(rng, (9, 30)),
        "c": samples.sparse(rng, (20, 20)),
        "d": samples.dense(rng, 33),
    }
    found = huffman_size(open_artifact(pack(samples.relu(tensors))))
    assert found == huffman_size(tensors)
    assert (found.unquantized, found.codes) == (33, 480 + 270 + int(tensors["c"].mask.sum()))
    assert found.buckets == 480 // 8 + 9 + 1
