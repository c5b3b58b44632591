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
from tests.house.repository import ROOT

#: The dictionaries of format 1.4.
DICTIONARIES = {
    path.stem: path.read_bytes() for path in (ROOT / "src/attar/_src/artifact/compact/dictionaries").glob("*.bin")
}


@dataclass
class Parts:
    """A file in pieces that can be edited: the manifest as JSON, or as the bytes of its text."""

    manifest: Any
    sections: list[bytes]
    header: dict[str, Any] = field(default_factory=dict)
    footer: dict[str, Any] = field(default_factory=dict)

    @property
    def compact(self) -> bool:
        """Whether the file was of the layout of format 1.4 when it was taken apart."""
        return isinstance(self.manifest, dict) and "sections" not in self.manifest

    def graph_section(self, index: int) -> Any:
        """Return the index of a graph's section; the last sections of format 1.4 are those of the graphs, in order."""
        graphs = self.manifest["graphs"]
        return len(self.sections) - len(graphs) + index if self.compact else graphs[index]["section"]

    def graph_text(self, index: int) -> bytes:
        """Return a graph of the file, inflated."""
        return inflate(self.sections[self.graph_section(index)], "graph" if self.compact else "")

    def graph(self, edit: Callable[[onnx.ModelProto], Any], index: int = 0) -> "Parts":
        """Edit a graph of the file as a message."""
        model = onnx.ModelProto.FromString(self.graph_text(index))
        edit(model)
        return self.graph_bytes(model.SerializeToString(), index)

    def graph_bytes(self, text: bytes, index: int = 0) -> "Parts":
        """Replace a graph of the file by these bytes, deflated."""
        record = self.manifest["graphs"][index]
        self.sections[self.graph_section(index)] = deflate(text, "graph" if self.compact else "")
        record["length"] = len(text)
        return self

    def seal(self, *, describe: bool = True) -> bytes:
        """Return the file; ``describe`` says whether the manifest's sections are made right first."""
        if describe and isinstance(self.manifest, dict) and isinstance(self.manifest.get("sections"), list):
            for record, data in zip(self.manifest["sections"], self.sections, strict=False):
                if isinstance(record, dict):
                    record |= {"length": len(data), "crc32": zlib.crc32(data)}
        elif describe and self.compact and isinstance(graphs := self.manifest.get("graphs"), list):
            for record, data in zip(reversed(graphs), reversed(self.sections), strict=False):
                if isinstance(record, dict):
                    record["stored"] = len(data)
        text = self.manifest if isinstance(self.manifest, bytes) else json.dumps(self.manifest).encode()
        return seal(self.sections, text, header=self.header, footer=self.footer)


def take_apart(data: bytes) -> Parts:
    """Return the parts of a sound file."""
    start, stored, _, _, _, _, _ = struct.unpack("<QQQII16s16s", data[-64:])
    (minor,) = struct.unpack_from("<H", data, 10)
    manifest = json.loads(inflate(data[start : start + stored], "manifest" if minor >= 4 else ""))
    sections, at = [], 16
    if minor >= 4:
        graphs = [record["stored"] for record in manifest["graphs"]]
        tables = sum(record["length"] for record in manifest.get("tables", []))
        lengths = [*filter(None, [tables]), *([start - 16 - tables - sum(graphs)] * ("tensors" in manifest)), *graphs]
    else:
        lengths = [record["length"] for record in manifest["sections"]]
    for length in lengths:
        at = at if minor >= 4 else -(-at // 64) * 64
        sections.append(data[at : at + length])
        at += length
    return Parts(manifest, sections, {"minor": minor})


def seal(sections: list[bytes], text: bytes, *, header: dict[str, Any], footer: dict[str, Any]) -> bytes:
    """Return the file of these sections and this manifest, fields of header and footer replaced where given."""
    out = struct.pack(
        "<8sHHI",
        header.get("magic", b"\x89ATR\r\n\x1a\n"),
        header.get("major", 1),
        header.get("minor", 0),
        header.get("zero", 0),
    )
    compact = header.get("compact", header.get("minor", 0) == 4)
    for data in sections:
        out = (out if compact else pad(out, header.get("padding", b"\0"))) + data
    out = out if compact else pad(out)
    stored = footer.get("stored", deflate(text, "manifest" if compact else ""))
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


def deflate(data: bytes, dictionary: str = "") -> bytes:
    """Return ``data`` as raw DEFLATE, with one of the format's dictionaries if it is named."""
    preset = {"zdict": DICTIONARIES[dictionary]} if dictionary else {}
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, **preset)
    return deflater.compress(data) + deflater.flush()


def inflate(data: bytes, dictionary: str = "") -> bytes:
    """Undo :func:`deflate`."""
    inflater = zlib.decompressobj(-15, zdict=DICTIONARIES[dictionary]) if dictionary else zlib.decompressobj(-15)
    return inflater.decompress(data) + inflater.flush()
