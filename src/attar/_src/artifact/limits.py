"""Limits on the memory a file can make its reader allocate (``docs/format.md``, section 7)."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from attar._src.core.spec import Spec


class Limits(Spec):
    """Limits of one file. A caller may raise each: ``Limits(elements=2**32)``.

    Attributes:
        file_bytes: length of the file.
        manifest_bytes: length of the inflated manifest.
        manifest_values: values and keys in it.
        records: number of tensors; likewise of sections, tables, aliases, folds, class names, and, over all graphs, of
            bindings, parts and activations.
        ports: number of graphs; likewise of inputs, and of outputs, over all graphs.
        elements: elements of all tensors; likewise of all bound initializers of one graph.
        elements_per_byte: elements for each byte of the file, beyond the first 2^25.
        slow_symbols: symbols of the coder ``context``, where Python decodes them for want of the extension in C, in
            about 3 microseconds each. ``auto`` has 2.5 million at most, of which a mask and its values count up to
            twice: how many values there are is known only after decoding the mask.
        graph_bytes: length of one inflated graph.
        nodes: nodes of one graph, and of all that are verified; 16 protobuf fields are allowed for each.
        value_elements: elements of one value of a graph at the example sizes.
        graph_elements: elements of all values of a graph at the example sizes.
        work: multiply-adds of one run of a graph at the example sizes.
        folded: those that depend on constants alone, which a runtime computes as it opens the file; 8 more are allowed
            for each element of the graph's bound initializers.
    """

    file_bytes: int = Field(default=2**32, ge=0)
    manifest_bytes: int = Field(default=2**24, ge=0)
    manifest_values: int = Field(default=2**20, ge=0)
    records: int = Field(default=2**16, ge=0)
    ports: int = Field(default=2**10, ge=0)
    elements: int = Field(default=2**28, ge=0)
    elements_per_byte: int = Field(default=2**10, ge=0)
    slow_symbols: int = Field(default=2**23, ge=0)
    graph_bytes: int = Field(default=2**26, ge=0)
    nodes: int = Field(default=2**14, ge=0)
    value_elements: int = Field(default=2**28, ge=0)
    graph_elements: int = Field(default=2**30, ge=0)
    work: int = Field(default=2**42, ge=0)
    folded: int = Field(default=2**26, ge=0)

    def for_elements(self, count: int) -> Self:
        """Return limits that let a file have this many elements, with bytes, values and work in proportion.

        Limits that are larger already stay as they are.
        """
        times = -(-count // max(self.elements, 1))
        fields = ("file_bytes", "value_elements", "graph_elements", "work", "folded")
        raised = {name: max(getattr(self, name), times * getattr(self, name)) for name in fields}
        return self.model_copy(update={**raised, "elements": max(self.elements, count)})
