"""Channels that code fills in, such as the zeros of a padded shortcut: their number is in the code, not in a weight."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from attar._src.model.dependencies.labels import Field, varying
from attar._src.model.dependencies.propagation import Propagation
from attar._src.model.dependencies.rules import is_kept

_WHY = "the code fills in a fixed number of channels"


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


def kept(units: torch.Tensor, removed: Collection[int]) -> torch.Tensor:
    """Return a mask of the places whose unit is not removed."""
    return ~torch.isin(units, torch.tensor(sorted(removed), dtype=torch.int64))


def find_fills(
    run: Propagation, made: Mapping[fx.Node, Sequence[Field]], *, fixed: bool
) -> tuple[tuple[Selection, ...], tuple[tuple[str, torch.Tensor], ...]]:
    """Return the submodules whose hooks can remove what they fill in, and other fills with the path of their code.

    Of channels that are filled in before and behind others, as many are removed on either side, because the code may
    have one number for both. With ``fixed``, and where the sides differ, they stay.
    """
    found, sides = [], []
    for node, filled in run.filled.items():
        path, fields = module_stack(node)[-1], [field for field in made[node] if len(varying(field)) == 1]
        chosen = _hook_of(node)
        last = bool(path) and all(path not in module_stack(user) or user is chosen for user in node.users)
        if len(fields) != 1:
            run.labels.freeze(filled, _WHY)
            continue
        (axis,) = varying(fields[0])
        vector = fields[0].reshape(-1)
        if not last:
            side = None if fixed else _side(vector, filled)
            if side is None:
                run.labels.freeze(filled, _WHY)
                continue
            for each in side:
                run.labels.unite(side[0], each, _WHY)
            sides.append((path, side[0]))
            continue
        places = torch.arange(len(vector)) if chosen is None else run.value(chosen.args[2])
        found.append((path, axis, vector, torch.isin(vector, filled), places))
    selections = tuple(
        Selection(path, axis, run.labels.roots(vector), filled, places) for path, axis, vector, filled, places in found
    )
    return selections, tuple(sides)


def _side(vector: torch.Tensor, filled: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    """Return what is filled in on each side, in order; None if the sides differ."""
    places = torch.isin(vector, filled).nonzero().reshape(-1)
    breaks = ((places[1:] - places[:-1]) > 1).nonzero().reshape(-1) + 1
    runs = torch.tensor_split(vector[places], breaks)
    return runs if len({len(run) for run in runs}) == 1 else None


def _hook_of(node: fx.Node) -> fx.Node | None:
    """Return the node of the hook that keeps some of the channels a node makes, if there is one."""
    return next((user for user in node.users if is_kept(user)), None)


def module_stack(node: fx.Node) -> list[str]:
    """Return the paths of the submodules whose code calls a node, the innermost last."""
    return [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()] or [""]
