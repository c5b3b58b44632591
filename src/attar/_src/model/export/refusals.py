"""What cannot be captured or exported, in words: what it is, where in the user's code, and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx_ir
import torch
from torch import fx, nn

from attar._src.artifact.graph.operators import OPERATORS
from attar._src.core.errors import AttarError, ModelError, place_in, place_of, short_message
from attar._src.model.export.places import described
from attar._src.model.operators import argument, operator_of

#: What a message of PyTorch says -> what it means and the way out.
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"(?i)data-dependent|Could not guard|could not extract specialized integer|unbacked symint",
        "what it computes depends on the values of a tensor, by an if, a loop, int(), .item() or an index: compute "
        "both branches and choose with torch.where, or move the decision out of forward",
    ),
    (
        r"specialized it to be a constant|Constraints violated|marked .* as dynamic",
        "its code fixes the length of an axis that should vary, as len(x) and int(x.shape[0]) do; write x.shape[0], or "
        "fix the axis with batch=N, dynamic=()",
    ),
    (
        r"\.numpy\(\) is not supported|\.tolist\(\)",
        "it leaves PyTorch with .numpy() or .tolist(): write it with torch functions",
    ),
    (
        r"(?i)inference tensor",
        "its tensors were made in torch.inference_mode(): build and load the module outside of it",
    ),
)
#: Operators without a form in a file -> what to write.
_ALTERNATIVES = {
    "NonZero": "the number of its results depends on data: choose with torch.where, or multiply by a mask",
    "Unique": "the number of its results depends on data; nn.Embedding(max_norm=...) needs it: renormalise the table "
    "once after training and build the embedding without max_norm",
    "Compress": "the number of its results depends on data: choose with torch.where, or multiply by a mask",
    "If": "a file has no control flow: compute both branches and choose with torch.where",
    "Loop": "a file has no control flow: write a loop of fixed length, or operators on whole tensors",
    "Scan": "a file has no control flow: write a loop of fixed length, or operators on whole tensors",
}
_OTHER = "compute it outside of the module, or write it with other operators"
_NO_FUNCTION = re.compile(r"No ONNX function found for <OpOverload\(op='(?:\w+)\.(\w+)'")
_CALLED = re.compile(r"target=torch\.ops\.(?:aten\.)?(\w+)")
_RANDOM = torch.Tag.nondeterministic_seeded


def not_captured(module: nn.Module, error: Exception) -> AttarError:
    """Return the error for a module that ``torch.export`` cannot run."""
    if isinstance(error, AttarError):
        return type(error)(f"{type(module).__name__} cannot be traced: {error}")
    line = place_of(error, packages=True)
    where = f" (at {line})" if line else ""
    cause = next((f"{means}. " for said, means in _CAUSES if re.search(said, str(error))), "")
    return ModelError(f"{type(module).__name__} cannot be traced{where}: {cause}{short_message(error)}")


def not_exported(module: nn.Module, graph: fx.GraphModule, error: BaseException) -> ModelError:
    """Return the error for a program that ``torch.onnx`` cannot export."""
    while error.__cause__ is not None:
        error = error.__cause__
    start = f"{type(module).__name__} cannot be exported to ONNX, so not deployed: "
    if isinstance(error, ModelError):
        return ModelError(f"{start}{error}")
    missing = _NO_FUNCTION.search(str(error))
    if missing is None:
        return ModelError(f"{start}{short_message(error)}")
    name = missing.group(1)
    calls = [node for node in graph.graph.nodes if name.strip("_").startswith(_packet(node))]
    where = described(calls[0]) if calls else name
    return ModelError(f"{start}{where} has no form in ONNX: {_OTHER}")


def refuse_random(module: nn.Module, graph: fx.GraphModule) -> None:
    """Check that a program in evaluation mode draws no random numbers.

    Raises:
        ModelError: it does; the message names the first call.
    """
    for node in graph.graph.nodes:
        if node.users and _RANDOM in getattr(node.target, "tags", ()) and _draws(node):
            dropout = "dropout" in node.name
            way = "write training=self.training" if dropout else "draw them if self.training, or make them an input"
            raise ModelError(
                f"{type(module).__name__} draws random numbers in evaluation mode: {described(node)}; a file always "
                f"computes the same of the same inputs: {way}"
            )


def refuse_operators(nodes: Iterable[onnx_ir.Node]) -> None:
    """Check that the format has the operators of an exported graph.

    Raises:
        ModelError: it lacks one; the message has the line that makes it and what to write.
    """
    for node in nodes:
        if node.op_type not in OPERATORS or node.domain:
            called = _CALLED.search(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
            line = place_in(node.metadata_props.get("pkg.torch.onnx.stack_trace", ""), packages=True)
            what = called.group(1) if called else node.op_type
            way = _ALTERNATIVES.get(node.op_type, _OTHER)
            raise ModelError(
                f"{what}{f' ({line})' if line else ''} becomes the ONNX operator {node.op_type}, which a file may not "
                f"hold: {way}"
            )


def _draws(node: fx.Node) -> bool:
    """Whether an operator with random numbers uses them: dropout does with a rate, and turned on."""
    row = operator_of(node)
    if row.evaluation is None:
        return True
    names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
    rate = next((argument(node, name) for name in ("p", "dropout", "dropout_p") if name in names), 1.0)
    return bool(argument(node, row.evaluation[0])) and rate != 0.0


def _packet(node: fx.Node) -> str:
    packet = str(getattr(node.target, "overloadpacket", "?"))
    return packet.removeprefix("aten.").strip("_")
