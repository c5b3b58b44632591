"""What ``attar.h`` reads of files is what Python reads of them, on every machine that is at hand."""

import json
import random
import subprocess
import zlib

import pytest
from tests.attacks.reseal import DICTIONARIES, take_apart
from tests.device import dictionary, kinds
from tests.device.expected import difference
from tests.device.program import HERE, build, has, read_files
from tests.house.repository import ROOT
from tests.samples import on_steps

from attar._src.artifact.writer import pack

COMMITTED = [*sorted(ROOT.glob("tests/golden/*.attar")), *sorted(ROOT.glob("studies/*/*.attar"))]


@pytest.fixture(scope="module")
def files():
    """Files of every kind of tensor: every coder, both layouts."""
    what = kinds.contents()
    older = {f"{coder}, not compact": pack(what, coder=coder, compact=False) for coder in ("rans", "huffman", "raw")}
    return older | {coder: pack(what, coder=coder) for coder in ("auto", "rans", "huffman", "raw", "context")}


def demand_same(program, files):
    reads, said = read_files(program, list(files.values()))
    assert not said
    assert len(reads) == len(files)
    found = {name: difference(data, read) for (name, data), read in zip(files.items(), reads, strict=True)}
    assert not any(found.values()), found
    return reads


def test_committed_files_of_every_version(program):
    demand_same([program], {path.name: path.read_bytes() for path in COMMITTED})


def test_every_kind_of_tensor(program, files):
    for read in demand_same([program], files):
        assert read.status == "OK"
        assert len(read.tensors) == len(kinds.contents().tensors)


def test_the_kinds_are_there(files):
    """What is read above has coded scales, as symbols of every coder and packed, and a bias in steps."""
    records = [record["value"] for record in take_apart(files["context"]).manifest["tensors"]]
    assert {value["kind"] for value in records} == {"dense", "quantized", "codebook", "sparse", "steps"}
    scales = [value["scale"]["integers"] for value in records if "integers" in value.get("scale", {})]
    assert min(scale["levels"] for scale in scales) == 1
    assert max(scale["levels"] for scale in scales) > 256
    assert len({scale.get("coder", "raw") for scale in scales}) > 1
    streams = [value[key] for value in records for key in ("codes", "mask") if key in value]
    assert sum(stream.get("coder") == "context" for stream in streams) > 3


def test_the_dictionary_is_that_of_the_format():
    assert dictionary.written() == dictionary.HEADER.read_text(), "run python -m tests.device.dictionary"


def test_on_32_bits_without_a_library(tmp_path, files):
    """Also on the x87 unit, whose registers keep more digits than a float32 has."""
    flags = ("-m32", "-ffreestanding", "-nostdlib", "-static", "-fno-stack-protector", "-fno-pie", "-no-pie")
    flags += ("-fno-tree-loop-distribute-patterns", f"-I{HERE / 'bare'}")
    try:
        nothing = build(tmp_path, *flags, compiler="gcc", sources=("bare/nothing.c", "bare/bare.c"))
        subprocess.run([nothing], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no 32-bit x86 here: {getattr(error, 'stderr', None) or error}"[:300])
    for level in ("-O0", "-O2"):
        program = build(tmp_path, *flags, level, compiler="gcc", sources=("device.c", "bare/bare.c"))
        demand_same([program], files)


@pytest.mark.parametrize("mode", ["-marm", "-mthumb"])
def test_on_arm(tmp_path, files, mode):
    if not has("arm-linux-gnueabihf-gcc") or not has("qemu-arm"):
        pytest.skip("no arm-linux-gnueabihf-gcc with qemu-arm")
    program = build(tmp_path, mode, "-O2", "-static", compiler="arm-linux-gnueabihf-gcc")
    demand_same(["qemu-arm", program], files)


def test_the_library_is_memcpy_and_memset(tmp_path):
    if not has("cc") or not has("nm"):
        pytest.skip("no C compiler with nm")
    source = tmp_path / "all.c"
    source.write_text('#define ATTAR_API extern\n#include "attar.h"\n')
    for level in ("-O0", "-O2"):
        command = ["cc", "-std=c99", level, "-fno-stack-protector", "-I", str(ROOT / "src/attar/c"), "-c", str(source)]
        subprocess.run([*command, "-o", str(tmp_path / "all.o")], check=True)
        missing = subprocess.run(["nm", "-u", str(tmp_path / "all.o")], check=True, capture_output=True, text=True)
        assert set(missing.stdout.split()) - {"U"} <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


def test_every_way_to_deflate_a_manifest(program, files):
    found = {}
    for compact in (True, False):
        parts = take_apart(files["rans" if compact else "rans, not compact"])
        for level, strategy in ((0, 0), (1, 0), (9, 0), (9, zlib.Z_HUFFMAN_ONLY), (9, zlib.Z_RLE), (9, zlib.Z_FIXED)):
            for length in (0, 90_000):  # longer than a window, and than a stored block
                names = [f"{number}é" for number in range(length // 6)]
                text = json.dumps(parts.manifest | {"class_names": names}).encode()
                preset = {"zdict": DICTIONARIES["manifest"]} if compact else {}
                deflater = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy, **preset)
                parts.footer = {"stored": deflater.compress(text) + deflater.flush(), "inflated": len(text)}
                found[compact, level, strategy, length] = parts.seal()
    assert all(read.status == "OK" for read in demand_same([program], found))


def test_decimals_are_rounded_as_in_python(program):
    """To float64, then to float32: the input scale of a bias in steps."""
    rng = random.Random(4)
    texts = ["1", "16777217", "5e-324", "2e-324", "1e-320", "7.0064923216240853e-46", "3.4028235e38", "3.4028236e38"]
    texts += ["1e39", "1e308", "0", "0.0", "-1.0", "1.000000059604644775390625", "1.0000000596046447753906251"]
    for _ in range(300):
        power = rng.choice((-45, -38, -10, -3, 0, 2, 30, 38))
        texts += [repr(rng.random() * 10.0**power), f"{rng.randrange(1, 10**25)}e{power - 25}"]
        texts += [f"{rng.randrange(1, 10**6)}.{rng.randrange(10**9)}E+{rng.randrange(3)}", str(rng.randrange(10**30))]
    parts = take_apart(pack(on_steps()))
    (bias,) = [record for record in parts.manifest["tensors"] if record["value"]["kind"] == "steps"]
    bias["value"]["input_scale"] = "here"
    before, after = json.dumps(parts.manifest).encode().split(b'"here"')
    found = {}
    for text in texts:
        parts.manifest = before + text.encode() + after
        found[text] = parts.seal()
    reads = demand_same([program], found)
    assert sum(read.status == "OK" and not any(tensor.refused for tensor in read.tensors) for read in reads) > 800


#: Texts that stand where the licence of a file does, and whether they are JSON.
TEXTS = {
    b'"plain"': True,
    b' \t\r\n"space" ': True,
    b'"\\" \\\\ \\/ \\b\\f\\n\\r\\t \\u00e9 \\uD83D\\ude00"': True,
    '"é 漢 \U0001f600"'.encode(): True,
    b"null": True,
    b'"\\x"': False,
    b'"\\u12"': False,
    b'"\\u12g4"': False,
    b'"\\ud800"': False,
    b'"\\ud800\\u0041"': False,
    b'"\\udc00"': False,
    b'"\xc3"': False,
    b'"\xc0\x80"': False,
    b'"\xe0\x9f\xbf"': False,
    b'"\xed\xa0\x80"': False,
    b'"\xf4\x90\x80\x80"': False,
    b'"\xff"': False,
    b'"\n"': False,
    b'"': False,
    b"nul": False,
    b"'x'": False,
    b"": False,
}
#: The same of the recipe, an object that nobody looks into.
RECIPES = {
    b"{}": True,
    b'{"a": [1, -0, 1.5, -2e-3, 3E+4, true, false, null, {}, []]}': True,
    b"{" + b'"a":{' * 30 + b"}" * 31: True,
    b"{" + b'"a":{' * 31 + b"}" * 32: False,
    b'{"a": [1,]}': False,
    b'{"a": 1,}': False,
    b'{"a" 1}': False,
    b'{"a": }': False,
    b"{1: 2}": False,
    b'{"a": [1 2]}': False,
    b'{"a": [1}': False,
    b'{"a": 01}': False,
    b'{"a": 1.}': False,
    b'{"a": .5}': False,
    b'{"a": -}': False,
    b'{"a": +1}': False,
    b'{"a": 1e}': False,
    b'{"a": NaN}': False,
    b'{"a": Infinity}': False,
    b'{"a": ' + b"1" * 32 + b"}": True,
    b'{"a": ' + b"1" * 33 + b"}": False,
}


def test_json_is_json(program, files):
    parts = take_apart(files["rans"])
    marked = json.dumps(parts.manifest | {"licence": "licence", "recipe": {"recipe": 0}}).encode()
    found, sound = {}, []
    for mark, texts in ((b'"licence"', TEXTS), (b'{"recipe": 0}', RECIPES)):
        for text, good in texts.items():
            before, _, after = marked.rpartition(mark)
            parts.manifest = before + text + after
            found[text] = parts.seal()
            sound.append(good)
    statuses = [read.status for read in demand_same([program], found)]
    assert statuses == ["OK" if good else "BAD_JSON" for good in sound]


def test_calls(tmp_path, files):
    """``calls.c`` checks what the functions of the header do beside reading sound files."""
    if not has("cc"):
        pytest.skip("no C compiler")
    program = build(tmp_path, "-O0", sources=["calls.c"])
    done = subprocess.run([program], input=files["rans"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
