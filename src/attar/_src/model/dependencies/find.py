"""Dependencies: the groups of channels of a module that can be removed, and what each removal takes along."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.labels import FIXED, Field, varying
from attar._src.model.dependencies.propagation import ProductCost, Propagation
from attar._src.model.dependencies.rules import is_kept, rule_of
from attar._src.model.operators import argument, operator_of

_NORMS = ("batch_norm", "instance_norm")


@dataclass(frozen=True)
class ChannelGroup:
    """Units that are alternatives to each other: the output channels of one layer, and of all that share them.

    Attributes:
        name: of the first weight whose output channels they are.
        weights: of all of these.
        units: numbers of the units that can be removed, in the order of the channels.
        channels: of the first weight, how many each unit has.
    """

    name: str
    weights: tuple[str, ...]
    units: tuple[int, ...]
    channels: int


@dataclass(frozen=True)
class Selection:
    """A submodule whose code fills in a fixed number of channels, of which a hook keeps some.

    Attributes:
        path: of the submodule.
        axis: of the channels.
        units: of the channels that its code makes.
        filled: mask of those that it fills in.
        chosen: the places of those that are kept now.
    """

    path: str
    axis: int
    units: torch.Tensor
    filled: torch.Tensor
    chosen: torch.Tensor

    def chosen_without(self, removed: Collection[int]) -> torch.Tensor:
        """Return the places to keep when units are removed: those filled in are still made, and no others."""
        left = kept(self.units, removed)
        places = (left | self.filled).cumsum(0) - 1
        return places[self.chosen[left[self.chosen]]]


@dataclass(frozen=True)
class Dependencies:
    """Which channels of a module go together.

    Attributes:
        groups: what can be removed.
        excluded: weight -> why its output channels, or some of them, stay.
        state: name of a parameter or buffer -> along each axis the unit of each element's place.
        axes: units along every axis of every value; at least one of each remains.
        costs: of the products; their factors are units.
        counts: path of a submodule and name of its attribute -> the units of what it counts.
        norms: names of the factors of norms with statistics of each channel.
        selections: submodules whose outputs hooks must shorten.
        sizes: path of a submodule -> the units along axes of the values that its code makes.
    """

    groups: tuple[ChannelGroup, ...]
    excluded: Mapping[str, str]
    state: Mapping[str, tuple[torch.Tensor, ...]]
    axes: tuple[frozenset[int], ...]
    costs: tuple[ProductCost, ...]
    counts: Mapping[tuple[str, str], torch.Tensor]
    norms: tuple[str, ...]
    selections: tuple[Selection, ...]
    sizes: Mapping[str, tuple[torch.Tensor, ...]]

    def macs(self, removed: Collection[int] = ()) -> int:
        """Return the multiplications for one example, without those of removed units."""
        return sum(round(cost.macs * _share(cost.factors, removed)) for cost in self.costs)

    def without(self, reasons: Mapping[str, str]) -> Dependencies:
        """Return the dependencies without groups, by name, which stay for these reasons."""
        left = tuple(group for group in self.groups if group.name not in reasons)
        why = {weight: reasons[g.name] for g in self.groups if g.name in reasons for weight in g.weights}
        return replace(self, groups=left, excluded={**self.excluded, **why})


def _share(factors: Sequence[torch.Tensor], removed: Collection[int]) -> float:
    share = 1.0
    for units in factors:
        share *= float(kept(units, removed).float().mean())
    return share


def kept(units: torch.Tensor, removed: Collection[int]) -> torch.Tensor:
    """Return a mask of the places whose unit is not removed."""
    return ~torch.isin(units, torch.tensor(sorted(removed), dtype=torch.int64))


def find_dependencies(module: nn.Module, captured: CapturedModel) -> Dependencies:
    """Find what can be removed from a module, by running its evaluation program once on the captured example."""
    known = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    known += [name for name, _ in module.named_buffers(remove_duplicate=False)]
    run = Propagation(captured.evaluation, known, rule_of)
    with torch.no_grad():
        run.run(*captured.example)
    made = dict(_fields_of(run))
    for fields in made.values():
        for field in fields:
            run.labels.one_axis(field)
    selections = _selections(run, made)
    axes = {frozenset(run.labels.roots(vector).tolist()) for vectors in run.state.values() for vector in vectors}
    sizes: dict[str, dict[tuple[int, ...], torch.Tensor]] = {}
    for node, fields in made.items():
        for field in fields:
            if len(varying(field)) == 1:
                units = run.labels.roots(field.reshape(-1))
                axes.add(frozenset(units.tolist()))
                for path in _stack(node):
                    sizes.setdefault(path, {})[tuple(units.tolist())] = units
    groups, excluded = _groups(run)
    return Dependencies(
        groups,
        excluded,
        {name: tuple(map(run.labels.roots, vectors)) for name, vectors in run.state.items()},
        tuple(sorted(axes, key=sorted)),
        tuple(ProductCost(c.node, c.macs, tuple(map(run.labels.roots, c.factors))) for c in run.costs),
        {(_stack(node)[-1], name): run.labels.roots(each) for (node, name), each in run.counts.items()},
        _norms(captured.evaluation),
        selections,
        {path: tuple(each.values()) for path, each in sizes.items()},
    )


def _norms(graph: fx.GraphModule) -> tuple[str, ...]:
    factors = [argument(node, "weight") for node in graph.graph.nodes if operator_of(node).kind in _NORMS]
    return tuple(str(factor.target) for factor in factors if isinstance(factor, fx.Node) and factor.op == "get_attr")


def _fields_of(run: Propagation) -> Iterator[tuple[fx.Node, tuple[Field, ...]]]:
    for node, fields in run.fields.items():
        flat = [each for entry in fields for each in (entry if isinstance(entry, tuple) else (entry,))]
        yield node, tuple(run.labels.collapsed(field) for field in flat)


def _stack(node: fx.Node) -> list[str]:
    """Return the paths of the submodules whose code calls a node, the innermost last."""
    return [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()] or [""]


def _selections(run: Propagation, made: Mapping[fx.Node, Sequence[Field]]) -> tuple[Selection, ...]:
    """Return the submodules whose last value has filled-in channels; channels that others fill in stay."""
    found = []
    for node, filled in run.filled.items():
        path, fields = _stack(node)[-1], [field for field in made[node] if len(varying(field)) == 1]
        chosen = _hook_of(node)
        last = bool(path) and all(path not in _stack(user) or user is chosen for user in node.users)
        if not last or len(fields) != 1:
            run.labels.freeze(filled, "the code fills in a fixed number of channels")
            continue
        (axis,) = varying(fields[0])
        vector = fields[0].reshape(-1)
        places = torch.arange(len(vector)) if chosen is None else run.value(chosen.args[2])
        found.append((path, axis, vector, torch.isin(vector, filled), places))
    return tuple(
        Selection(path, axis, run.labels.roots(vector), filled, places) for path, axis, vector, filled, places in found
    )


def _hook_of(node: fx.Node) -> fx.Node | None:
    """Return the node of the hook that keeps some of the channels a node makes, if there is one."""
    return next((user for user in node.users if is_kept(user)), None)


def _groups(run: Propagation) -> tuple[tuple[ChannelGroup, ...], dict[str, str]]:
    """Return the groups, and weight -> why output channels of it stay."""
    labels = run.labels
    outputs = [(name, labels.roots(vector)) for name, vector in run.outputs]
    excluded: dict[str, str] = {}
    together: list[tuple[dict[int, None], list[str], int]] = []
    for name, units in outputs:
        distinct = dict.fromkeys(units.tolist())
        free = {unit: None for unit in distinct if unit not in labels.frozen and unit != FIXED}
        stays = [unit for unit in distinct if unit not in free]
        if stays:
            count = sum(int((units == unit).sum()) for unit in stays)
            part = f"{count} of {len(units)} channels stay: " if free else ""
            excluded[name] = part + labels.frozen.get(stays[0], "its size is fixed")
        if len(distinct) == 1 and free:
            excluded[name] = labels.united_by.get(next(iter(free)), "it has one channel")
            continue
        if not free:
            continue
        times = len(units) // len(distinct)
        same = [each for each in together if not free.keys().isdisjoint(each[0])]
        merged = ({}, [], times) if not same else same[0]
        for each in same[1:]:
            merged[0].update(each[0])
            merged[1].extend(each[1])
            together.remove(each)
        if not same:
            together.append(merged)
        merged[0].update(free)
        merged[1].append(name)
    return tuple(ChannelGroup(n[0], tuple(dict.fromkeys(n)), tuple(u), t) for u, n, t in together), excluded
