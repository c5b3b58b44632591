"""The manifest as a file of format 1.4 holds it: without what follows from the rest (``docs/format.md``, section 2.1).

Both functions work on JSON values. :func:`expand` is given what anyone wrote: it refuses what it cannot read, and
leaves other faults to the validation of the records, which comes after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from attar._src.core.errors import ArtifactError
from attar._src.core.tensors import DTYPES

Json = dict[str, Any]
_MOST = 2**48  # the largest length or size of a record
_MAX_DIMS = 16


def shrink(manifest: Json) -> Json:
    """Return a manifest without sections, lengths that shapes tell, and bindings that names tell."""
    lengths = [section["length"] for section in manifest["sections"]]
    graphs, tensors = manifest["graphs"], manifest.get("tensors", [])
    told = _told(tensors, graphs)
    kept = []
    for graph in graphs:
        bindings = [item for item in graph.get("bindings", []) if not (item["to"] in told and _plain(item))]
        fields = {key: value for key, value in graph.items() if key not in ("section", "bindings")}
        kept.append(fields | {"stored": lengths[graph["section"]]} | ({"bindings": bindings} if bindings else {}))
    read = {name for graph in graphs for binding in graph.get("bindings", []) for name in _read(binding)}
    unbound = [item["name"] for item in tensors if item["name"] not in read]
    fields = {key: value for key, value in manifest.items() if key != "sections"} | {"graphs": kept}
    changed = {"unbound": unbound, "tensors": [_shrink_tensor(item) for item in tensors]}
    return fields | {key: value for key, value in changed.items() if value}


def expand(found: Json, *, most: int) -> Json:
    """Return the manifest that :func:`shrink` was given, with the bindings it left out before the others of each graph.

    Raises:
        ArtifactError: a record has a key of older formats alone, or no object, or more than ``most`` bindings are told.
    """
    tables, tensors, graphs = (_objects(found, key) for key in ("tables", "tensors", "graphs"))
    for key, records in (("sections", [found]), ("section", [*tensors, *graphs])):
        if any(key in record for record in records):
            raise ArtifactError(f"{key}: files of format 1.4 have no such key; it follows from the lengths")
    read = {name for graph in graphs for binding in _objects(graph, "bindings") for name in _read(binding)}
    told = [{"to": name} for name in _unread(tensors, read, found.get("unbound", []))]
    if len(told) * len(graphs) > most:
        bindings = f"{len(told)} tensors in each of {len(graphs)} graphs"
        raise ArtifactError(f"records (bindings): {bindings} are more than the limit of {most}; raise it in Limits")
    tensors = [_expand_tensor(item) for item in tensors]
    sizes = [_count(item.get("length")) for item in tables], [_stored_bytes(item.get("value")) for item in tensors]
    sections = [
        {"kind": kind, "length": sum(each)} for kind, each in zip(("tables", "tensors"), sizes, strict=True) if each
    ]
    of_tensors, first = len(sections) - 1, len(sections)
    sections += [{"kind": "graph", "length": graph.pop("stored", None)} for graph in graphs]
    tensors = [item | {"section": of_tensors} for item in tensors]
    graphs = [
        graph | {"section": first + index, "bindings": told + graph.get("bindings", [])}
        for index, graph in enumerate(graphs)
    ]
    fields = {key: value for key, value in found.items() if key != "unbound"}
    return fields | {"sections": sections, "tensors": tensors, "graphs": graphs}


def _told(tensors: Sequence[Json], graphs: Sequence[Json]) -> set[str]:
    """Return the tensors that every graph binds to their own name, and that no other binding reads."""
    bindings = [graph.get("bindings", []) for graph in graphs]
    plain = [{item["to"] for item in each if _plain(item)} for each in bindings]
    others = {name for each in bindings for item in each if not _plain(item) for name in _read(item)}
    return {item["name"] for item in tensors}.intersection(*plain) - others


def _unread(tensors: Sequence[Json], read: set[str], unbound: Any) -> list[str]:
    """Return the names of the tensors that no binding reads, but for those that are to be ``unbound``."""
    names = [item["name"] for item in tensors if isinstance(item.get("name"), str) and item["name"] not in read]
    if not isinstance(unbound, list) or not all(isinstance(name, str) for name in unbound):
        raise ArtifactError("unbound: a list of names was expected")
    if not (unbound := set(unbound)) <= set(names):
        raise ArtifactError("unbound: not every name is of a tensor that no binding reads")
    return [name for name in names if name not in unbound]


def _plain(binding: Json) -> bool:
    return binding.keys() == {"to"}


def _read(binding: Json) -> Iterator[str]:
    """Yield the names of the tensors that a binding reads."""
    names = [part.get("tensor") for part in _objects(binding, "parts")] or [binding.get("to")]
    return (name for name in names if isinstance(name, str))


def _shrink_tensor(record: Json) -> Json:
    value = record["value"]
    if value["kind"] == "dense" and value["data"] == {"length": _dense_bytes(record)}:
        value = {key: item for key, item in value.items() if key != "data"}
    return {key: item for key, item in record.items() if key != "section"} | {"value": value}


def _expand_tensor(record: Json) -> Json:
    value = record.get("value")
    if isinstance(value, dict) and value.get("kind") == "dense" and "data" not in value:
        return record | {"value": value | {"data": {"length": _dense_bytes(record)}}}
    return record


def _dense_bytes(record: Json) -> int:
    """Return the size of a dense tensor's elements, uncoded; 0 if its shape or type is none."""
    shape, dtype = record.get("shape"), record["value"].get("dtype", "f32")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMS or not isinstance(dtype, str) or dtype not in DTYPES:
        return 0
    return math.prod(map(_count, shape)) * DTYPES[dtype].itemsize


def _stored_bytes(value: Any) -> int:
    """Return the sum of the lengths of a value's streams, those of a sparse one's values included."""
    if not isinstance(value, dict):
        return 0
    streams = [item for item in value.values() if isinstance(item, dict)]
    return sum(_count(item.get("length")) for item in streams) + _stored_bytes(value.get("values"))


def _count(value: Any) -> int:
    """Return a length or size, 0 for anything else."""
    return value if type(value) is int and 0 <= value <= _MOST else 0


def _objects(record: Json, key: str) -> list[Json]:
    items = record.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ArtifactError(f"{key}: a list of objects was expected")
    return items
