"""Dependencies: the groups of channels of a module that can be removed, and what each removal takes along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import reduce

import torch
from torch import fx, nn

from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.fills import Selection, find_fills, kept, module_stack
from attar._src.model.dependencies.labels import Field, varying
from attar._src.model.dependencies.propagation import ProductCost, Propagation
from attar._src.model.dependencies.rules import rule_of
from attar._src.model.operators import argument, operator_of

_NORMS = ("batch_norm", "instance_norm")


@dataclass(frozen=True)
class ChannelGroup:
    """Units that are alternatives to each other: the output channels of one layer, and of all that share them.

    Attributes:
        name: of the first weight whose output channels they are.
        weights: of all of these.
        units: numbers of the units that can be removed, in the order of the channels.
        tiers: the units by the weights they are in, with the channels that each has in one of these: of channels that
            pass through a shortcut from 16 to 32, those of both layers and those of the second alone.
    """

    name: str
    weights: tuple[str, ...]
    units: tuple[int, ...]
    tiers: tuple[tuple[int, tuple[int, ...]], ...]

    def matches(self, glob: str) -> bool:
        """Return whether a glob matches one of its weights, or the layer of one."""
        return any(matches_layer(each, glob) for each in self.weights)


def matches_layer(weight: str, glob: str) -> bool:
    """Return whether a glob matches a weight by its name or by that of its layer."""
    return fnmatchcase(weight, glob) or fnmatchcase(weight.rpartition(".")[0], glob)


@dataclass(frozen=True)
class Dependencies:
    """Which channels of a module go together.

    Attributes:
        groups: what can be removed.
        excluded: weight -> why its output channels, or some of them, stay; every matrix of the module without a group
            is here.
        outputs: name of a weight and the units of its output channels; of a tied one, for each of its uses.
        matrices: names of the parameters with several axes that are read.
        state: name of a parameter or buffer -> along each axis the unit of each element's place.
        axes: units along every axis of every value; at least one of each remains.
        costs: of the products; their factors are units.
        counts: path of a submodule and name of its attribute -> the units of what it counts.
        norms: names of the factors of norms with statistics of each channel.
        selections: submodules whose outputs hooks must shorten.
        sizes: path of a submodule -> the units along axes of the values that its code makes.
        fixed_fills: whether channels that the code fills in stay.
    """

    groups: tuple[ChannelGroup, ...]
    excluded: Mapping[str, str]
    outputs: tuple[tuple[str, torch.Tensor], ...]
    matrices: tuple[str, ...]
    state: Mapping[str, tuple[torch.Tensor, ...]]
    axes: tuple[frozenset[int], ...]
    costs: tuple[ProductCost, ...]
    counts: Mapping[tuple[str, str], torch.Tensor]
    norms: tuple[str, ...]
    selections: tuple[Selection, ...]
    sizes: Mapping[str, tuple[torch.Tensor, ...]]
    fixed_fills: bool = False

    @property
    def named_groups(self) -> dict[str, ChannelGroup]:
        """The groups by the layer of their first weight; by this weight where a layer has several, as an LSTM."""
        layers = [group.name.rpartition(".")[0] or group.name for group in self.groups]
        return {
            layer if layers.count(layer) == 1 else group.name: group
            for layer, group in zip(layers, self.groups, strict=True)
        }

    def macs(self, removed: Collection[int] = ()) -> int:
        """Return the multiplications for one example, without those of removed units."""
        return sum(round(cost.macs * _share(cost.factors, removed)) for cost in self.costs)

    def widths(self, removed: Collection[int] = ()) -> dict[str, int]:
        """Return the number of output channels of every weight in a group, without removed ones."""
        units = {name: torch.tensor(group.units) for group in self.groups for name in group.weights}
        return {
            name: int(kept(own, removed).sum())
            for name, own in self.outputs
            if name in units and torch.isin(own, units[name]).any()
        }

    def with_one_left(self, removed: Sequence[int]) -> list[int]:
        """Return units to remove without those that would leave an axis without channels; the last come back."""
        left = dict.fromkeys(removed)
        for axis in self.axes:
            if axis and all(unit in left for unit in axis):
                del left[next(unit for unit in reversed(left) if unit in axis)]
        return list(left)

    def without(self, reasons: Mapping[str, str]) -> Dependencies:
        """Return the dependencies without groups, by name, which stay for these reasons."""
        left = tuple(group for group in self.groups if group.name not in reasons)
        stay = [group for group in self.groups if group.name in reasons]
        units = {name: set(torch.cat(self.state[name]).tolist()) for name in self.matrices if stay}
        still = {unit for group in left for unit in group.units}
        parts = {
            name: reasons[group.name]
            for group in reversed(stay)
            for name, own in units.items()
            if still.isdisjoint(own) and not own.isdisjoint(group.units)
        }
        weights = {weight: reasons[group.name] for group in stay for weight in group.weights}
        return replace(self, groups=left, excluded={**parts, **self.excluded, **weights})


def _share(factors: Sequence[torch.Tensor], removed: Collection[int]) -> float:
    share = 1.0
    for units in factors:
        share *= float(kept(units, removed).float().mean())
    return share


def find_dependencies(module: nn.Module, captured: CapturedModel, *, fixed_fills: bool = False) -> Dependencies:
    """Find what can be removed from a module, by running its evaluation program once on the captured example.

    ``fixed_fills``: whether channels stay that the code fills in, if no hook can remove them.
    """
    known = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    known += [name for name, _ in module.named_buffers(remove_duplicate=False)]
    run = Propagation(captured.evaluation, known, rule_of)
    with torch.no_grad():
        run.run(*captured.example)
    made = dict(_fields_of(run))
    for fields in made.values():
        for field in fields:
            run.labels.one_axis(field)
    selections, sides = find_fills(run, made, fixed=fixed_fills)
    axes = {frozenset(run.labels.roots(vector).tolist()) for vectors in run.state.values() for vector in vectors}
    sizes: dict[str, dict[tuple[int, ...], torch.Tensor]] = {}
    for path, side in sides:
        units = run.labels.roots(side)
        sizes.setdefault(path, {})[tuple(units.tolist())] = units
    for node, fields in made.items():
        for field in fields:
            if len(varying(field)) == 1:
                units = run.labels.roots(field.reshape(-1))
                axes.add(frozenset(units.tolist()))
                for path in module_stack(node):
                    sizes.setdefault(path, {})[tuple(units.tolist())] = units
    groups, excluded = _groups(run)
    several = {name for name, each in module.named_parameters(remove_duplicate=False) if each.dim() > 1}
    return Dependencies(
        groups,
        _without_groups(module, run, groups) | excluded,
        tuple((name, run.labels.roots(vector)) for name, vector in run.outputs),
        tuple(name for name in run.state if name in several),
        {name: tuple(map(run.labels.roots, vectors)) for name, vectors in run.state.items()},
        tuple(sorted(axes, key=sorted)),
        tuple(ProductCost(c.node, c.macs, tuple(map(run.labels.roots, c.factors))) for c in run.costs),
        {(module_stack(node)[-1], name): run.labels.roots(each) for (node, name), each in run.counts.items()},
        _norms(captured.evaluation),
        selections,
        {path: tuple(each.values()) for path, each in sizes.items()},
        fixed_fills,
    )


def _norms(graph: fx.GraphModule) -> tuple[str, ...]:
    factors = [argument(node, "weight") for node in graph.graph.nodes if operator_of(node).kind in _NORMS]
    return tuple(str(factor.target) for factor in factors if isinstance(factor, fx.Node) and factor.op == "get_attr")


def _fields_of(run: Propagation) -> Iterator[tuple[fx.Node, tuple[Field, ...]]]:
    for node, fields in run.fields.items():
        flat = [each for entry in fields for each in (entry if isinstance(entry, tuple) else (entry,))]
        yield node, tuple(run.labels.collapsed(field) for field in flat)


def _groups(run: Propagation) -> tuple[tuple[ChannelGroup, ...], dict[str, str]]:
    """Return the groups, and weight -> why output channels of it stay."""
    labels = run.labels
    outputs = [(name, labels.roots(vector)) for name, vector in run.outputs]
    excluded: dict[str, str] = {}
    found: list[_Members] = []
    for name, units in outputs:
        distinct = dict.fromkeys(units.tolist())
        free = [unit for unit in distinct if unit not in labels.frozen]
        if len(free) < len(distinct):
            stays = next(unit for unit in distinct if unit in labels.frozen)
            count = sum(int((units == unit).sum()) for unit in distinct if unit in labels.frozen)
            part = f"{count} of {len(units)} channels stay: " if free else ""
            excluded[name] = part + labels.frozen[stays]
        if len(distinct) == 1 and free:
            excluded[name] = labels.united_by.get(free[0], "it has one channel")
        elif free:
            counts = Counter(units.tolist())
            members = _Members({unit: {name: counts[unit]} for unit in free}, [name])
            same = [each for each in found if not each.units.keys().isdisjoint(free)]
            found = [each for each in found if each not in same]
            found.append(reduce(_Members.joined, [*same, members]))
    return tuple(each.group() for each in found), excluded


def _without_groups(module: nn.Module, run: Propagation, groups: Sequence[ChannelGroup]) -> dict[str, str]:
    """Return parameters with several axes, no unit of which is in a group -> why they stay."""
    every = dict(module.named_parameters(remove_duplicate=False))
    grouped = {unit for group in groups for unit in group.units}
    read = {id(every[name]): vectors for name, vectors in run.state.items() if name in every}
    found = {}
    for name, parameter in module.named_parameters():
        units = [unit for each in read.get(id(parameter), ()) for unit in run.labels.roots(each).tolist()]
        if parameter.dim() > 1 and grouped.isdisjoint(units):
            frozen = (run.labels.frozen[unit] for unit in units if unit in run.labels.frozen)
            no_outputs = "they are no layer's output channels"
            found[name] = next(frozen, no_outputs) if units else "the evaluation program does not read it"
    return found


@dataclass(frozen=True, eq=False)
class _Members:
    """A group as it grows: its units with the weights each is in, and how many channels it has there."""

    units: dict[int, dict[str, int]]
    weights: list[str]

    def joined(self, other: _Members) -> _Members:
        both = dict.fromkeys([*self.units, *other.units])
        units = {unit: self.units.get(unit, {}) | other.units.get(unit, {}) for unit in both}
        return _Members(units, [*self.weights, *other.weights])

    def group(self) -> ChannelGroup:
        weights = tuple(dict.fromkeys(self.weights))
        tiers: dict[tuple[int, frozenset[str]], list[int]] = {}
        for unit, counts in self.units.items():
            tiers.setdefault((max(counts.values()), frozenset(counts)), []).append(unit)
        by_size = tuple((channels, tuple(units)) for (channels, _), units in tiers.items())
        return ChannelGroup(weights[0], weights, tuple(self.units), by_size)
