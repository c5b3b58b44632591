"""Takes a file apart, and puts it together again with right lengths and checksums.

Written from ``docs/format.md`` alone, without the package's own layout code: it is a second reading of the page.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx


@dataclass
class Parts:
    """A file in pieces that can be edited: the manifest as JSON, or as the bytes of its text."""

    manifest: Any
    sections: list[bytes]
    header: dict[str, Any] = field(default_factory=dict)
    footer: dict[str, Any] = field(default_factory=dict)

    def graph(self, edit: Callable[[onnx.ModelProto], Any], index: int = 0) -> "Parts":
        """Edit a graph of the file as a message."""
        record = self.manifest["graphs"][index]
        model = onnx.ModelProto.FromString(zlib.decompress(self.sections[record["section"]], -15))
        edit(model)
        return self.graph_bytes(model.SerializeToString(), index)

    def graph_bytes(self, text: bytes, index: int = 0) -> "Parts":
        """Replace a graph of the file by these bytes, deflated."""
        record = self.manifest["graphs"][index]
        self.sections[record["section"]] = deflate(text)
        record["length"] = len(text)
        return self

    def seal(self, *, describe: bool = True) -> bytes:
        """Return the file; ``describe`` says whether the manifest's sections are made right first."""
        if describe and isinstance(self.manifest, dict) and isinstance(self.manifest.get("sections"), list):
            for record, data in zip(self.manifest["sections"], self.sections, strict=False):
                if isinstance(record, dict):
                    record |= {"length": len(data), "crc32": zlib.crc32(data)}
        text = self.manifest if isinstance(self.manifest, bytes) else json.dumps(self.manifest).encode()
        return seal(self.sections, text, header=self.header, footer=self.footer)


def take_apart(data: bytes) -> Parts:
    """Return the parts of a sound file."""
    start, stored, _, _, _, _, _ = struct.unpack("<QQQII16s16s", data[-64:])
    manifest = json.loads(zlib.decompress(data[start : start + stored], -15))
    sections, at = [], 16
    for record in manifest["sections"]:
        at = -(-at // 64) * 64
        sections.append(data[at : at + record["length"]])
        at += record["length"]
    return Parts(manifest, sections, {"minor": struct.unpack_from("<H", data, 10)[0]})


def seal(sections: list[bytes], text: bytes, *, header: dict[str, Any], footer: dict[str, Any]) -> bytes:
    """Return the file of these sections and this manifest, fields of header and footer replaced where given."""
    out = struct.pack(
        "<8sHHI",
        header.get("magic", b"\x89ATR\r\n\x1a\n"),
        header.get("major", 1),
        header.get("minor", 0),
        header.get("zero", 0),
    )
    for data in sections:
        out = pad(out, header.get("padding", b"\0")) + data
    out = pad(out)
    stored = footer.get("stored", deflate(text))
    out += stored + struct.pack(
        "<QQQII",
        footer.get("start", len(out)),
        footer.get("length", len(stored)),
        footer.get("inflated", len(text)),
        footer.get("crc32", zlib.crc32(stored)),
        footer.get("zero", 0),
    )
    return out + hashlib.blake2b(out, digest_size=16).digest() + footer.get("magic", b"ATTAR-END-OF-FIL")


def pad(data: bytes, filling: bytes = b"\0") -> bytes:
    """Return ``data`` filled up to a multiple of 64."""
    return data + filling * (-len(data) % 64)


def deflate(data: bytes) -> bytes:
    """Return ``data`` as raw DEFLATE."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()
