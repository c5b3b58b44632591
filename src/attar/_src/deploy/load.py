"""``attar.load``: a file back into PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.core.errors import ModelError
from attar._src.model.entry import forward_parameters
from attar._src.model.trace import trace
from attar._src.model.traced import TracedModel
from attar._src.work.compressed_model import CompressedModel


def load(path: str | Path, into: nn.Module) -> fx.GraphModule:
    """Load a file into a module of the class it was made from.

    The decoded weights are copied into ``into``. A folded batch-norm becomes the identity plus the folded bias, so
    ``into`` computes the file's outputs without rounding activations.

    Args:
        path: a ``.attar`` file.
        into: a module of the same architecture; its state is replaced.

    Returns:
        The traced module with decoded weights and rounded activations. Without quantized activations its outputs differ
        from the file's by at most 1e-5 of the largest output. With them, weights and grids are equal, but rounding of
        float32 sums can move values at a tie to the next code (``module.double()`` is closer).

    Raises:
        ArtifactError: the file is damaged.
        ModelError: the module has another architecture; the message has the tensors that do not fit.
    """
    artifact = open_artifact(path)
    record = artifact.manifest.graphs[0]
    example = tuple(
        torch.zeros(
            tuple(port.example or ()),
            dtype=torch.float32 if port.dtype == "f32" else getattr(torch, _TORCH[port.dtype]),
        )
        for port in record.inputs
    )
    axes = {axis for port in record.inputs for axis, size in enumerate(port.shape) if isinstance(size, str)}
    names = tuple(port.name for port in record.inputs)
    # The exporter renames Python's own words (input -> input_1); inputs are then matched by position.
    known = set(names) <= forward_parameters(into).keys()
    traced = trace(into, example, names=names if known else (), dynamic=sorted(axes))
    untouched = CompressedModel(traced)
    tensors = {name: artifact.tensor(name) for name in untouched.stored() if name in artifact.names}
    _check(artifact, traced, untouched)
    # Rounding a value moved from a rounded one again changes nothing, so all values are marked as rounded.
    activations = {activation.value: activation for activation in record.activations}
    compressed = CompressedModel(traced, tensors=tensors, activations=activations, rounded=frozenset(activations))
    _fill(into, artifact, traced)
    return compressed.simulate()


_TORCH = {"i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8", "bool": "bool", "f16": "float16"}


def _check(artifact: Artifact, traced: TracedModel, untouched: CompressedModel) -> None:
    """Refuse a module whose tensors, shapes, folds or values differ from the file's."""
    stored = {record.name: tuple(record.shape) for record in artifact.manifest.tensors}
    expected = {name: tensor.shape for name, tensor in untouched.stored().items()}
    faults = [f"{name} is not in the file" for name in expected if name not in stored]
    faults += [f"{name} is not in the module" for name in stored if name not in expected]
    faults += [
        f"{name} is {expected[name]} in the module and {stored[name]} in the file"
        for name in expected
        if name in stored and stored[name] != expected[name]
    ]
    if dict(traced.folding.folded) != {fold.batch_norm: fold.into for fold in artifact.manifest.folds}:
        faults.append("the file has other folded batch-norms than the module")
    nodes = {node.name for node in traced.graph.graph.nodes}
    for activation in artifact.manifest.graphs[0].activations:
        if activation.value not in nodes:
            written = artifact.manifest.versions.get("torch", "another version of")
            faults.append(
                f"the trace has no value {activation.value} (file: torch {written}, here: {torch.__version__})"
            )
    if faults:
        raise ModelError(f"the file was made from another module: {'; '.join(faults[:4])}")


def _fill(module: nn.Module, artifact: Artifact, traced: TracedModel) -> None:
    """Copy the decoded tensors into the caller's module."""
    folded = {bias: name for name, bias in traced.folding.biases.items()}
    names = {*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers())}
    with torch.no_grad():
        for record in artifact.manifest.tensors:
            value = torch.from_numpy(np.array(artifact.tensor(record.name).dense()))
            if record.name in folded:
                _become_identity(module.get_submodule(folded[record.name]), value)
                if record.name in names:
                    _get(module, record.name).zero_()
            elif record.name in names:
                _get(module, record.name).copy_(value)


def _become_identity(norm: nn.Module, bias: torch.Tensor) -> None:
    """Make a batch-norm compute ``x + bias``: mean 0, variance 1 - eps, weight 1."""
    assert isinstance(norm.running_mean, torch.Tensor)
    assert isinstance(norm.running_var, torch.Tensor)
    assert isinstance(norm.eps, float)
    if not isinstance(norm.bias, torch.Tensor) or not isinstance(norm.weight, torch.Tensor):
        norm.running_mean.copy_(-bias)
    else:
        norm.running_mean.zero_()
        norm.weight.fill_(1.0)
        norm.bias.copy_(bias)
    norm.running_var.fill_(1.0 - norm.eps)


def _get(module: nn.Module, name: str) -> torch.Tensor:
    owner, _, leaf = name.rpartition(".")
    tensor = getattr(module.get_submodule(owner), leaf)
    assert isinstance(tensor, torch.Tensor)
    return tensor
