"""Writer: packs contents into the bytes of a ``.attar`` file, the same bytes each time (``docs/format.md``)."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from attar._src.artifact import jsontext, layout
from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.graph.strip import strip
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import (
    Activation,
    GraphRecord,
    Manifest,
    SectionRecord,
    Stream,
    TensorRecord,
    canonical,
    least_minor,
)
from attar._src.artifact.packing import Packed, pack_codes
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.streams import CodeArray, Record, record_streams, split
from attar._src.coding.registry import CODERS
from attar._src.core.errors import UnknownName
from attar._src.core.spec import build_spec

_SECTION = 1 << 20  # a section of tensors is closed once it holds this many bytes


def pack(contents: Contents, *, coder: str = "rans", limits: Limits | None = None) -> bytes:
    """Return the bytes of the file that holds ``contents``.

    Args:
        contents: tensors, graphs and all that travels with them.
        coder: how codes are stored, ``rans``, ``huffman`` or ``raw``; a stream that is smaller raw is raw.
        limits: what the file may ask for, as its reader will have it; the defaults of :class:`Limits` where None.

    Raises:
        UnknownName: there is no such coder.
        SpecError: something in ``contents`` does not fit its field.
        ArtifactError: a reader would refuse the file; the message names the section.
    """
    if coder not in set(CODERS):
        # A registry also takes a user's own; a file has to be read by everyone.
        raise UnknownName("coder", coder, CODERS)
    sections = _Sections()
    pieces = {name: split(tensor) for name, tensor in contents.tensors.items()}
    packed = pack_codes(
        [piece for of in pieces.values() for piece in of if isinstance(piece, CodeArray)], CODERS[coder]
    )
    if packed.tables:
        sections.add("tables", b"".join(data for _, data in packed.tables))
    manifest = build_spec(
        Manifest,
        where="contents",
        tables=tuple(record for record, _ in packed.tables),
        tensors=_tensors(contents, pieces, packed, sections),
        aliases=dict(contents.aliases),
        graphs=tuple(_graph(item, sections) for item in contents.graphs),
        sections=tuple(sections.records),
        folds=contents.folds,
        parameters=contents.parameters,
        preprocessing=contents.preprocessing,
        task=contents.task,
        class_names=contents.class_names,
        metric=contents.metric,
        recipe=dict(contents.recipe),
        versions=dict(contents.versions),
        licence=contents.licence,
    )
    # Files without anything newer keep the version, and the bytes, that every reader knows.
    data = layout.assemble(sections.data, jsontext.write_json(canonical(manifest)), least_minor(manifest))
    open_artifact(data, limits=limits).verify()
    return data


def write_atomically(path: str | Path, data: bytes) -> None:
    """Put ``data`` at ``path``: at every progress the file there is the old one or the new one, whole."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


class _Sections:
    """The sections of a file as they grow."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.records: list[SectionRecord] = []

    def add(self, kind: Literal["tables", "tensors", "graph"], data: bytes) -> int:
        """Add a section and return its index."""
        self.data.append(data)
        self.records.append(SectionRecord(kind=kind, length=len(data), crc32=zlib.crc32(data)))
        return len(self.data) - 1


def _tensors(
    contents: Contents, pieces: dict[str, list[bytes | CodeArray]], packed: Packed, sections: _Sections
) -> tuple[TensorRecord, ...]:
    """Lay the streams of all tensors out in sections and return the records of the tensors."""
    coded = iter(packed.streams)
    records: list[TensorRecord] = []
    pool: list[bytes] = []
    size = 0
    for name, tensor in contents.tensors.items():
        if size >= _SECTION:
            sections.add("tensors", b"".join(pool))
            pool, size = [], 0
        streams = [next(coded) if isinstance(piece, CodeArray) else (_plain(piece), piece) for piece in pieces[name]]
        pool += (data for _, data in streams)
        size += sum(len(data) for _, data in streams)
        value = record_streams(tensor, iter([record for record, _ in streams]))
        section = len(sections.data)
        records.append(
            build_spec(
                TensorRecord, where=f"tensor {name}", name=name, shape=tensor.shape, section=section, value=value
            )
        )
    if records:
        sections.add("tensors", b"".join(pool))
    return tuple(records)


def _plain(data: bytes) -> Record:
    return Stream(length=len(data))


def _graph(item: GraphContents, sections: _Sections) -> GraphRecord:
    text = strip(item)
    section = sections.add("graph", layout.deflate(text))
    record: GraphRecord = build_spec(
        GraphRecord,
        where=f"graph {item.name}",
        name=item.name,
        section=section,
        length=len(text),
        bindings=item.bindings,
        inputs=item.inputs,
        outputs=item.outputs,
        activations=tuple(_shortest(activation) for activation in item.activations),
    )
    return record


def _shortest(activation: Activation) -> Activation:
    """Return the activation with its scale in the shortest form that reads back to the same float32."""
    return activation.model_copy(update={"scale": float(str(np.float32(activation.scale)))})
