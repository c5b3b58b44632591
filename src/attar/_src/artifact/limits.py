"""Limits: what a reader agrees to allocate for a file, whatever the file asks (``docs/format.md``, section 7)."""

from __future__ import annotations

from pydantic import Field

from attar._src.core.spec import Spec


class Limits(Spec):
    """How much one file may ask for. Every limit is the caller's to raise: ``Limits(elements=2**32)``.

    Attributes:
        file_bytes: length of the file.
        manifest_bytes: length of the inflated manifest.
        records: tensors, sections, tables, aliases, graphs, folds, and over all graphs bindings, parts, ports and
            activations: so many of each.
        elements: elements of all tensors together, and of all that the bindings of one graph make of them.
        graph_bytes: length of one inflated graph.
        nodes: nodes of one graph; it may hold 16 protobuf fields for each node the limit allows.
        value_elements: elements of one value of a graph at the example sizes.
        graph_elements: elements of all values of a graph at the example sizes, together.
    """

    file_bytes: int = Field(default=2**32, ge=0)
    manifest_bytes: int = Field(default=2**24, ge=0)
    records: int = Field(default=2**16, ge=0)
    elements: int = Field(default=2**28, ge=0)
    graph_bytes: int = Field(default=2**26, ge=0)
    nodes: int = Field(default=2**16, ge=0)
    value_elements: int = Field(default=2**28, ge=0)
    graph_elements: int = Field(default=2**30, ge=0)
