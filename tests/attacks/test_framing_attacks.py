"""Attacks on header, footer, positions, padding and checksums."""

import hashlib
import json
import os
import struct
import zlib

import pytest
from tests.attacks.reseal import Parts, deflate, take_apart

from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import open_artifact
from attar._src.core.errors import ArtifactError


@pytest.mark.parametrize("name", ["conv_net", "lstm", "transformer"])
def test_taking_apart_and_sealing_gives_a_sound_file(files, name):
    open_artifact(take_apart(files[name]).seal()).verify()


def test_truncation_at_every_length(files):
    data = files["conv_net"]
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            open_artifact(data[:length])


def test_truncation_with_the_footer_put_back(files):
    data = files["lstm"]
    for length in range(0, len(data) - 64, 7):
        cut = data[:length] + data[-64:-32]
        with pytest.raises(ArtifactError):
            open_artifact(cut + hashlib.blake2b(cut, digest_size=16).digest() + data[-16:])


def test_every_flipped_bit_is_noticed(files):
    data = bytearray(files["conv_net"])
    for index in range(len(data)):
        data[index] ^= 1 << index % 8
        with pytest.raises(ArtifactError):
            open_artifact(bytes(data))
        data[index] ^= 1 << index % 8


def test_bytes_before_or_after(files):
    for data in (b"\0" + files["lstm"], files["lstm"] + b"\0", files["lstm"] * 2):
        with pytest.raises(ArtifactError):
            open_artifact(data)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"magic": b"\x89PNG\r\n\x1a\n"}, "not a .attar file"),
        ({"major": 2}, "format 2.0 cannot be read"),
        ({"major": 0}, "format 0.0 cannot be read"),
        ({"minor": 5}, "format 1.5 cannot be read; this version of attar reads up to 1.4"),
        ({"minor": 4}, "sections: files of format 1.4 have no such key"),
        ({"zero": 1}, "cannot be read"),
        ({"padding": b"\1"}, "padding"),
    ],
)
def test_header(conv, refused, header, match):
    conv.header = header
    refused(conv.seal(), match)


@pytest.mark.parametrize(
    ("footer", "match"),
    [
        ({"magic": b"ATTAR-END-OF-FIX"}, "the end is missing"),
        ({"zero": 1}, "does not end at the footer"),
        ({"start": 0}, "does not end at the footer"),
        ({"start": 2**64 - 64}, "does not end at the footer"),
        ({"length": 2**64 - 1}, "does not end at the footer"),
        ({"inflated": 0}, "does not inflate to the 0 bytes"),
        ({"inflated": 100}, "does not inflate to the 100 bytes"),
        ({"inflated": 100_000}, "does not inflate"),
        ({"inflated": 2**63}, "more than the limit"),
        ({"crc32": 0}, "checksum"),
        ({"stored": b""}, "inflate"),
        ({"stored": b"\xff" * 40}, "cannot be inflated"),
        ({"stored": deflate(b"{}") + b"\0"}, "inflate"),
    ],
)
def test_footer(conv, refused, footer, match):
    conv.footer = footer
    refused(conv.seal(), match)


def test_a_stream_of_the_right_length_without_an_end(conv, refused):
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = json.dumps(conv.manifest).encode()
    conv.footer = {"stored": deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)}
    refused(conv.seal(describe=False), "manifest: does not inflate")


def test_wrong_digest(files, refused):
    data = bytearray(files["conv_net"])
    data[-20] ^= 1
    refused(bytes(data), "digest")


def test_an_inflation_bomb_in_the_manifest(conv, refused):
    conv.manifest = b" " * (1 << 24) + b"{}"
    refused(conv.seal(), "more than the limit of 16777216")


@pytest.mark.parametrize(
    ("index", "change", "match"),
    [
        (0, {"length": 2**48}, "the manifest should start at"),
        (0, {"length": 0}, "the manifest should start at|checksum"),
        (1, {"length": 2**48 + 1}, "length"),
        (1, {"length": -1}, "length"),
        (1, {"length": 3.5}, "length"),
        (1, {"length": True}, "length"),
        (1, {"crc32": 0}, "checksum"),
        (1, {"crc32": 2**32}, "crc32"),
        (1, {"kind": "graph"}, "holds no tensors"),
        (1, {"kind": "tables"}, "one section, the first"),
        (1, {"kind": "code"}, "kind"),
        (2, {"kind": "tensors"}, "streams take 0 of|of its own"),
    ],
)
def test_sections(conv, refused, index, change, match):
    conv.seal()
    conv.manifest["sections"][index] |= change
    refused(conv.seal(describe=False), match)


def test_sections_that_overlap_by_naming_one_twice(conv, refused):
    conv.seal()
    conv.manifest["sections"].insert(1, conv.manifest["sections"][1])
    refused(conv.seal(describe=False), "the manifest should start at")


def test_no_sections(conv, refused):
    conv.manifest["sections"] = []
    refused(conv.seal(), "the manifest should start at")


def test_a_file_above_its_limit(files, refused):
    refused(files["lstm"], "file_bytes", limits=Limits(file_bytes=100))


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.attar"):
        with pytest.raises(ArtifactError):
            open_artifact(path)
    (tmp_path / "empty.attar").touch()
    with pytest.raises(ArtifactError, match="too few"):
        open_artifact(tmp_path / "empty.attar")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang_the_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe.attar")
    with pytest.raises(ArtifactError, match="not a regular file"):
        open_artifact(tmp_path / "pipe.attar")


def test_a_sparse_file_is_refused_unread(tmp_path):
    with open(tmp_path / "huge.attar", "wb") as file:
        file.write(b"\x89ATR\r\n\x1a\n")
        file.truncate(2**40)
    with pytest.raises(ArtifactError, match="file_bytes"):
        open_artifact(tmp_path / "huge.attar")


def test_a_file_that_says_its_manifest_is_everywhere(files):
    data = files["conv_net"]
    for start in (0, 16, 64, 2**32, 2**63):
        body = data[:-64] + struct.pack("<QQQII", start, len(data), len(data), 0, 0)
        with pytest.raises(ArtifactError):
            open_artifact(body + hashlib.blake2b(body, digest_size=16).digest() + data[-16:])


# The layout of format 1.4: no sections, no padding, presets.


def test_taking_a_compact_file_apart_and_sealing_it_gives_a_sound_file(compact):
    open_artifact(compact.seal()).verify()


def test_every_flipped_bit_and_every_length_of_a_compact_file_is_noticed(files):
    data = bytearray(files["compact"])
    for index in range(len(data)):
        data[index] ^= 1 << index % 8
        with pytest.raises(ArtifactError):
            open_artifact(bytes(data))
        data[index] ^= 1 << index % 8
        with pytest.raises(ArtifactError):
            open_artifact(bytes(data[:index]))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"minor": 3, "compact": True}, "does not end at the footer|cannot be inflated|does not inflate|manifest"),
        ({"minor": 4, "compact": False}, "cannot be inflated|does not inflate|manifest"),
    ],
)
def test_the_layout_of_another_version(compact, refused, header, match):
    compact.header = header
    refused(compact.seal(), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"stored": 0}, "the manifest should start at"),
        ({"stored": 2**48}, "the manifest should start at"),
        ({"stored": 2**48 + 1}, "length"),
        ({"stored": -1}, "length"),
        ({"stored": True}, "length"),
        ({"stored": None}, "length"),
        ({"section": 0}, "section: files of format 1.4"),
        ({"length": 10}, "graph main: does not inflate"),
    ],
)
def test_the_stored_length_of_a_graph(compact, refused, change, match):
    compact.seal()
    compact.manifest["graphs"][0] |= change
    refused(compact.seal(describe=False), match)


def test_a_graph_without_its_stored_length(compact, refused):
    compact.seal()
    del compact.manifest["graphs"][0]["stored"]
    refused(compact.seal(describe=False), "length")


def test_bytes_between_the_parts_of_a_compact_file(compact, refused):
    for index in range(len(compact.sections)):
        padded = [data + b"\0" * (place == index) for place, data in enumerate(compact.sections)]
        compact.seal()
        made = Parts(compact.manifest, padded, compact.header)
        refused(made.seal(describe=False), "the manifest should start at")


def test_a_file_of_1_3_whose_sections_have_no_checksum(conv, refused):
    conv.seal()
    del conv.manifest["sections"][0]["crc32"]
    refused(conv.seal(describe=False), "crc32")


def test_more_bindings_by_name_than_records(compact, refused):
    tensor = {"name": "a", "shape": [], "value": {"kind": "dense"}}
    compact.manifest["tensors"] += [tensor | {"name": f"a{index}"} for index in range(60)]
    compact.manifest["graphs"] *= 1100
    refused(compact.seal(describe=False), "more than the limit")
