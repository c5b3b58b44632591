"""Limits on the memory a file can make its reader allocate (``docs/format.md``, section 7)."""

from __future__ import annotations

from pydantic import Field

from attar._src.core.spec import Spec


class Limits(Spec):
    """Limits of one file. A caller may raise each: ``Limits(elements=2**32)``.

    Attributes:
        file_bytes: length of the file.
        manifest_bytes: length of the inflated manifest.
        records: number of tensors; likewise of sections, tables, aliases, graphs, folds, and, over all graphs, of
            bindings, parts, ports and activations.
        elements: elements of all tensors; likewise of all bound initializers of one graph.
        graph_bytes: length of one inflated graph.
        nodes: nodes of one graph; 16 protobuf fields are allowed for each.
        value_elements: elements of one value of a graph at the example sizes.
        graph_elements: elements of all values of a graph at the example sizes.
    """

    file_bytes: int = Field(default=2**32, ge=0)
    manifest_bytes: int = Field(default=2**24, ge=0)
    records: int = Field(default=2**16, ge=0)
    elements: int = Field(default=2**28, ge=0)
    graph_bytes: int = Field(default=2**26, ge=0)
    nodes: int = Field(default=2**16, ge=0)
    value_elements: int = Field(default=2**28, ge=0)
    graph_elements: int = Field(default=2**30, ge=0)
