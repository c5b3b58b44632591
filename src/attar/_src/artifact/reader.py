"""Open a ``.attar`` file and read its tensors and graphs with every check of the format (``docs/format.md``)."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from attar._src.artifact import bindings, jsontext, layout, stream_checks, streams
from attar._src.artifact.compact.deflating import inflate
from attar._src.artifact.compact.shrink import expand
from attar._src.artifact.graph import guards, values
from attar._src.artifact.graph.check import CheckedGraph, check_graph
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Binding, GraphRecord, Manifest, StepsValue, TensorRecord, least_minor
from attar._src.artifact.stream_checks import Table
from attar._src.coding import kernels
from attar._src.core.errors import ArtifactError, UnknownName, missing_file, naming_file, naming_section
from attar._src.core.spec import explain
from attar._src.core.tensors import CompressedTensor


class Artifact:
    """An open file. Opening checks everything but tensor payloads and graphs, which are checked on access.

    Attributes:
        path: None if the file was opened from bytes.
        limits: limits the file was checked against.
        minor: minor version of the format.
        version: version of the format, ``"1.0"`` to ``"1.4"``.
        sections: the bytes of every section.
        records: tensor records by name, aliases included.
    """

    def __init__(self, data: bytes | memoryview, *, limits: Limits, path: Path | None = None) -> None:
        self.path = path
        with naming_file(path):
            self._read(memoryview(data).toreadonly(), limits)

    def _read(self, data: memoryview, limits: Limits) -> None:
        self._data = data
        self.limits = limits
        self.file_bytes = len(data)
        with naming_section("header"):
            _at_most(self.file_bytes, limits.file_bytes, "file_bytes")
            minor = layout.read_header(data)
        text, place = layout.manifest_text(data, minor, limits)
        self.manifest_bytes = place.stop - place.start
        with naming_section("manifest"):
            self.manifest = _manifest(text, minor, limits)
        self.version, self.minor = f"{layout.MAJOR}.{minor}", minor
        self.sections = layout.cut_sections(data, self.manifest.sections, place, minor)
        layout.check_digest(data)
        with naming_section("manifest"):
            self.records = _records(self.manifest)
            self._demand_elements(guards.elements(record.shape) for record in self.manifest.tensors)
            self._tables = _tables(self.manifest, self.sections)
        self._places = _places(self.manifest, self.sections)
        for record in self.manifest.tensors:
            with naming_section(f"tensor {record.name}"):
                stream_checks.check_value(record.value, record.shape, self._tables)
                if isinstance(record.value, StepsValue):
                    stream_checks.check_steps(record, self.records.get(record.value.weight))
        with naming_section("manifest"):
            # They are elements too: a stream of equal ones takes no bytes.
            every = self.manifest.tensors
            self._demand_elements(guards.elements(each.shape) + stream_checks.coded_scales(each) for each in every)
            if not kernels.NATIVE:
                stream_checks.check_slow(every, limits.slow_symbols)
        self._graphs = {record.name: record for record in self.manifest.graphs}
        _check_graph_sections(self.manifest)
        self._bound = {record.name: self._describe_bindings(record) for record in self.manifest.graphs}

    @property
    def data(self) -> memoryview:
        """The bytes of the file."""
        return self._data

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors in file order, without aliases."""
        return tuple(record.name for record in self.manifest.tensors)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file in hexadecimal; reports beside the file refer to it."""
        return hashlib.sha256(self._data).hexdigest()

    def tensor(self, name: str, *, threads: int = 1) -> CompressedTensor:
        """Decode the tensor of this name or alias on at most ``threads`` cores; nothing is cached.

        Raises:
            UnknownName: there is no such tensor.
            ArtifactError: its payload is malformed.
        """
        record = self.records.get(name)
        if record is None:
            raise UnknownName("tensor", name, self.records)
        with naming_file(self.path), naming_section(f"tensor {record.name}"):
            decoder = self._decoder(record, threads)
            if isinstance(record.value, StepsValue):
                weight = self.records[record.value.weight]
                scale = self._decoder(weight, threads).scale(weight.value, weight.shape)
                return decoder.decode_steps(record.value, record.shape, scale)
            return decoder.decode(record.value, record.shape)

    def _decoder(self, record: TensorRecord, threads: int) -> streams.TensorDecoder:
        start, stop = self._places[record.name]
        return streams.TensorDecoder(self.sections[record.section][start:stop], self._tables, threads)

    def graph_record(self, name: str = "main") -> GraphRecord:
        """Return the record of a graph; raise :class:`UnknownName` if there is no such graph."""
        record = self._graphs.get(name)
        if record is None:
            raise UnknownName("graph", name, self._graphs)
        return record

    def graph(self, name: str = "main") -> onnx.ModelProto:
        """Parse and validate a graph, without its weights; nothing is cached.

        Raises:
            UnknownName: there is no such graph.
            ArtifactError: the graph is invalid.
        """
        return self.checked_graph(name).model

    def checked_graph(self, name: str = "main") -> CheckedGraph:
        """Return what :meth:`graph` parses, with the size of every value."""
        record = self.graph_record(name)
        bound = self._bound[record.name]
        with naming_file(self.path), naming_section(f"graph {record.name}"):
            stored, preset = self.sections[record.section], layout.preset("graph", self.minor)
            data = inflate(stored, record.length, self.limits.graph_bytes, preset)
            small = ((binding.to, self._small(binding, bound[binding.to])) for binding in record.bindings)
            constants = {name: known for name, known in small if known is not None}
            return check_graph(data, record, bound, constants, self.limits)

    def bound(self, name: str = "main") -> Mapping[str, bindings.Bound]:
        """Return type and shape of every bound initializer of a graph, without decoding anything."""
        return MappingProxyType(self._bound[self.graph_record(name).name])

    def initializer(self, binding: Binding, *, threads: int = 1) -> NDArray[Any]:
        """Return the dense values of the initializer of a binding."""
        with naming_file(self.path):
            return bindings.resolve(binding, lambda name: self.tensor(name, threads=threads).dense())

    def verify(self, *, threads: int = 1) -> None:
        """Check what opening does not: decode every tensor and validate every graph."""
        for name in self.names:
            self.tensor(name, threads=threads)
        nodes = 0
        for name in self._graphs:
            nodes += len(self.graph(name).graph.node)
            with naming_section("graphs"):
                _at_most(nodes, self.limits.nodes, "nodes")

    def _small(self, binding: Binding, bound: bindings.Bound) -> NDArray[Any] | None:
        """Return the values of a small dense initializer, on which shapes may depend, else None."""
        records = [self.records[part.tensor] for part in bindings.parts_of(binding)]
        if bound.dtype not in values.ONNX_DTYPES or math.prod(bound.shape) > values.SMALL_VALUE:
            return None
        if any(record.value.kind != "dense" or record.elements > values.SMALL_VALUE for record in records):
            return None
        return self.initializer(binding)

    def _describe_bindings(self, record: GraphRecord) -> dict[str, bindings.Bound]:
        section = f"graph {record.name}"
        found: dict[str, bindings.Bound] = {}
        with naming_section(section):
            _at_most(len(record.bindings), self.limits.nodes, "nodes, which read bindings")
        for binding in record.bindings:
            if binding.to in found:
                raise ArtifactError(f"two bindings make {binding.to!r}", section=section)
            with naming_section(f"{section}, binding of {binding.to!r}"):
                found[binding.to] = bindings.describe_binding(binding, self.records)
        with naming_section(f"{section}, bindings"):
            self._demand_elements(guards.elements(bound.shape) for bound in found.values())
            # A run costs the whole tensor to decode: a packed projection of three is decoded three times.
            read = sum(guards.elements(self.records[name].shape) for item in record.bindings for name in _sources(item))
            self._demand_elements([read // _DECODED])
        return found

    def _demand_elements(self, counts: Iterable[int]) -> None:
        """Raise if these elements are more than the limit, or than a file of this length plausibly holds."""
        count = sum(counts)
        _at_most(count, self.limits.elements, "elements")
        most = _FEW_ELEMENTS + self.limits.elements_per_byte * self.file_bytes
        _at_most(count, most, f"elements_per_byte: in a file of {self.file_bytes} bytes, elements")


#: A file may hold as many elements whatever its length: one of zeros is a few hundred bytes long.
_FEW_ELEMENTS = 2**25


_DECODED = 8  # how often the tensors of a graph may be decoded, on average


def open_artifact(source: str | Path | bytes, *, limits: Limits | None = None) -> Artifact:
    """Open a ``.attar`` file, or the bytes of one.

    Args:
        source: a path to a regular file, or the bytes.
        limits: limits on what the file may allocate; the defaults of :class:`Limits` if None.

    Raises:
        ArtifactError: the file cannot be read or is malformed.

    Example:
        >>> artifact = open_artifact("model.attar")
        >>> artifact.tensor("conv.weight").dense().shape
        (4, 3, 3, 3)
    """
    limits = limits or Limits()
    if isinstance(source, bytes):
        return Artifact(source, limits=limits)
    path = Path(source)
    return Artifact(_read(path, limits), limits=limits, path=path)


def _read(path: Path, limits: Limits) -> bytes:
    # Read, not mapped: if another process truncates a mapped file, access raises SIGBUS.
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError(f"{path} is not a regular file")
            with naming_file(path), naming_section("header"):
                layout.check_magic(file.read(layout.HEADER.size))
                _at_most(status.st_size, limits.file_bytes, "file_bytes")
            file.seek(0)
            return file.read(status.st_size)
    except FileNotFoundError as error:
        raise ArtifactError(missing_file(path)) from error
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise ArtifactError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _sources(binding: Binding) -> set[str]:
    return {part.tensor for part in bindings.parts_of(binding)}


#: Minor version -> what it added.
_SINCE = {
    1: "the dtype of a scale",
    2: "a scale for each block",
    3: "a dynamic node",
    4: "a coded scale, a bias in steps or a dynamic node that scales rows",
}


def _manifest(text: bytes, minor: int, limits: Limits) -> Manifest:
    """Parse the manifest of a file of format 1.``minor`` after checking every count against its limit."""
    found = jsontext.parse_json(text, values=limits.manifest_values)
    if minor >= layout.COMPACT:
        found = expand(found, most=limits.records)
        text = jsontext.write_json(found)
    graphs = _items(found, "graphs")
    plain = ("sections", "tables", "tensors", "aliases", "graphs", "folds", "class_names")
    counts = {key: len(_items(found, key)) for key in plain}
    for key in ("bindings", "inputs", "outputs", "activations", "dynamic", "rows"):
        counts[key] = sum(len(_items(item, key)) for item in graphs)
    counts["parts"] = sum(len(_items(binding, "parts")) for item in graphs for binding in _items(item, "bindings"))
    for key, count in counts.items():
        _at_most(count, limits.records, f"records ({key})")
    for key in ("graphs", "inputs", "outputs"):
        _at_most(counts[key], limits.ports, f"ports ({key})")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(explain(error, where="")) from error
    if minor < layout.COMPACT and any(section.crc32 is None for section in manifest.sections):
        raise ArtifactError("sections: each needs its crc32 before format 1.4")
    if (least := least_minor(manifest)) > minor:
        needs, says = f"{layout.MAJOR}.{least}", f"{layout.MAJOR}.{minor}"
        raise ArtifactError(f"{_SINCE[least]} needs format {needs}; the header says {says}")
    return manifest


def _items(value: Any, key: str) -> list[Any]:
    items = value.get(key) if isinstance(value, dict) else None
    return list(items) if isinstance(items, list | dict) else []


def _records(manifest: Manifest) -> dict[str, TensorRecord]:
    records: dict[str, TensorRecord] = {}
    for record in manifest.tensors:
        if record.name in records:
            raise ArtifactError(f"two tensors are named {record.name!r}")
        records[record.name] = record
    for alias, name in manifest.aliases.items():
        if alias in records or name not in records:
            raise ArtifactError(f"the alias {alias!r} of {name!r} must be a new name for an existing tensor")
    return records | {alias: records[name] for alias, name in manifest.aliases.items()}


def _tables(manifest: Manifest, sections: Sequence[memoryview]) -> list[Table]:
    kinds = [section.kind for section in manifest.sections]
    if "tables" in kinds[1:]:
        raise ArtifactError("coding tables must be one section, the first")
    data = sections[0] if kinds[:1] == ["tables"] else memoryview(b"")
    found, at = [], 0
    for record in manifest.tables:
        found.append(Table(record, bytes(data[at : at + record.length])))
        at += record.length
    if at != len(data):
        raise ArtifactError(f"the tables take {at} bytes of a section of {len(data)}", section="tables")
    return found


def _places(manifest: Manifest, sections: Sequence[memoryview]) -> dict[str, layout.SectionPlace]:
    """Return the place of each tensor's streams in its section; raise unless they fill it."""
    filled = {index: 0 for index, section in enumerate(manifest.sections) if section.kind == "tensors"}
    places: dict[str, layout.SectionPlace] = {}
    for record in manifest.tensors:
        if record.section not in filled:
            raise ArtifactError(f"section {record.section} holds no tensors", section=f"tensor {record.name}")
        start = filled[record.section]
        stop = start + sum(stream.length for stream in record.value.streams())
        places[record.name] = layout.SectionPlace(start, stop)
        filled[record.section] = stop
    for index, stop in filled.items():
        if stop != len(sections[index]):
            taken = f"{stop} of {len(sections[index])} bytes"
            raise ArtifactError(f"its streams take {taken}", section=f"section {index} (tensors)")
    return places


def _check_graph_sections(manifest: Manifest) -> None:
    names = [record.name for record in manifest.graphs]
    if not names or len(set(names)) != len(names):
        raise ArtifactError("a file must have one graph or more, with distinct names", section="manifest")
    of_graphs = [index for index, section in enumerate(manifest.sections) if section.kind == "graph"]
    if sorted(record.section for record in manifest.graphs) != of_graphs:
        raise ArtifactError("each graph must have a section of kind graph of its own", section="manifest")


def _at_most(count: int, limit: int, name: str) -> None:
    if count > limit:
        raise ArtifactError(f"{name}: {count} is more than the limit of {limit}; raise it in Limits")
