"""Contents of a file: plain data, the input of the writer."""

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
    """A graph and the bindings of its initializers.

    Attributes:
        name: the graph's name in the file; ``main`` if it is the only one.
        model: the ONNX model, with or without its bound initializers; the writer strips them, as all metadata.
        bindings: one for each initializer of more than 64 bytes, and for smaller ones that are stored tensors.
        inputs: the graph's inputs in order, each with an example size for every axis.
        outputs: the graph's outputs in order.
        activations: the quantized values.
        dynamic: names of the nodes whose data are quantized as they are read.
        rows: those among them that scale each row of their data before.
    """

    name: str
    model: onnx.ModelProto
    bindings: tuple[Binding, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    activations: tuple[Activation, ...] = ()
    dynamic: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Everything a file holds.

    Attributes:
        tensors: compressed tensors by their names in the module; the order is kept.
        graphs: at least one.
        parameters: number of parameters of the module, tied ones counted once.
        aliases: other name of a tensor (tied weights) -> its name.
        folds: batch-norm modules folded into others.
        preprocessing: maps a raw example to an input, or None.
        task: ``classification``, another word, or None.
        class_names: one name per class, or empty.
        metric: name of the task's metric, or None.
        recipe: how the model was compressed, JSON values.
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
