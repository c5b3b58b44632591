"""File layout: header, sections, padding, manifest and footer (``docs/format.md``, section 1)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from attar._src.artifact.compact.deflating import deflate, dictionary, inflate
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import SectionRecord
from attar._src.core.errors import ArtifactError, naming_section

MAGIC = b"\x89ATR\r\n\x1a\n"
END = b"ATTAR-END-OF-FIL"
MAJOR, MINOR = 1, 4
#: Since this minor version a file has no padding, no records of sections, and preset dictionaries.
COMPACT = 4
ALIGN = 64
HEADER = struct.Struct("<8sHHI")
FOOTER = struct.Struct("<QQQII16s16s")
_DIGEST_FROM = 32  # offset in the footer of the digest, which covers every byte of the file before it


class SectionPlace(NamedTuple):
    """Offsets of a part's first byte and of the byte after its last."""

    start: int
    stop: int


def align(offset: int) -> int:
    """Round ``offset`` up to a multiple of 64."""
    return -(-offset // ALIGN) * ALIGN


def after(offset: int, minor: int) -> int:
    """Return where what follows a part that ends at ``offset`` starts."""
    return offset if minor >= COMPACT else align(offset)


def places(lengths: Sequence[int], minor: int) -> list[SectionPlace]:
    """Return the places of sections of these lengths, each aligned to 64 bytes before format 1.4.

    Example:
        >>> places([100, 10], 0)
        [SectionPlace(start=64, stop=164), SectionPlace(start=192, stop=202)]
    """
    found: list[SectionPlace] = []
    stop = HEADER.size
    for length in lengths:
        start = after(stop, minor)
        stop = start + length
        found.append(SectionPlace(start, stop))
    return found


def preset(kind: str, minor: int) -> bytes:
    """Return the dictionary that ``manifest`` or ``graph`` is deflated with in format 1.``minor``; empty for none."""
    return dictionary(kind) if minor >= COMPACT else b""


def assemble(sections: Sequence[bytes], manifest: bytes, minor: int) -> bytes:
    """Return the file with these sections and this manifest (JSON), marked as format 1.``minor``."""
    where = places([len(section) for section in sections], minor)
    out = bytearray(HEADER.pack(MAGIC, MAJOR, minor, 0))
    for place, section in zip(where, sections, strict=True):
        out += bytes(place.start - len(out))
        out += section
    out += bytes(after(len(out), minor) - len(out))
    stored = deflate(manifest, preset("manifest", minor))
    start = len(out)
    out += stored
    out += FOOTER.pack(start, len(stored), len(manifest), zlib.crc32(stored), 0, bytes(16), END)[:_DIGEST_FROM]
    return bytes(out + hashlib.blake2b(out, digest_size=16).digest() + END)


def check_magic(start: bytes) -> None:
    """Check the first bytes of a file, before the rest of it is read."""
    if len(start) >= len(MAGIC) and not start.startswith(MAGIC):
        raise ArtifactError("this is not a .attar file")


def read_header(data: memoryview) -> int:
    """Check the header of a file and return the minor version of its format."""
    if len(data) < HEADER.size + FOOTER.size:
        raise ArtifactError(f"{len(data)} bytes are too few for a .attar file")
    magic, major, minor, zero = HEADER.unpack(data[: HEADER.size])
    if magic != MAGIC:
        raise ArtifactError("this is not a .attar file")
    if (major, zero) != (MAJOR, 0) or minor > MINOR:
        known = f"{MAJOR}.{MINOR}"
        raise ArtifactError(f"format {major}.{minor} cannot be read; this version of attar reads up to {known}")
    return int(minor)


def manifest_text(data: memoryview, minor: int, limits: Limits) -> tuple[bytes, SectionPlace]:
    """Check the footer; return the manifest's JSON and its place."""
    footer = len(data) - FOOTER.size
    start, stored, length, crc32, zero, _, end = FOOTER.unpack(data[footer:])
    if end != END:
        raise ArtifactError("the end is missing: the file is truncated or damaged", section="footer")
    if zero or start != after(start, minor) or start < HEADER.size or start + stored != footer:
        raise ArtifactError(f"a manifest of {stored} bytes at {start} does not end at the footer", section="footer")
    text = data[start:footer]
    with naming_section("manifest"):
        if zlib.crc32(text) != crc32:
            raise ArtifactError("the checksum does not match: the manifest is damaged")
        return inflate(text, length, limits.manifest_bytes, preset("manifest", minor)), SectionPlace(start, footer)


def check_digest(data: memoryview) -> None:
    """Check the digest of the whole file, after the section checksums, which tell which part is damaged."""
    footer = len(data) - FOOTER.size
    digest = data[footer + _DIGEST_FROM : footer + _DIGEST_FROM + 16]
    if hashlib.blake2b(data[: footer + _DIGEST_FROM], digest_size=16).digest() != digest:
        raise ArtifactError("the digest does not match: the file is damaged", section="footer")


def cut_sections(
    data: memoryview, sections: Sequence[SectionRecord], manifest: SectionPlace, minor: int
) -> tuple[memoryview, ...]:
    """Check positions, padding and checksums of the sections and return their bytes."""
    where = places([section.length for section in sections], minor)
    stop = where[-1].stop if where else HEADER.size
    if after(stop, minor) != manifest.start:
        wanted = f"the manifest should start at {after(stop, minor)}, not {manifest.start}"
        raise ArtifactError(f"the sections end at {stop}, so {wanted}", section="manifest")
    parts: list[memoryview] = []
    before = HEADER.size
    for index, (place, section) in enumerate(zip(where, sections, strict=True)):
        name = f"section {index} ({section.kind})"
        _check_padding(data[before : place.start], name)
        parts.append(data[place.start : place.stop])
        if section.crc32 is not None and zlib.crc32(parts[-1]) != section.crc32:
            raise ArtifactError("the checksum does not match: the section is damaged", section=name)
        before = place.stop
    _check_padding(data[before : manifest.start], "manifest")
    return tuple(parts)


def _check_padding(data: memoryview, section: str) -> None:
    if any(data):
        raise ArtifactError("the padding before it is not zero", section=section)
