"""Inputs that all calibration examples share, such as a state of zeros: their ranges say nothing of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from attar._src.model.operators import is_floating
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel


def constant_inputs(graph: fx.GraphModule, inputs: CalibrationInputs) -> tuple[str, ...]:
    """Return the floating-point inputs of a graph that all of two examples or more share, if others differ."""
    found, nodes = [], graph.graph.find_nodes(op="placeholder")
    for place, (node, axis) in enumerate(zip(nodes, inputs.batch_axes, strict=True)):
        batches = [batch[place].movedim(axis, 0) for batch in inputs.batches]
        first = batches[0][:1]
        alike = all(each.shape[1:] == first.shape[1:] and bool((each == first).all()) for each in batches)
        if is_floating(node) and alike and inputs.examples > 1:
            found.append(node.name)
    return tuple(found) if len(found) < len(nodes) else ()


def computed_from(graph: fx.GraphModule, inputs: tuple[str, ...]) -> frozenset[str]:
    """Return these inputs and the values that are computed from them and parameters alone."""
    found = set(inputs)
    for node in graph.graph.nodes:
        read = [each for each in node.all_input_nodes if each.op != "get_attr"]
        if node.op == "call_function" and read and all(each.name in found for each in read):
            found.add(node.name)
    return frozenset(found)


def constant_warning(inputs: tuple[str, ...]) -> str:
    """Return what the user should know of such inputs."""
    names, are = " and ".join(map(repr, inputs)), "is" if len(inputs) == 1 else "are"
    return (
        f"input {names} {are} the same in all calibration examples, so what is computed from it alone stays in "
        "floating point, and other ranges may be too narrow: calibrate on inputs as they come, such as the states of "
        "later steps"
    )


def with_constant_values(
    model: CompressedModel, inputs: Mapping[str, CalibrationInputs]
) -> tuple[CompressedModel, list[str]]:
    """Return the model with floating values where calibration tells no range, and warnings about them."""
    graphs, warnings = dict(model.graphs), []
    for name, each in graphs.items():
        deployed = (each.folded_later or each.traced).graph
        if constant := constant_inputs(deployed, inputs[name]):
            graphs[name] = replace(each, floating=each.floating | computed_from(deployed, constant))
            warnings.append(constant_warning(constant))
    return replace(model, graphs=graphs), warnings
