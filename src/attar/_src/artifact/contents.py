"""Contents: what is to be packed, as plain data handed to the writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import onnx

from attar._src.artifact.manifest import Activation, Binding, Fold, Port, Preprocessing
from attar._src.core.tensors import CompressedTensor

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class GraphContents:
    """One graph and how its initializers are made of the tensors.

    Attributes:
        name: the graph's name in the file; ``main`` where there is one graph.
        model: the ONNX model; its bound initializers may be in it or not, the writer leaves them out with all else that
            is not the computation.
        bindings: one for each initializer of more than 64 bytes, and for smaller ones that are stored tensors.
        inputs: the graph's inputs in order, each with an example size for every axis.
        outputs: the graph's outputs in order.
        activations: the values that are quantized.
    """

    name: str
    model: onnx.ModelProto
    bindings: tuple[Binding, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    activations: tuple[Activation, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Everything a file holds.

    Attributes:
        tensors: compressed tensors by the module's own names; the order is kept.
        graphs: at least one.
        parameters: how many parameters the module had, tied ones counted once.
        aliases: another name of a tensor -> its name.
        folds: batch-norm modules folded into others.
        preprocessing: from a raw example to an input, or None.
        task: ``classification``, another word, or None.
        class_names: one name for each class, or empty.
        metric: the metric the task is judged by, or None.
        recipe: what was done, JSON values.
        versions: package -> version.
        licence: a note on the licence of the weights, or None.
    """

    tensors: Mapping[str, CompressedTensor]
    graphs: tuple[GraphContents, ...]
    parameters: int
    aliases: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    folds: tuple[Fold, ...] = ()
    preprocessing: Preprocessing | None = None
    task: str | None = None
    class_names: tuple[str, ...] = ()
    metric: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    versions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    licence: str | None = None
