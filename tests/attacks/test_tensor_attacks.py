"""Attacks on tensors: their records, their streams, their coding tables."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from tests.attacks.reseal import take_apart
from tests.attacks.test_manifest_attacks import put
from tests.samples import codebook, conv_net, narrowed, on_steps, quantized, sparse

from attar._src.artifact.contents import Contents
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import TensorRecord
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.stream_checks import check_slow, coded_scales
from attar._src.artifact.writer import pack
from attar._src.coding import kernels
from attar._src.core.errors import ArtifactError
from attar._src.core.float16 import round_up
from attar._src.core.scheme import PerBlock, PerBucket, PerTensor, Scheme
from attar._src.core.tensors import Dense, Quantized, Sparse

CONV, BIAS, DOWN, UP = 0, 1, 7, 6  # places in the lists of tensors of the samples


def poke(parts, tensor, stream, data, offset=0):
    """Overwrite bytes of one stream of a tensor."""
    records = parts.manifest["tensors"]
    section = records[tensor]["section"]
    at = offset
    for record in records[: tensor % len(records) + 1]:
        for name, length in streams_of(record["value"]):
            if record is records[tensor] and name == stream:
                whole = parts.sections[section]
                parts.sections[section] = whole[:at] + data + whole[at + len(data) :]
                return
            if record["section"] == section:
                at += length
    raise AssertionError(stream)


def streams_of(value):
    """Names and lengths of a value's streams in file order."""
    order = ("data", "points", "scale", "offset", "zero_point", "codes")
    if value["kind"] == "sparse":
        return [("mask", value["mask"]["length"]), *streams_of(value["values"])]
    return [(name, value[name]["length"]) for name in order if value.get(name)]


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0])
def test_scales_that_are_not_positive_numbers(conv, refused, scale):
    poke(conv, CONV, "scale", np.float32(scale).tobytes())
    refused(conv.seal(), "tensor conv.weight: a scale is not finite and positive")


@pytest.mark.parametrize("stream", ["points", "scale", "offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_codebooks_that_are_not_finite(attention, refused, stream, value):
    poke(attention, DOWN, stream, np.float32(value).tobytes())
    refused(attention.seal(), "tensor down.weight: .*finite")


def test_zero_points_outside_their_grid(recurrent, refused):
    poke(recurrent, 2, "zero_point", b"\x10")
    refused(recurrent.seal(), "uint8 zero points within 0..15")


@pytest.mark.parametrize(
    ("tensor", "path", "value", "match"),
    [
        (CONV, ["shape"], [4, 3, 3, 2**48], "more than the limit"),
        (CONV, ["shape"], [2**48] * 16, "more than the limit"),
        (CONV, ["shape"], [2**20, 2**20, 0], "more than the limit"),
        (CONV, ["shape"], [4, 3, 3, -3], "shape"),
        (CONV, ["shape"], [1] * 17, "shape"),
        (CONV, ["shape"], [4.0, 3, 3, 3], "shape"),
        (CONV, ["shape"], [5, 3, 3, 3], "scale has 16 bytes; 5 elements"),
        (CONV, ["shape"], [], "scales along axis 0"),
        (CONV, ["shape"], [4, 3, 3, 4], "tensor conv.weight|graph main"),
        (BIAS, ["shape"], [5], "data has 16 bytes; 5 elements of 4"),
        (BIAS, ["value", "dtype"], "i64", "data has 16 bytes; 4 elements of 8"),
        (BIAS, ["value", "dtype"], "object", "dtype"),
        (BIAS, ["value", "kind"], "pickle", "kind"),
        (BIAS, ["value", "data", "length"], 2**48, "streams take"),
        (CONV, ["value", "bits"], 0, "bits"),
        (CONV, ["value", "bits"], 9, "bits"),
        (CONV, ["value", "bits"], 3, "takes a table of rans for 7 symbols"),
        (CONV, ["value", "narrow"], False, "takes a table of rans for 16 symbols"),
        (CONV, ["value", "symmetric"], False, "zero points belong"),
        (CONV, ["value", "zero_point"], {"length": 4}, "zero points belong|streams take"),
        (CONV, ["value", "granularity"], {"kind": "channel", "axis": 16}, "axis"),
        (CONV, ["value", "granularity"], {"kind": "channel", "axis": 7}, "scales along axis 7"),
        (CONV, ["value", "granularity"], {"kind": "group", "axis": 0, "size": 0}, "size"),
        (CONV, ["value", "granularity"], {"kind": "group", "axis": 0, "size": 1}, "scale has 16 bytes; 108 elements"),
        (CONV, ["value", "granularity"], {"kind": "bucket", "size": 2**70}, "size|scale has 16 bytes"),
        (CONV, ["value", "granularity"], {"kind": "row"}, "granularity"),
        (CONV, ["value", "codes", "table"], None, "names table None of 2"),
        (CONV, ["value", "codes", "table"], 2, "names table 2 of 2"),
        (CONV, ["value", "codes", "table"], -1, "table"),
        (CONV, ["value", "codes", "table"], 1, "table 1 is of rans for 7"),
        (CONV, ["value", "codes", "coder"], "huffman", "takes a table of huffman"),
        (CONV, ["value", "codes", "coder"], "raw", "54|is raw and must not name a table"),
        (CONV, ["value", "codes", "coder"], "evil.py:run", "coder"),
        (CONV, ["value", "codes", "length"], 0, "streams take"),
    ],
)
def test_records(conv, refused, tensor, path, value, match):
    put(conv.manifest["tensors"][tensor], path, value)
    refused(conv.seal(), match)


@pytest.mark.parametrize("length", [0, 3, 4 * 257])
def test_points_that_are_not_1_to_256_floats(attention, refused, length):
    attention.manifest["tensors"][DOWN]["value"]["points"]["length"] = length
    refused(attention.seal(), "points|streams take")


def test_a_mask_with_another_number_of_ones(refused):
    tensor = Sparse(np.array([True, False, True, False]), Dense(np.ones(2, np.float32)))
    parts = take_apart(pack_with(tensor))
    poke(parts, -1, "mask", b"\x07")
    refused(parts.seal(), "data has 8 bytes; 3 elements of 4")


def test_bools_that_are_neither_0_nor_1(refused):
    parts = take_apart(pack_with(Dense(np.array([True, False]), "bool")))
    poke(parts, -1, "data", b"\x02")
    refused(parts.seal(), "not 0 or 1")


def test_raw_codes_outside_their_alphabet(refused):
    scheme = Scheme(bits=2, granularity=PerTensor())
    tensor = Quantized(np.zeros((3,), np.int8), np.ones(1, np.float32), scheme)
    parts = take_apart(pack_with(tensor, coder="raw"))
    poke(parts, -1, "codes", b"\xff")
    refused(parts.seal(), "tensor extra: ")


def test_a_stream_of_one_symbol_asks_for_no_more_than_the_limit(refused):
    tensor = Quantized(np.zeros((64,), np.int8), np.ones(1, np.float32), Scheme(bits=1, granularity=PerTensor()))
    parts = take_apart(pack_with(tensor))
    (record,) = [item for item in parts.manifest["tensors"] if item["name"] == "extra"]
    record["shape"] = [2**28 + 1]
    refused(parts.seal(), "elements")


@pytest.mark.parametrize("coder", ["rans", "huffman"])
def test_tables_and_payloads_of_any_bytes(coder, rng):
    codes = np.minimum(rng.geometric(0.4, 500), 7).astype(np.int8)
    tensor = Quantized(codes, np.ones(1, np.float32), Scheme(bits=4, granularity=PerTensor()))
    whole = pack_with(tensor, coder=coder)
    limits = Limits(elements=2**12)
    for case in range(600):
        parts = take_apart(whole)
        section = case % 2
        data = bytearray(parts.sections[section])
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        parts.sections[section] = bytes(data)
        with contextlib.suppress(ArtifactError):
            open_artifact(parts.seal(), limits=limits).verify()


def pack_with(tensor, coder="rans"):
    """The convolutional net with one tensor more."""
    contents = conv_net()
    fields = {name: getattr(contents, name) for name in contents.__dataclass_fields__}
    return pack(Contents(**fields | {"tensors": {**contents.tensors, "extra": tensor}}), coder=coder, compact=False)


def halves(kind, dtype):
    """The parts of a file of version 1.1: a tensor of a kind with scales of 16 bits, the last of all."""
    rng = np.random.default_rng(3)
    made = {
        "quantized": lambda: narrowed(quantized(rng, (8, 6)), dtype),
        "codebook": lambda: narrowed(codebook(rng, (8, 6)), dtype),
        "sparse": lambda: sparse(rng, (40,), lambda count: narrowed(quantized(rng, (count,)), dtype)),
    }[kind]()
    return take_apart(pack_with(made))


@pytest.mark.parametrize("kind", ["quantized", "codebook", "sparse"])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_scales_of_16_bits_are_sound(kind, dtype):
    parts = halves(kind, dtype)
    assert parts.header == {"minor": 1}
    open_artifact(parts.seal()).verify()


@pytest.mark.parametrize("kind", ["quantized", "sparse"])
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("f16", 0x0000),
        ("f16", 0x8000),
        ("f16", 0x7C00),
        ("f16", 0x7E00),
        ("f16", 0xBC00),
        ("bf16", 0x0000),
        ("bf16", 0x7F80),
        ("bf16", 0x7FC0),
        ("bf16", 0xBF80),
    ],
)
def test_scales_of_16_bits_that_are_not_positive_numbers(refused, kind, dtype, bits):
    parts = halves(kind, dtype)
    poke(parts, -1, "scale", np.uint16(bits).tobytes())
    refused(parts.seal(), "tensor extra: a scale is not finite and positive")


@pytest.mark.parametrize(
    ("dtype", "bits", "value"),
    [
        ("f16", 0x0001, 2.0**-24),
        ("f16", 0x03FF, 1023 * 2.0**-24),
        ("f16", 0x7BFF, 65504.0),
        ("bf16", 0x0001, 2.0**-133),
        ("bf16", 0x007F, 127 * 2.0**-133),
    ],
)
def test_the_ends_of_what_a_scale_of_16_bits_can_be(dtype, bits, value):
    parts = halves("quantized", dtype)
    poke(parts, -1, "scale", np.uint16(bits).tobytes())
    found = open_artifact(parts.seal()).tensor("extra")
    assert (found.scale[0], found.scale_dtype) == (np.float32(value), dtype)


@pytest.mark.parametrize("stream", ["scale", "offset"])
@pytest.mark.parametrize(("dtype", "bits"), [("f16", 0x7C00), ("f16", 0xFE00), ("bf16", 0xFF80), ("bf16", 0x7FC0)])
def test_codebooks_of_16_bits_that_are_not_finite(refused, stream, dtype, bits):
    parts = halves("codebook", dtype)
    poke(parts, -1, stream, np.uint16(bits).tobytes())
    refused(parts.seal(), f"tensor extra: .*finite float32 values of {stream}")


@pytest.mark.parametrize(
    ("kind", "path", "value", "match"),
    [
        ("quantized", ["scale", "dtype"], "f64", "dtype"),
        ("quantized", ["scale", "dtype"], "i16", "dtype"),
        ("quantized", ["scale", "dtype"], None, "dtype"),
        ("quantized", ["scale", "dtype"], 16, "dtype"),
        ("quantized", ["scale", "dtype"], "f32", "tensor extra: scale has 16 bytes; 8 elements of 4"),
        ("quantized", ["scale", "type"], "f16", "type"),
        ("quantized", ["scale", "length"], 15, "streams take"),
        ("quantized", ["codes", "dtype"], "f16", "dtype"),
        ("quantized", ["granularity"], {"kind": "channel", "axis": 1}, "scale has 16 bytes; 6 elements of 2"),
        ("codebook", ["points", "dtype"], "f16", "dtype"),
        ("codebook", ["scale", "dtype"], "bf16", "tensor extra: scale is bf16 and offset f16"),
        ("codebook", ["offset", "dtype"], "f32", "tensor extra: scale is f16 and offset f32"),
        ("sparse", ["values", "scale", "dtype"], "f32", "tensor extra: scale has .* bytes; .* elements of 4"),
        ("sparse", ["mask", "dtype"], "f16", "dtype"),
    ],
)
def test_records_of_scales_of_16_bits(refused, kind, path, value, match):
    parts = halves(kind, "f16")
    put(parts.manifest["tensors"][-1]["value"], path, value)
    refused(parts.seal(), match)


@pytest.mark.parametrize("change", [-2, -1, 1, 2])
def test_streams_of_scales_of_16_bits_of_another_length(refused, change):
    parts = halves("quantized", "f16")
    record = parts.manifest["tensors"][-1]
    record["value"]["scale"]["length"] += change
    data = parts.sections[record["section"]]
    parts.sections[record["section"]] = data[:change] if change < 0 else data + bytes(change)
    refused(parts.seal(), f"tensor extra: scale has {16 + change} bytes; 8 elements of 2")


@pytest.mark.parametrize("kind", ["quantized", "codebook", "sparse"])
def test_scales_of_16_bits_in_a_file_that_says_it_is_of_version_1_0(refused, kind):
    parts = halves(kind, "bf16")
    parts.header["minor"] = 0
    refused(parts.seal(), "manifest: the dtype of a scale needs format 1.1; the header says 1.0")


def test_a_type_that_is_said_is_of_version_1_1_even_where_it_changes_nothing(conv, refused):
    put(conv.manifest["tensors"][CONV]["value"], ["scale", "dtype"], "f32")
    refused(conv.seal(), "manifest: the dtype of a scale needs format 1.1; the header says 1.0")
    conv.header["minor"] = 1
    open_artifact(conv.seal()).verify()


@pytest.mark.parametrize(("tensor", "stream"), [(CONV, "codes"), (BIAS, "data")])
def test_a_type_where_a_stream_has_none(conv, refused, tensor, stream):
    conv.header["minor"] = 1
    put(conv.manifest["tensors"][tensor]["value"], [stream, "dtype"], "f32")
    refused(conv.seal(), "dtype")


def test_a_file_may_say_a_later_version_than_it_needs(conv):
    conv.header["minor"] = 1
    open_artifact(conv.seal()).verify()


def test_a_reader_of_1_0_refuses_what_is_of_1_1(refused, monkeypatch):
    data = halves("quantized", "f16").seal()
    monkeypatch.setattr("attar._src.artifact.layout.MINOR", 0)
    refused(data, "header: format 1.1 cannot be read; this version of attar reads up to 1.0")


def blocks(sizes):
    """The parts of a file whose last tensor, (4, 2, 3), says that it has a scale for each block of these sizes."""
    tensor = quantized(np.random.default_rng(3), (4, 2, 3), granularity=PerBlock(sizes=(2, 1, 3)))
    parts = take_apart(pack_with(tensor))
    put(parts.manifest["tensors"][-1]["value"], ["granularity", "sizes"], sizes)
    return parts


@pytest.mark.parametrize("sizes", [[3, 1, 3], [2, 1], [2, 1, 3, 1], [0, 1, 3], [], [-2, 1, 3], [2**70, 1, 3]])
def test_blocks_that_do_not_cut_the_tensor(refused, sizes):
    refused(blocks(sizes).seal(), "blocks of|sizes")


def test_blocks_of_other_sizes_have_another_number_of_scales(refused):
    refused(blocks([1, 1, 3]).seal(), "scale has 16 bytes; 8 elements of 4")


def test_blocks_in_a_file_that_says_it_is_of_version_1_1(refused):
    parts = blocks([2, 1, 3])
    parts.header["minor"] = 1
    refused(parts.seal(), "manifest: a scale for each block needs format 1.2; the header says 1.1")


@pytest.fixture
def coded():
    """The parts of a file whose last tensor has coded scales."""
    rng = np.random.default_rng(3)
    scale = round_up((2.0 ** rng.uniform(-2, 0, 64)).astype(np.float32))
    contents = conv_net()
    extra = replace(quantized(rng, (64, 3)), scale=scale)
    return take_apart(pack(replace(contents, tensors={**contents.tensors, "extra": extra}), coder="raw"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"base": -1}, "bits -1.. times|bits -1"),
        ({"base": 2**31 - 1}, "not of positive numbers"),
        ({"base": 2**31}, "base"),
        ({"base": 0}, "a scale is not finite and positive|below"),
        ({"levels": 0}, "levels"),
        ({"levels": 2**31 + 1}, "levels"),
        ({"levels": 2**31}, "not of positive numbers"),
        ({"levels": 3}, "bytes"),
        ({"levels": 300}, "bytes; 64 numbers of 300 levels take"),
        ({"coder": "rans"}, "names table None of"),
        ({"coder": "zip"}, "coder"),
        ({"table": 0}, "must not name a table"),
        ({"levels": 300, "coder": "rans"}, "only the coder raw"),
        ({"more": 1}, "more"),
    ],
)
def test_coded_scales(coded, refused, change, match):
    scale = coded.manifest["tensors"][-1]["value"]["scale"]
    scale["integers"] |= change
    if "base" in change and change["base"] == 0:
        scale["shift"] = 0
    refused(coded.seal(), match)


@pytest.mark.parametrize(
    ("field", "value"), [("shift", 31), ("shift", 32), ("shift", -1), ("dtype", "f16"), ("length", 0)]
)
def test_the_record_of_coded_scales(coded, refused, field, value):
    coded.manifest["tensors"][-1]["value"]["scale"][field] = value
    refused(coded.seal(), "shift|not of positive numbers|bytes|should start at")


def test_a_shift_of_scales_that_are_not_coded(conv, refused):
    conv.manifest["tensors"][CONV]["value"]["scale"]["shift"] = 3
    refused(conv.seal(), "is not coded and must not have a shift")


def test_coded_scales_in_an_older_file(conv, refused):
    conv.manifest["tensors"][CONV]["value"]["scale"] |= {
        "integers": {"levels": 1, "base": 8192},
        "shift": 17,
        "length": 0,
    }
    refused(
        conv.seal(describe=False),
        "a coded scale, a bias in steps or a dynamic node that scales rows needs format 1.4; the header says 1.0",
    )


def test_coded_scales_count_as_elements():
    """A stream of equal scales takes no bytes, so that a small file could ask for any number of them."""
    tensor = Quantized(
        np.zeros(2**25, np.int8), np.ones(2**25, np.float32), Scheme(bits=2, granularity=PerBucket(size=1))
    )
    contents = conv_net()
    with pytest.raises(ArtifactError, match="elements_per_byte"):
        pack(replace(contents, tensors={**contents.tensors, "extra": tensor}))


def test_a_sparse_tensor_counts_the_scales_that_its_values_may_have():
    """A sound file that is refused, since every element is counted once more for a scale that many share."""
    contents, rng = conv_net(), np.random.default_rng(2)
    mask = rng.random((40, 50)) < 0.5
    count = int(mask.sum())
    scheme = Scheme(bits=4, granularity=PerBucket(size=8))
    values = Quantized(rng.integers(-7, 8, count, np.int8), round_up(rng.random(-(-count // 8)) + 0.1), scheme)
    data = pack(replace(contents, tensors={**contents.tensors, "extra": Sparse(mask, values)}))
    record = open_artifact(data).records["extra"]
    assert record.value.values.scale.integers is not None
    assert coded_scales(record) == 250


def test_python_is_not_asked_to_decode_contexts_for_minutes(monkeypatch):
    """A small file that takes Python, which decodes without the extension, very long."""
    codes = (np.arange(2**20) % 2).astype(np.int8)  # what contexts foresee, and rANS does not
    tensor = Quantized(codes, np.ones(1, np.float32), Scheme(bits=4, granularity=PerTensor()))
    contents = conv_net()
    data = pack(replace(contents, tensors={**contents.tensors, "extra": tensor}), coder="context")
    assert open_artifact(data, limits=Limits(slow_symbols=2**20)).tensor("extra").codes[:3].tolist() == [0, 1, 0]
    monkeypatch.setattr(kernels, "NATIVE", False)
    few, enough = Limits(slow_symbols=2**20 - 1), Limits(slow_symbols=2**21)
    with pytest.raises(ArtifactError, match=r"about 3 seconds .* limit of 1048575; install Attar with a C compiler"):
        open_artifact(data, limits=few)
    assert open_artifact(data, limits=enough).names == (*contents.tensors, "extra")


def test_what_auto_writes_opens_without_the_extension(monkeypatch):
    """Limits that refuse sound files: of a mask that contexts foresee as well as the values behind it."""
    mask = np.zeros((1500, 1500), bool)
    mask[:200, :300] = True
    values = Quantized(
        (np.arange(60000) % 2).astype(np.int8), np.ones(1, np.float32), Scheme(bits=4, granularity=PerTensor())
    )
    contents = conv_net()
    data = pack(replace(contents, tensors={**contents.tensors, "extra": Sparse(mask, values)}))
    value = open_artifact(data).records["extra"].value
    assert (value.mask.coder, value.values.codes.coder) == ("context", "context")
    monkeypatch.setattr(kernels, "NATIVE", False)
    assert "extra" in open_artifact(data).names


def test_scales_and_codes_count_as_many_symbols_as_they_are():
    """A limit that counts every element of a tensor for the few scales that contexts code."""
    scale = {"length": 3, "integers": {"base": 1, "levels": 4, "coder": "context", "table": 0}}
    quantized = {"kind": "quantized", "bits": 4, "scale": scale}
    mask = {"kind": "sparse", "mask": {"length": 9, "coder": "context", "table": 1}}
    for coder, whole, count in (
        ("raw", quantized, 8),
        ("context", quantized, 808),
        ("raw", mask | {"values": quantized | {"granularity": {"kind": "bucket", "size": 16}}}, 850),
        ("context", mask | {"values": quantized | {"granularity": {"kind": "tensor"}}}, 1601),
        ("raw", mask | {"values": {"kind": "dense", "data": {"length": 4}}}, 800),
    ):
        codes = {"length": 9, "coder": coder, "table": None if coder == "raw" else 2}
        for each in (whole, whole.get("values", {})):
            if each.get("kind") == "quantized":
                each["codes"] = codes
        record = TensorRecord.model_validate_json(
            json.dumps({"name": "w", "shape": [8, 100], "section": 0, "value": whole})
        )
        check_slow([record], count)
        with pytest.raises(ArtifactError, match=f"decode {count} symbols"):
            check_slow([record], count - 1)


@pytest.fixture
def stepped():
    """The parts of a file whose biases are in steps, and the record of the first of them."""
    parts = take_apart(pack(on_steps(), coder="raw"))
    return parts, next(record for record in parts.manifest["tensors"] if record["value"]["kind"] == "steps")


def test_biases_in_steps_come_back_exactly():
    made = on_steps()
    artifact = open_artifact(pack(made))
    records = [record for record in artifact.manifest.tensors if record.value.kind == "steps"]
    assert [record.name for record in records] == ["conv.bias"]
    for record in records:
        assert artifact.tensor(record.name).dtype == "f32"
        assert artifact.tensor(record.name).data.tobytes() == made.tensors[record.name].data.tobytes()
        assert record.value.data.length <= 2 * record.elements


def test_a_bias_of_minus_zero_keeps_its_sign():
    """A value that changes as it is stored: -0.0 equals 0.0, and no number of steps stands for it."""
    made = on_steps()
    made.tensors["conv.bias"].data[3] = -0.0
    artifact = open_artifact(pack(made))
    assert artifact.records["conv.bias"].value.kind == "dense"
    assert artifact.tensor("conv.bias").data.tobytes() == made.tensors["conv.bias"].data.tobytes()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": "nothing"}, "needs a weight on a symmetric grid"),
        ({"weight": "conv.bias"}, "needs a weight on a symmetric grid"),
        ({"weight": "extra"}, "needs a weight on a symmetric grid"),
        ({"weight": ""}, "weight"),
        ({"input_scale": 0.0}, "input_scale"),
        ({"input_scale": 1e39}, "not finite"),
        ({"input_scale": "1"}, "input_scale"),
        ({"data": {"length": 3}}, "integers"),
        ({"more": 1}, "more"),
    ],
)
def test_the_record_of_a_bias_in_steps(stepped, refused, change, match):
    parts, record = stepped
    record["value"] |= change
    refused(parts.seal(), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"base": 2**31 - 1}, "beyond 32 bits"),
        ({"base": -(2**31) - 1}, "base"),
        ({"levels": 2}, "bytes"),
        ({"coder": "rans"}, "only the coder raw"),
    ],
)
def test_the_numbers_of_a_bias_in_steps(stepped, refused, change, match):
    parts, record = stepped
    record["value"]["data"]["integers"] |= change
    refused(parts.seal(), match)


def test_a_bias_in_steps_is_a_vector(stepped, refused):
    parts, record = stepped
    record["shape"] = [*record["shape"], 1]
    refused(parts.seal(), "a bias in steps is a vector")


def test_a_bias_of_another_number_of_elements_than_its_weight_has_scales(stepped, refused):
    parts, record = stepped
    record["value"]["weight"] = "fc.weight"
    refused(parts.seal(), "one scale or as many")
