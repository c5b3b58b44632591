"""Residual layers of a module: residual blocks and transformer layers that can be removed as a whole.

A submodule is one if it has matrices, is called once, returns what has the shape of an argument, and the graph has a
path from there to its output without any product: ``y = x + f(x)``, ``norm(x + f(x))``, ``relu(x + f(x))``.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from attar._src.core.errors import ModelError, short_message
from attar._src.model.blocks.remove import Passage, container_of, remove_layers, skipping
from attar._src.model.capture import CapturedModel, in_mode
from attar._src.model.dependencies.check import close
from attar._src.model.dependencies.fills import module_stack
from attar._src.model.interface import call_by_name, flatten_outputs
from attar._src.model.operators import kind_of

#: Kinds of operators that have weights or multiply data by data.
_PRODUCTS = ("layer", "product", "recurrent", "embedding", "attention")
_GATES = (torch.ops.aten.mul.Tensor, torch.ops.aten.div.Tensor, torch.ops.aten.mul_.Tensor)


@dataclass(frozen=True)
class ResidualLayer:
    """A layer that can be removed.

    Attributes:
        path: of the submodule.
        passage: what takes the place of its output.
        container: path of the ``nn.Sequential`` or ``nn.ModuleList`` that it is a member of; None if it is an
            attribute.
    """

    path: str
    passage: Passage
    container: str | None


@dataclass(frozen=True)
class ResidualLayers:
    """The layers of a module that can be removed, in the order in which they run.

    Attributes:
        layers: the layers.
        excluded: path of a layer beside these -> why it stays.
    """

    layers: tuple[ResidualLayer, ...]
    excluded: Mapping[str, str]

    def without(self, reasons: Mapping[str, str]) -> ResidualLayers:
        """Return the layers without some, by path, which stay for these reasons."""
        left = tuple(each for each in self.layers if each.path not in reasons)
        return ResidualLayers(left, {**self.excluded, **reasons})

    def removable(self, ranked: Sequence[str], members: Mapping[str, int]) -> list[str]:
        """Return layers of ``ranked`` in order without those whose removal would leave nothing.

        One layer remains, and one member of each container.

        Args:
            ranked: paths, the first to be removed first.
            members: path of a container -> the number of its members.
        """
        left, of = {**members}, {each.path: each.container for each in self.layers}
        found: list[str] = []
        for path in ranked:
            container = of[path]
            if len(found) == len(self.layers) - 1 or (container is not None and left[container] == 1):
                continue
            if container is not None:
                left[container] -= 1
            found.append(path)
        return found


def find_residual_layers(module: nn.Module, captured: CapturedModel) -> ResidualLayers:
    """Find the layers of a module that can be removed, by running it on the captured example.

    Of submodules inside each other the innermost members of containers count, and attributes only where no member of a
    container is inside or around them. A layer whose removal alone is not what skipping it computes is excluded.
    """
    calls = _calls(module, captured)
    found: dict[str, ResidualLayer] = {}
    reasons: dict[str, str] = {}
    for path, call in calls.items():
        passage = call.passage()
        container = path.rpartition(".")[0] if container_of(module, path) is not None else None
        if isinstance(passage, Passage) and not _has_shortcut(captured.evaluation, path, call.output):
            passage = "its graph has no path around its products"
        if isinstance(passage, Passage):
            found[path] = ResidualLayer(path, passage, container)
        else:
            reasons[path] = passage
    members = _innermost([path for path, each in found.items() if each.container is not None])
    attributes = [path for path in found if not any(_inside(path, each) or _inside(each, path) for each in members)]
    layers = [found[path] for path in found if path in members or path in _innermost(attributes)]
    beside = {each.container for each in layers if each.container is not None}
    excluded = {path: why for path, why in reasons.items() if path.rpartition(".")[0] in beside}
    result = ResidualLayers(tuple(layers), excluded)
    if not layers:
        listed = "; ".join(f"{path}: {why}" for path, why in [*_members_alone(module, reasons)][:4])
        raise ModelError(
            f"no layer of {type(module).__name__} can be removed: it has no submodule that returns the shape it reads, "
            f"with a shortcut around its weights{f' ({listed})' if listed else ''}; remove channels instead"
        )
    trials = LayerTrials(module, captured)
    return result.without({each.path: why for each in layers if (why := trials.fault_of(each))})


class LayerTrials:
    """Removals of layers from copies of a module, each compared with the module that skips them."""

    def __init__(self, module: nn.Module, captured: CapturedModel) -> None:
        self.module, self.captured = module, captured

    def fault(self, dropped: Mapping[str, Passage], skipped: Mapping[str, Passage]) -> str:
        """Return why a removal does not work; empty if it does."""
        smaller = copy.deepcopy(self.module)
        try:
            with skipping(self.module, {**dropped, **skipped}):
                expected = self._outputs(self.module)
            remove_layers(smaller, dropped, skipped)
            given = self._outputs(smaller)
        except Exception as error:  # noqa: BLE001 - the module's code may raise anything
            return f"its code does not follow: {short_message(error)}"
        if given.keys() != expected.keys():
            return "the module returns something else without it"
        if not all(one.shape == expected[name].shape and close(one, expected[name]) for name, one in given.items()):
            return "its code computes something else without it"
        return ""

    def fault_of(self, layer: ResidualLayer) -> str:
        """Return why a layer can neither be taken out of its container nor replaced; empty if it can."""
        alone = {layer.path: layer.passage}
        return "" if layer.container is not None and not self.fault(alone, {}) else self.fault({}, alone)

    def settled(self, layers: Sequence[ResidualLayer]) -> tuple[dict[str, Passage], dict[str, Passage]]:
        """Return the layers to take out of their containers, and those to replace, both by path.

        Code that counts or indexes the members of a container needs as many as before.

        Raises:
            ModelError: neither works for all of them together.
        """
        by_container: dict[str | None, dict[str, Passage]] = {}
        for each in layers:
            by_container.setdefault(each.container, {})[each.path] = each.passage
        dropped: dict[str, Passage] = {}
        skipped: dict[str, Passage] = dict(by_container.pop(None, {}))
        for members in by_container.values():
            (skipped if self.fault(members, {}) else dropped).update(members)
        if dropped and not self.fault(dropped, skipped):
            return dropped, skipped
        dropped, skipped = {}, {**skipped, **dropped}
        if why := self.fault(dropped, skipped):
            raise ModelError(
                f"{type(self.module).__name__} does not work without {', '.join(skipped)} together: {why}; exclude some"
            )
        return dropped, skipped

    def _outputs(self, module: nn.Module) -> dict[str, torch.Tensor]:
        with torch.no_grad(), in_mode(module, train=False):
            return flatten_outputs(call_by_name(module, self.captured.names, self.captured.example))


@dataclass
class _Call:
    """A call of a submodule: arguments and output; ``count`` of how many in a run."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    returned: Any
    count: int = 1

    @property
    def output(self) -> torch.Tensor:
        """The first tensor it returned."""
        first = self.returned[0] if isinstance(self.returned, tuple) else self.returned
        assert isinstance(first, torch.Tensor)
        return first

    def passage(self) -> Passage | str:
        """Return what takes the place of the output, or why nothing can."""
        if self.count > 1:
            return f"it is called {self.count} times"
        several = isinstance(self.returned, tuple)
        first = self.returned[0] if several and self.returned else self.returned
        if not isinstance(first, torch.Tensor) or (several and any(each is not None for each in self.returned[1:])):
            return "it returns more than one value"
        every: Iterator[tuple[int | str, Any]] = iter([*enumerate(self.args), *self.kwargs.items()])
        for argument, value in every:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                if value.shape == first.shape and value.dtype == first.dtype:
                    return Passage(argument=argument, entries=len(self.returned) if several else 0)
                return f"it reads {tuple(value.shape)} and returns {tuple(first.shape)}"
        return "it reads no floating-point value"


def _calls(module: nn.Module, captured: CapturedModel) -> dict[str, _Call]:
    """Return path of a submodule with matrices -> its call, in the order of their ends."""
    found: dict[str, _Call] = {}

    def hook(path: str) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if path in found:
                found[path] = replace(found[path], count=found[path].count + 1)
            else:
                found[path] = _Call(args, kwargs, output)

        return record

    handles = [
        each.register_forward_hook(hook(path), with_kwargs=True)
        for path, each in module.named_modules()
        if path and any(parameter.dim() > 1 for parameter in each.parameters())
    ]
    try:
        with torch.no_grad(), in_mode(module, train=False):
            call_by_name(module, captured.names, captured.example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _has_shortcut(graph: fx.GraphModule, path: str, output: torch.Tensor) -> bool:
    """Whether a value from outside a submodule, of the shape of its output, reaches its output without a product."""
    inside = {node for node in graph.graph.nodes if node.op != "get_attr" and path in module_stack(node)}
    data = {node for node in graph.graph.nodes if node.op == "placeholder"}
    for node in graph.graph.nodes:
        if not data.isdisjoint(node.all_input_nodes):
            data.add(node)
    pending = [node for node in inside if any(user not in inside for user in node.users)]
    seen: set[fx.Node] = set()
    while pending:
        node = pending.pop()
        if node in seen or node not in data:
            continue
        seen.add(node)
        if node not in inside:
            if _has_shape(node.meta.get("val"), output.shape):
                return True
            continue
        gates = node.target in _GATES and sum(each in data for each in node.all_input_nodes) > 1
        if kind_of(node) not in _PRODUCTS and not gates:
            pending += node.all_input_nodes
    return False


def _has_shape(value: Any, shape: torch.Size) -> bool:
    """Whether a value of the trace has a shape; axes that may vary fit any length."""
    if not isinstance(value, torch.Tensor) or len(value.shape) != len(shape):
        return False
    sizes: Sequence[object] = value.shape  # Those that vary are symbols.
    return all(not isinstance(size, int) or size == wanted for size, wanted in zip(sizes, shape, strict=True))


def _inside(path: str, outer: str) -> bool:
    return path.startswith(f"{outer}.")


def _innermost(paths: Collection[str]) -> set[str]:
    return {path for path in paths if not any(_inside(other, path) for other in paths)}


def _members_alone(module: nn.Module, reasons: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the members of containers, which a reader looks for first."""
    yield from ((path, why) for path, why in reasons.items() if container_of(module, path) is not None)
