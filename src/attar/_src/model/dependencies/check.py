"""Trial removals: groups whose removal the code of a module does not follow are found by running it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attar._src.core.errors import ModelError, short_message
from attar._src.model.capture import CapturedModel, in_mode
from attar._src.model.dependencies.fills import kept
from attar._src.model.dependencies.find import ChannelGroup, Dependencies, find_dependencies
from attar._src.model.dependencies.remove import AttributeSize, followed_sizes, remove_units
from attar._src.model.interface import call_by_name, flatten_outputs
from attar._src.model.programs import state_of

#: Largest difference of a pruned module from the masked one, relative to the largest output.
_TOLERANCE = 1e-5
#: Masked elements are so much smaller, not 0: a weight norm divides by the length of what may be a whole masked row.
_NEAR_ZERO = 1e-12
#: Outputs that are no larger are the remains of masked elements.
_ALL_ZERO = 1e-10
_MOST_TRIALS = 100


@dataclass(frozen=True)
class Removable:
    """Dependencies that a module's code follows, and the attributes that must follow, too."""

    found: Dependencies
    attributes: tuple[AttributeSize, ...] = ()

    def remove(self, module: nn.Module, units: Collection[int]) -> None:
        """Remove units from a module, in place."""
        remove_units(module, self.found, units, self.attributes)


class _Trials:
    """Removals from copies of a module, each compared with the same units masked."""

    def __init__(self, module: nn.Module, captured: CapturedModel) -> None:
        self.module, self.captured = module, captured

    def fault(self, removable: Removable, units: Collection[int]) -> str:
        """Return why a removal does not work; empty if it does."""
        smaller = copy.deepcopy(self.module)
        try:
            removable.remove(smaller, units)
            with torch.no_grad(), in_mode(smaller, train=False):
                output = flatten_outputs(call_by_name(smaller, self.captured.names, self.captured.example))
        except Exception as error:  # noqa: BLE001 - the module's code may raise anything
            return f"its code does not follow: {short_message(error)}"
        expected = masked_outputs(self.captured, removable.found, units)
        for given, wanted in zip(output.values(), expected.values(), strict=True):
            if given.shape != wanted.shape:
                return f"an output has the shape {tuple(given.shape)} instead of {tuple(wanted.shape)}"
            if not close(given, wanted):
                return "its code computes something else with fewer channels"
        return ""

    def smallest(
        self, found: Dependencies, guesses: Sequence[AttributeSize], units: Collection[int]
    ) -> Sequence[AttributeSize] | None:
        """Return attributes that must follow for a removal to work, none of them needlessly; None if nothing helps.

        Each alone is tried, and all but at most two.
        """
        each_alone = ([guess] for guess in guesses)
        most = (
            [guess for guess in guesses if all(guess is not each for each in left)]
            for count in range(3)
            for left in itertools.combinations(guesses, count)
        )
        for tried in itertools.islice(itertools.chain(each_alone, most), _MOST_TRIALS):
            if tried and not self.fault(Removable(found, tuple(tried)), units):
                for guess in list(tried):
                    fewer = [each for each in tried if each is not guess]
                    if fewer and not self.fault(Removable(found, tuple(fewer)), units):
                        tried = fewer
                return tried
        return None


def close(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether outputs are equal up to rounding: within 1e-5 of the largest, however small that is."""
    if not wanted.is_floating_point():
        return torch.equal(given, wanted)
    finite = wanted[wanted.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    tolerance = _TOLERANCE * largest if largest > _ALL_ZERO else _ALL_ZERO
    return torch.allclose(given, wanted, rtol=0, atol=tolerance, equal_nan=True)


def masked_outputs(captured: CapturedModel, found: Dependencies, units: Collection[int]) -> dict[str, torch.Tensor]:
    """Return the outputs on the captured example with every parameter of these units set to zero."""
    program = captured.copy(train=False)
    with torch.no_grad():
        return flatten_outputs(
            torch.func.functional_call(program, masked_state(program, found, units), tuple(captured.example))
        )


def masked_state(module: nn.Module, found: Dependencies, units: Collection[int]) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module, parameters with almost zeros where they belong to these units."""
    state = {name: tensor.detach() for name, tensor in state_of(module).items()}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, vectors in found.state.items():
        if name in parameters:
            state[name] = torch.where(of_units(vectors, units), state[name] * _NEAR_ZERO, state[name])
    return state


def of_units(vectors: Sequence[torch.Tensor], units: Collection[int]) -> torch.Tensor:
    """Return which elements of a tensor belong to units, bool in its shape.

    ``vectors``: along each axis the unit of each element's place.
    """
    found = torch.zeros([len(each) for each in vectors], dtype=torch.bool)
    for axis, vector in enumerate(vectors):
        found[(slice(None),) * axis + (~kept(vector, units),)] = True
    return found


def find_removable(module: nn.Module, captured: CapturedModel) -> Removable:
    """Find what can be removed from a module and is followed by its code.

    A few units of every group are removed from a copy, at first of all groups together. A group for which the code of
    the module computes something else, or raises, is tried with attributes that have the numbers of its channels
    changed, too; if that does not help it is excluded, with the reason.
    """
    found, trials = find_dependencies(module, captured), _Trials(module, captured)
    removable = _tried(module, found, trials)
    if removable.found.groups == found.groups:
        return removable
    fixed = find_dependencies(module, captured, fixed_fills=True)
    if fixed.groups == found.groups:
        return removable
    # Channels that the code fills in may be why.
    again = _tried(module, fixed, trials)
    return max((removable, again), key=lambda each: sum(len(group.units) for group in each.found.groups))


def _tried(module: nn.Module, found: Dependencies, trials: _Trials) -> Removable:
    """Return the dependencies without groups whose removal does not work, and the attributes that must follow."""
    every = [unit for group in found.groups for unit in _one_of_each_tier(found, group)]
    if not trials.fault(Removable(found), found.with_one_left(every)):
        return Removable(found)
    attributes: list[AttributeSize] = []
    excluded: dict[str, str] = {}
    for group in found.groups:
        units = _one_of_each_tier(found, group)
        why = trials.fault(Removable(found), units)
        if not why:
            continue
        follow = trials.smallest(found, _guesses(module, found, group.units), units)
        if follow is None:
            excluded[group.name] = why
        else:
            attributes += [each for each in follow if not _known(each, attributes)]
    return Removable(found.without(excluded), tuple(attributes))


def settle(
    module: nn.Module,
    captured: CapturedModel,
    removable: Removable,
    choose: Callable[[Dependencies], frozenset[int]],
) -> tuple[Removable, frozenset[int]]:
    """Return the units that ``choose`` chooses, and what is removable, after exactly these were removed from a copy.

    Code may follow the removal of a few units and not that of many. A group whose chosen units alone make the module
    compute something else is excluded, and the choice made again of the others.

    Raises:
        ModelError: the chosen units of each group can be removed, but not those of all together.
    """
    trials = _Trials(module, captured)
    while True:
        units = choose(removable.found)
        why = trials.fault(removable, units)
        if not why:
            return removable, units
        excluded = {}
        for group in removable.found.groups:
            own = units.intersection(group.units)
            if own and (reason := trials.fault(removable, own)):
                excluded[group.name] = f"without {len(own)} of its {len(group.units)} units, {reason}"
        if not excluded:
            names = ", ".join(group.name for group in removable.found.groups if not units.isdisjoint(group.units))
            raise ModelError(
                f"{type(module).__name__} does not work without the chosen units of {names} together: {why}; "
                "exclude some of these layers"
            )
        removable = Removable(removable.found.without(excluded), removable.attributes)


def _one_of_each_tier(found: Dependencies, group: ChannelGroup) -> list[int]:
    return found.with_one_left([units[0] for _, units in group.tiers])


def _known(each: AttributeSize, others: Sequence[AttributeSize]) -> bool:
    return any(each[:3] == other[:3] for other in others)


def _guesses(module: nn.Module, found: Dependencies, units: Collection[int]) -> list[AttributeSize]:
    """Return the attributes of submodules that use a group and that are as many as some of its channels."""
    guesses = []
    for path, vectors in found.sizes.items():
        submodule = module.get_submodule(path)
        for name, entry, value in _numbers(vars(submodule), followed_sizes(submodule)):
            fits = [each for each in vectors if len(each) == value and not kept(each, units).all()]
            if fits:
                guesses.append(AttributeSize(path, name, entry, fits[0]))
    return guesses


def _numbers(attributes: Mapping[str, Any], known: Collection[str]) -> Iterator[tuple[str, int | None, int]]:
    """Yield the attributes of a module that are whole numbers, and such entries of tuples and lists, but the known."""
    for name, value in attributes.items():
        if name.startswith("_") or name in known:
            continue
        if type(value) is int:
            yield name, None, value
        elif isinstance(value, tuple | list):
            yield from ((name, at, each) for at, each in enumerate(value) if type(each) is int)
