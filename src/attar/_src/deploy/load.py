"""``attar.load``: a file back into PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.core.errors import ArtifactError, ModelError
from attar._src.deploy.checkpoint import shape_faults
from attar._src.deploy.pruning.removals import follow_removals, graph_inputs, removals_of
from attar._src.deploy.pruning.unchanged import unchanged_on_error
from attar._src.model.forms.as_module import as_module
from attar._src.model.forms.wrappers import unwrap
from attar._src.model.readings.insert import values_read, with_readings
from attar._src.model.trace import trace
from attar._src.model.traced import TracedModel
from attar._src.work.compressed_model import MAIN, CompressedGraph, CompressedModel


def load(path: str | Path, into: nn.Module, *, limits: Limits | None = None) -> fx.GraphModule:
    """Load a file into a module of the class it was made from.

    A folded batch-norm of ``into`` becomes the identity plus the folded bias, so ``into`` computes the file's outputs
    without rounding activations. A layer that is used several times has the bias of its first use there; those of the
    others, rounded to other steps, are in the returned module.

    Args:
        path: a ``.attar`` file.
        into: a module of the same architecture, also in a wrapper; the decoded weights replace its state. Channels that
            were removed before the file was made are removed from it: give the module as it was before. Weights of a
            module in float16, or on another device, are rounded to its types; the returned module has them in float32.
        limits: limits on what the file may allocate; the defaults of :class:`Limits` if None.

    Returns:
        The traced module with decoded weights and rounded activations. Without quantized activations its outputs differ
        from the file's by at most 1e-5 of the largest output. With them, weights and grids are equal, but rounding of
        float32 sums can move values at a tie to the next code (``module.double()`` is closer).

    Raises:
        ArtifactError: the file is damaged.
        ModelError: the module has another architecture (the message has the tensors that do not fit), or parametrized
            weights, or the file has several graphs. The module stays as it was.
    """
    if Path(path).suffix == ".safetensors":
        raise ArtifactError(
            f"{path}: attar.load reads .attar files, such as save(...) of attar.prune writes; weights that "
            "save_weights wrote go into --weights of the commands and into recipes"
        )
    given = unwrap(into)
    into, _ = as_module(into)
    artifact = open_artifact(path, limits=limits)
    if len(artifact.manifest.graphs) > 1:
        several = [graph.name for graph in artifact.manifest.graphs]
        raise ModelError(f"the file has the graphs {several}; attar.load takes a file of one, attar.Session runs any")
    record = artifact.manifest.graphs[0]
    example, names, axes = graph_inputs(record, into, limits)
    original = given if given is not into and isinstance(given, nn.Module) else None
    with unchanged_on_error(into, *([] if original is None else [original])):
        follow_removals(into, removals_of(artifact.manifest), example, names, axes, original=original)
        traced = trace(into, example, names=names, dynamic=axes)
        traced = with_readings(traced, values_read(each.value for each in record.activations))
        untouched = CompressedModel.of(traced)
        tensors = {name: artifact.tensor(name) for name in untouched.stored() if name in artifact.names}
        _check(artifact, traced, untouched)
        _refuse_computed(into, traced, artifact)
    # Rounding a value moved from a rounded one again changes nothing, so all values are marked as rounded.
    activations = {activation.value: activation for activation in record.activations}
    deployed = traced.deployed_as() if record.dynamic else {}
    dynamic = frozenset(name for name, products in deployed.items() if not {*products}.isdisjoint(record.dynamic))
    rows = frozenset(name for name in dynamic if not {*deployed[name]}.isdisjoint(record.rows))
    graph = CompressedGraph(traced, activations, frozenset(activations), dynamic, rows)
    compressed = CompressedModel({MAIN: graph}, tensors)
    _fill(into, artifact, traced)
    if original is not None:
        _fill(original, artifact, traced)
    return compressed.simulate()


def _refuse_computed(module: nn.Module, traced: TracedModel, artifact: Artifact) -> None:
    """Refuse a module that computes a weight from parameters: the file has the value, from which they cannot be found.

    A value without a name in the module (``exp`` of a parameter) is in the traced module alone.
    """
    own = {*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers()), *traced.aliases}
    made = {*traced.folding.biases.values(), *traced.folding.copies, *own}
    computed = [name for name in traced.names if name in artifact.names and name not in made]
    for name in computed:
        owner, _, leaf = name.rpartition(".")
        if hasattr(module.get_submodule(owner), leaf):
            raise ModelError(
                f"the module computes {name} from other parameters, and the file has its value alone; make it a plain "
                "parameter first, with torch.nn.utils.parametrize.remove_parametrizations(layer, "
                f"{leaf!r}), or with torch.nn.utils.prune.remove, remove_weight_norm or remove_spectral_norm"
            )
    if computed:
        warnings.warn(
            f"the file has the values of {', '.join(computed)}, which the module computes from its parameters: these "
            "stay as they are in the module, the returned module computes with the file's values",
            stacklevel=3,
        )


def _check(artifact: Artifact, traced: TracedModel, untouched: CompressedModel) -> None:
    """Refuse a module whose tensors, shapes, folds or values differ from the file's."""
    stored = {record.name: tuple(record.shape) for record in artifact.manifest.tensors}
    faults = shape_faults(stored, {name: tensor.shape for name, tensor in untouched.stored().items()})
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
    own = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    # Tensors made in inference mode are changed there only.
    inside = any(each.is_inference() for each in own.values())
    with torch.inference_mode() if inside else torch.no_grad():
        for record in artifact.manifest.tensors:
            value = torch.from_numpy(np.array(artifact.tensor(record.name).dense()))
            if record.name in folded:
                _become_identity(module.get_submodule(folded[record.name]), value)
                value = torch.zeros(())
            if record.name in own:
                own[record.name].copy_(value)


def _become_identity(norm: nn.Module, bias: torch.Tensor) -> None:
    """Make a batch-norm compute ``x + bias``: mean 0, variance 1 - eps, weight 1."""
    state = norm.state_dict()
    assert isinstance(norm.eps, float)
    affine = "bias" in state and "weight" in state
    state["running_mean"].copy_(torch.zeros(()) if affine else -bias)
    state["running_var"].fill_(1.0 - norm.eps)
    if affine:
        state["weight"].fill_(1.0)
        state["bias"].copy_(bias)
