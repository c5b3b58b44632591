"""Pack contents into the bytes of a ``.attar`` file, deterministically (``docs/format.md``)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from attar._src.artifact import jsontext, layout
from attar._src.artifact.compact.deflating import deflate
from attar._src.artifact.compact.shrink import shrink
from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.files import demand_replaceable, open_part
from attar._src.artifact.graph.integer_biases import bias_steps
from attar._src.artifact.graph.strip import strip
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import (
    CodeStream,
    GraphRecord,
    Manifest,
    SectionRecord,
    StepsValue,
    Stream,
    TensorRecord,
    TensorValue,
    canonical,
    least_minor,
)
from attar._src.artifact.packing import AUTO, Packed, demand_coder, pack_codes
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.streams import (
    CodeArray,
    CodedIntegers,
    CodedSteps,
    StreamContents,
    record_streams,
    split,
    symbols_of,
)
from attar._src.coding.integers import pack_integers
from attar._src.core.numbers.steps import step_sizes, to_steps
from attar._src.core.spec import build_spec
from attar._src.core.tensors import CompressedTensor, Dense, Quantized

_SECTION = 1 << 20  # size in bytes at which a section of tensors is closed


def pack(contents: Contents, *, coder: str = AUTO, limits: Limits | None = None, compact: bool = True) -> bytes:
    """Return the bytes of the file that holds ``contents``.

    Args:
        contents: tensors, graphs and metadata.
        coder: entropy coder of codes: ``auto``, which is ``context`` in small files where it saves more than 1 % and
            ``rans`` elsewhere, or ``rans``, ``context``, ``huffman``, ``raw``; streams that are smaller raw are raw.
        limits: limits of the intended reader; the defaults of :class:`Limits` if None.
        compact: whether the file may have the shorter layout of format 1.4; if not, it is of the oldest version that
            has all it holds.

    Raises:
        UnknownName: there is no such coder.
        SpecError: a value in ``contents`` does not fit its field.
        ArtifactError: a reader would refuse the file; the message names the section.
    """
    demand_coder(coder)
    if not compact:
        coder = "rans" if coder == AUTO else coder
    pieces = {name: split(tensor, coded=compact) for name, tensor in contents.tensors.items()}
    pieces |= _steps(contents) if compact else {}
    graphs = [strip(item, compact=compact) for item in contents.graphs]
    preset = layout.preset("graph", layout.COMPACT if compact else 0)
    assemble = partial(_assemble, contents, pieces, [(len(text), deflate(text, preset)) for text in graphs], compact)
    codes = (symbols_of(piece) for split_tensor in pieces.values() for piece in split_tensor)
    found = [each for each in codes if each is not None]
    data = assemble(pack_codes(found, coder, length=lambda packed: len(assemble(packed))))
    open_artifact(data, limits=limits).verify()
    return data


def _assemble(
    contents: Contents,
    pieces: dict[str, list[StreamContents]],
    graphs: list[tuple[int, bytes]],
    compact: bool,
    packed: Packed,
) -> bytes:
    """Return the bytes of a file; ``graphs`` are the length of each text and the deflated text."""
    sections = _Sections()
    if packed.tables:
        sections.add("tables", b"".join(data for _, data in packed.tables))
    fields = vars(contents) | {
        "tables": tuple(record for record, _ in packed.tables),
        "tensors": _tensors(contents, pieces, packed, sections, compact),
        "aliases": dict(contents.aliases),
        "graphs": tuple(
            _graph(item, length, sections.add("graph", stored))
            for item, (length, stored) in zip(contents.graphs, graphs, strict=True)
        ),
        "sections": tuple(sections.records),
        "recipe": dict(contents.recipe),
        "versions": dict(contents.versions),
    }
    manifest = build_spec(Manifest, where="contents", **fields)
    told, minor = canonical(manifest), layout.COMPACT if compact else least_minor(manifest)
    return layout.assemble(sections.data, jsontext.write_json(shrink(told) if compact else told), minor)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: a reader sees the complete old or the complete new file.

    Raises:
        SpecError: there is something at ``path`` that is not a file.
    """
    path = Path(path)
    demand_replaceable(path)
    part, beside = open_part(path)
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


class _Sections:
    """Collects the sections of a file."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.records: list[SectionRecord] = []

    def add(self, kind: Literal["tables", "tensors", "graph"], data: bytes) -> int:
        """Add a section and return its index."""
        self.data.append(data)
        self.records.append(SectionRecord(kind=kind, length=len(data), crc32=zlib.crc32(data)))
        return len(self.data) - 1


def _tensors(
    contents: Contents,
    pieces: dict[str, list[StreamContents]],
    packed: Packed,
    sections: _Sections,
    compact: bool,
) -> tuple[TensorRecord, ...]:
    """Add the streams of all tensors to sections and return the tensors' records."""
    coded = iter(packed.streams)
    records: list[TensorRecord] = []
    pool: list[bytes] = []
    size = 0
    for name, tensor in contents.tensors.items():
        if size >= _SECTION and not compact:
            sections.add("tensors", b"".join(pool))
            pool, size = [], 0
        streams = [_stream(piece, coded) for piece in pieces[name]]
        pool += (data for _, data in streams)
        size += sum(len(data) for _, data in streams)
        value = _value(tensor, pieces[name], [record for record, _ in streams])
        fields = {"name": name, "shape": tensor.shape, "section": len(sections.data), "value": value}
        records.append(build_spec(TensorRecord, where=f"tensor {name}", **fields))
    if records:
        sections.add("tensors", b"".join(pool))
    return tuple(records)


def _steps(contents: Contents) -> dict[str, list[StreamContents]]:
    """Return name -> pieces of the biases that take less as whole steps."""
    made: dict[str, list[StreamContents]] = {}
    for name, steps in bias_steps(contents.graphs, contents.tensors).items():
        bias, weight = contents.tensors[name], contents.tensors[steps.weight]
        assert isinstance(bias, Dense)
        assert isinstance(weight, Quantized)
        numbers = to_steps(bias.data, step_sizes(steps.input_scale, weight.scale))
        # -0.0 equals 0.0, and is no number of steps.
        exact = numbers is not None and not np.signbit(bias.data[numbers == 0]).any()
        if numbers is not None and numbers.size and exact:
            coded = CodedSteps.of(numbers, 2**31 - 1, **steps._asdict())
            if coded.saves(bias.data.nbytes):
                made[name] = [coded]
    return made


def _value(tensor: CompressedTensor, pieces: list[StreamContents], records: list[Stream | CodeStream]) -> TensorValue:
    """Return the record of a tensor's values from those of its streams."""
    if isinstance(pieces[0], CodedSteps):
        scale = float(str(np.float32(pieces[0].input_scale)))  # the shortest decimal that is this float32
        fields = {"weight": pieces[0].weight, "input_scale": scale, "data": records[0]}
        return StepsValue.model_validate(fields)
    return record_streams(tensor, iter(records))


def _stream(piece: StreamContents, coded: Iterator[tuple[CodeStream, bytes]]) -> tuple[Stream | CodeStream, bytes]:
    """Return the record and the bytes of one stream; ``coded`` are those of symbols, in order."""
    record: Stream | CodeStream
    if symbols_of(piece) is not None:
        record, data = next(coded)
    else:
        assert not isinstance(piece, CodeArray)
        data = pack_integers(piece.codes, piece.levels) if isinstance(piece, CodedIntegers) else piece
        record = Stream(length=len(data))
    return (piece.record(record) if isinstance(piece, CodedIntegers) else record), data


def _graph(item: GraphContents, length: int, section: int) -> GraphRecord:
    record: GraphRecord = build_spec(
        GraphRecord,
        where=f"graph {item.name}",
        name=item.name,
        section=section,
        length=length,
        bindings=item.bindings,
        inputs=item.inputs,
        outputs=item.outputs,
        activations=tuple(
            # the shortest decimal that reads back to the same float32
            activation.model_copy(update={"scale": float(str(np.float32(activation.scale)))})
            for activation in item.activations
        ),
        dynamic=item.dynamic,
        rows=item.rows,
    )
    return record
