"""The modes of a program: which operators of it act as in training, and one name for each value in both modes.

A module is exported in training and in evaluation mode. The operators that have modes (batch-norm, dropout) keep those
that the module itself gave them: a batch-norm that ``train()`` leaves in evaluation mode is in evaluation mode in both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from torch import fx, nn
from torch.utils._pytree import tree_map

from attar._src.core.errors import ModelError, SpecError
from attar._src.core.fields import main_output_name
from attar._src.model.export.places import described
from attar._src.model.operators import argument, argument_position, aten, is_floating, operator_of
from attar._src.model.programs import copy_graph

_NORMS = ("batch_norm", "instance_norm")
#: Kinds of operators that constraints of training act on.
_WEIGHING = ("layer", "product", "recurrent", "embedding", "attention")


def views_to_reshapes(graph: fx.GraphModule) -> None:
    """Let every ``view`` copy where it must.

    The exporter writes a ``reshape`` as a ``view`` where the strides at that time allow it. With gradients, or on other
    processors, attention returns other strides, on which a view fails.
    """
    for node in graph.graph.nodes:
        if node.target is aten.view.default:
            node.target = aten.reshape.default
    graph.recompile()


def drop_batch_counts(graph: fx.GraphModule) -> None:
    """Drop the counts of batches: only norms without momentum use them, and those cannot be captured."""
    for node in list(graph.graph.nodes):
        if node.target is aten.add_.Tensor and str(getattr(node.args[0], "target", "")).endswith("num_batches_tracked"):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def train_as(graph: fx.GraphModule, module: nn.Module, training: fx.GraphModule | None) -> None:
    """Put the operators of an evaluation program into the modes of training, in place.

    Args:
        graph: the program.
        module: in training mode.
        training: its training program, whose modes are taken where it calls the same operator in the same submodule
            equally often; if None or elsewhere, an operator is in the mode of its submodule.
    """
    known = {} if training is None else {key: _mode(node) for key, node in _places(training).items()}
    for key, node in _places(graph).items():
        off, now = operator_of(node).evaluation[1], _mode(node)  # type: ignore[index]
        if now is None:
            continue
        trains = off is False and _submodule(module, node).training
        _set_mode(node, known.get(key, True if trains else now))
    graph.recompile()


def name_alike(evaluation: fx.GraphModule, training: fx.GraphModule) -> fx.GraphModule:
    """Return the evaluation program, its values under the names that the same values have in training.

    Two values are the same if the same operator makes them of the same values, apart from its mode; or if their
    operator is called equally often in their submodule in both programs. So ``x + drop_path(f(x))``, where training
    alone has the operators of ``drop_path``, is the same sum as ``x + f(x)``. A value of evaluation alone has another
    name.

    Raises:
        ModelError: a layer of evaluation reads or makes a value that training does not compute.
    """
    same, taken = _same_values(evaluation, training), {node.name for node in training.graph.nodes}
    for node in _values(evaluation):
        if node not in same and any(operator_of(each).kind in _WEIGHING for each in (node, *node.users)):
            raise ModelError(f"training does not compute {described(node)}")
    for node in _values(evaluation):
        name, number = same[node].name if node in same else node.name, 0
        while node not in same and name in taken:
            number += 1
            name = f"{node.name}_{number}"
        taken.add(name)
        node.name = name
        # The exporter's provenance would go on with the old name.
        node.meta.pop("from_node", None)
    return copy_graph(evaluation)


def check_main_output(evaluation: fx.GraphModule, training: fx.GraphModule) -> None:
    """Check that a loss on the main output of training trains that of evaluation; their values are named alike.

    Raises:
        SpecError: training returns the main output of evaluation in another place.
        ModelError: it does not return it, and nothing that evaluation makes it of.
    """
    wanted, given = _main_value(evaluation), _main_value(training)
    known, behind = {node.name for node in training.graph.nodes}, {wanted}
    todo = [wanted]
    while todo:
        # softmax(logits) of evaluation is made of what training returns.
        fresh = [] if (node := todo.pop()).name in known else [n for n in node.all_input_nodes if n not in behind]
        behind.update(fresh)
        todo += fresh
    if given.name in {node.name for node in behind}:
        return
    if wanted.name in {node.name for node in _outputs(training).values()}:
        raise SpecError(
            f"the main output is {described(wanted)} in evaluation and {described(given)} in training: return the same "
            "one first in both modes, or return mappings with the key 'logits'"
        )
    raise ModelError(f"training does not return {described(wanted)}")


def _main_value(graph: fx.GraphModule) -> fx.Node:
    outputs = _outputs(graph)
    return outputs[main_output_name({name: is_floating(node) for name, node in outputs.items()})]


def _outputs(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """Return the outputs of a program by name; by position if they have none."""
    returned = graph.graph.output_node().args[0]
    nodes = [returned] if isinstance(returned, fx.Node) else list(returned)  # type: ignore[arg-type]
    spec = graph.graph._codegen.pytree_info.out_spec  # type: ignore[attr-defined]
    names = spec.context if spec is not None and spec.type is dict else map(str, range(len(nodes)))
    return dict(zip(names, nodes, strict=True))


def _same_values(evaluation: fx.GraphModule, training: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Return value of the evaluation program -> the same value in training."""
    made: dict[Any, list[fx.Node]] = defaultdict(list)
    called: dict[Any, list[fx.Node]] = defaultdict(list)
    for node in _values(training):
        made[_formula(node, {})].append(node)
        called[_place(node)].append(node)
    calls = Counter(map(_place, _values(evaluation)))
    seen: Counter[Any] = Counter()
    same: dict[fx.Node, fx.Node] = {}
    used: set[fx.Node] = set()
    for node in _values(evaluation):
        place = _place(node)
        alike = list(made[_formula(node, same)])
        if len(called[place]) == calls[place]:
            alike.append(called[place][seen[place]])
        seen[place] += 1
        found = next((each for each in alike if each not in used), None)
        if found is not None:
            same[node] = found
            used.add(found)
    return same


def _values(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op != "output"]


def _formula(node: fx.Node, same: dict[fx.Node, fx.Node]) -> Any:
    """Return what a node computes, apart from its mode; ``same``: node -> the node in its place."""
    args = list(node.args)
    row = operator_of(node)
    if row.evaluation is not None and (place := argument_position(node.target, row.evaluation[0])) < len(args):
        args[place] = None
    given = tree_map(lambda each: same.get(each, each) if isinstance(each, fx.Node) else each, (args, node.kwargs))
    # The name of a placeholder tells which input it is.
    return node.op, str(node.target), repr(given)


def _place(node: fx.Node) -> Any:
    """Return the operator and the submodule that calls it."""
    return node.op, str(node.target), _path(node)


def _path(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _submodule(module: nn.Module, node: fx.Node) -> nn.Module:
    """Return the submodule that called a node; the whole module if it is not found."""
    try:
        return module.get_submodule(_path(node))
    except AttributeError:
        return module


def _places(graph: fx.GraphModule) -> dict[Any, fx.Node]:
    """Return the operators that have modes, by operator, submodule, number of its calls and position among these."""
    found: dict[Any, list[fx.Node]] = defaultdict(list)
    for node in graph.graph.nodes:
        if operator_of(node).evaluation is not None:
            found[_place(node)].append(node)
    return {(place, len(nodes), at): node for place, nodes in found.items() for at, node in enumerate(nodes)}


def _mode(node: fx.Node) -> Any:
    """Return the argument that sets the mode of a node, None if it has no modes."""
    row = operator_of(node)
    # A norm without running statistics uses those of each batch in both modes.
    if row.evaluation is None or (row.kind in _NORMS and argument(node, "running_mean") is None):
        return None
    return argument(node, row.evaluation[0])


def _set_mode(node: fx.Node, value: Any) -> None:
    name, _ = operator_of(node).evaluation  # type: ignore[misc]
    place = argument_position(node.target, name)
    if place < len(node.args):
        node.update_arg(place, value)
    else:
        node.update_kwarg(name, value)
