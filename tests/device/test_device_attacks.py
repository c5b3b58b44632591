"""One fault at a time: C refuses each with its status, and Python refuses it, too."""

import hashlib
import json
import math

import pytest
from tests.attacks.reseal import take_apart
from tests.device import kinds
from tests.device.expected import difference
from tests.device.program import ELEMENTS, read_files

from attar._src.artifact.writer import pack
from attar._src.core.tensors import DTYPES


@pytest.fixture(scope="module")
def sound():
    """The file of every kind, in the layout of 1.4 and as it was before."""
    return {compact: pack(kinds.contents(), coder="rans", compact=compact) for compact in (True, False)}


def record(parts, name):
    (found,) = [each for each in parts.manifest["tensors"] if each["name"] == name]
    return found


def stored(value, shape):
    """Yield key and length of each stream of a value."""
    for key in ("mask", "data", "points", "scale", "offset", "zero_point", "codes"):
        if isinstance(stream := value.get(key), dict):
            yield key, stream["length"]
        elif key == "data" and value["kind"] == "dense":
            yield key, math.prod(shape) * DTYPES[value.get("dtype", "f32")].itemsize
    if value["kind"] == "sparse":
        yield from stored(value["values"], ())


def change(parts, name, part, place, bits):
    """Set bits of a byte of a stream, counted from its end where ``place`` is negative."""
    at = 0
    for each in parts.manifest["tensors"]:
        for key, length in stored(each["value"], each["shape"]):
            if (each["name"], key) == (name, part):
                data = bytearray(parts.sections[1])
                data[at + place + (length if place < 0 else 0)] |= bits
                parts.sections[1] = bytes(data)
                return
            at += length
    raise KeyError(name)


def text(parts, old, new):
    found = json.dumps(parts.manifest)
    assert old in found
    parts.manifest = found.replace(old, new, 1).encode()


def trailing(parts):
    sealed = parts.seal()
    parts.footer["stored"] = sealed[int.from_bytes(sealed[-64:-56], "little") : -64] + b"\0"


def checksum(parts):
    """Give the first section another checksum, which sealing would mend, but not if the manifest is text."""
    parts.seal()
    parts.manifest["sections"][0]["crc32"] ^= 1
    text(parts, "{", "{")


def padding(parts):
    parts.header["padding"] = b"\1"


def last_padding(parts):
    """Return the file with a bit set in the byte before the manifest, and the digest made right."""
    data = bytearray(parts.seal())
    place = int.from_bytes(data[-64:-56], "little") - 1
    assert data[place] == 0
    data[place] = 1
    data[-32:-16] = hashlib.blake2b(data[:-32], digest_size=16).digest()
    return bytes(data)


def many(parts):
    for index in range(3):
        value = {"kind": "dense"} if "sections" not in parts.manifest else {"kind": "dense", "data": {"length": 0}}
        parts.manifest["tensors"].append({"name": f"many {index}", "shape": [0, ELEMENTS // 2], "value": value})


def values(name, **fields):
    return lambda parts: record(parts, name)["value"].update(fields)


def named(name):
    return lambda parts: record(parts, "long").update(name=name)


def bits(name, part, *changes):
    return lambda parts: [change(parts, name, part, place, mask) for place, mask in changes]


def fewer(parts):
    """Give packed scales fewer levels, of as many bits."""
    record(parts, "coded.packed")["value"]["scale"]["integers"]["levels"] = 1500


def tied(parts):
    parts.manifest["aliases"]["again"] = "conv.weight"
    record(parts, "conv.bias")["value"]["weight"] = "again"


def within(name, part, **fields):
    return lambda parts: record(parts, name)["value"][part].update(fields)


def swapped(old, new):
    return lambda parts: text(parts, old, new)


def older(minor):
    return lambda parts: parts.header.update(minor=minor)


BOUND = {"base": 2**31 - 8192, "levels": 8192}

#: What is changed -> whether in a file of 1.4, how, and what C says: of the file or, after "tensor", of a tensor.
ATTACKS = {
    "bytes after the deflated manifest": (True, trailing, "BAD_DEFLATE"),
    "a key twice": (True, swapped('"name": "long"', '"name": "long", "name": "long"'), "BAD_MANIFEST"),
    "a key twice, once escaped": (True, swapped('"name": "long"', '"name": "x", "n\\u0061me": "y"'), "BAD_MANIFEST"),
    "an unknown key": (True, values("long", extra=1), "BAD_MANIFEST"),
    "an unknown key of a stream": (True, within("long", "codes", extra=1), "BAD_MANIFEST"),
    "a section since 1.4": (True, lambda parts: record(parts, "long").update(section=0), "BAD_MANIFEST"),
    "sections since 1.4": (True, swapped('"tensors":', '"sections": [], "tensors":'), "BAD_MANIFEST"),
    "unbound before 1.4": (False, swapped('"tensors":', '"unbound": [], "tensors":'), "BAD_MANIFEST"),
    "a checksum of a section": (False, checksum, "DAMAGED"),
    "padding": (False, padding, "BAD_LAYOUT"),
    "padding before the manifest": (False, last_padding, "BAD_LAYOUT"),
    "blocks before 1.2": (False, older(1), "BAD_MANIFEST"),
    "a type of scales before 1.1": (False, older(0), "BAD_MANIFEST"),
    "a name that is empty": (True, named(""), "BAD_MANIFEST"),
    "a name with a control character": (True, named("a\x85"), "BAD_MANIFEST"),
    "a name that is too long": (True, named("é" * 513), "BAD_MANIFEST"),
    "nine bits": (True, values("long", bits=9), "BAD_MANIFEST"),
    "a bool for a number": (True, values("long", bits=True), "BAD_MANIFEST"),
    "a fraction for a number": (True, values("long", bits=4.0), "BAD_MANIFEST"),
    "a number for a bool": (True, values("long", narrow=1), "BAD_MANIFEST"),
    "another alphabet than the table's": (True, values("long", bits=5), "BAD_MANIFEST"),
    "zero points that are not there": (True, values("long", symmetric=False), "BAD_MANIFEST"),
    "an axis that is not there": (True, values("long", granularity={"kind": "channel", "axis": 2}), "BAD_MANIFEST"),
    "blocks that do not divide": (True, values("long", granularity={"kind": "block", "sizes": [3, 1]}), "BAD_MANIFEST"),
    "offsets of another type": (True, within("codebook.first", "offset", dtype="f16", length=8), "BAD_MANIFEST"),
    "a shift of what is not coded": (True, within("codebook.first", "scale", shift=1), "BAD_MANIFEST"),
    "too many elements": (True, many, "TOO_LARGE"),
    "a stream that is too long": (True, within("long", "codes", length=10**6), "BAD_MANIFEST"),
    "steps beyond 32 bits": (
        True,
        within("conv.bias", "data", integers=BOUND | {"base": 2**31 - 8191}),
        "BAD_MANIFEST",
    ),
    "a step that is not positive": (True, values("conv.bias", input_scale=0.0), "BAD_MANIFEST"),
    "a bool that is neither": (True, bits("bool", "data", (0, 2)), "tensor BAD_VALUES"),
    "a zero point beyond its bits": (True, bits("grid.3.False", "zero_point", (0, 8)), "tensor BAD_VALUES"),
    "a negative scale": (True, bits("grid.3.False", "scale", (3, 0x80)), "tensor BAD_VALUES"),
    "a scale that is no number": (True, bits("grid.3.False", "scale", (2, 0xC0), (3, 0x7F)), "tensor BAD_VALUES"),
    "an infinite point": (True, bits("many points", "points", (2, 0x80), (3, 0x7F)), "tensor BAD_VALUES"),
    "bits after packed scales": (True, bits("coded.packed", "scale", (-1, 0x80)), "tensor BAD_VALUES"),
    "a level that is too high": (True, fewer, "tensor BAD_VALUES"),
    "steps of no weight": (True, values("conv.bias", weight="nothing"), "tensor BAD_MANIFEST"),
    "steps of an asymmetric weight": (True, values("conv.bias", weight="grid.3.False"), "tensor BAD_MANIFEST"),
    "steps of other scales": (True, values("conv.bias", weight="long"), "tensor BAD_MANIFEST"),
    "steps that are not finite": (True, values("conv.bias", input_scale=3e38), "tensor BAD_VALUES"),
}
#: Changes that leave a sound file.
SOUND = {
    "a name of 512 characters": named("é" * 512),
    "an escaped key": swapped('"name": "long"', '"n\\u0061me": "l\\u006fng"'),
    "null zero points": values("long", zero_point=None),
    "steps at the end of 32 bits": within("conv.bias", "data", integers=BOUND),
    "steps of a tied weight by its other name": tied,
}


@pytest.mark.parametrize("what", ATTACKS)
def test_a_fault_is_refused(program, sound, what):
    compact, edit, says = ATTACKS[what]
    parts = take_apart(sound[compact])
    changed = edit(parts)
    data = changed if isinstance(changed, bytes) else parts.seal()
    ((read,), said) = read_files([program], [data])
    assert not said
    assert not difference(data, read)
    if not says.startswith("tensor"):
        assert read.status == says
        return
    (tensor,) = [tensor for tensor in read.tensors if tensor.refused]
    assert says.split()[1] == tensor.values.status


@pytest.mark.parametrize("what", SOUND)
def test_what_is_sound_is_read(program, sound, what):
    parts = take_apart(sound[True])
    SOUND[what](parts)
    ((read,), said) = read_files([program], [parts.seal()])
    assert not said
    assert read.status == "OK"
    assert not any(tensor.refused for tensor in read.tensors)
    assert not difference(parts.seal(), read)
