"""Removal of channels from a module: smaller parameters and buffers, and the attributes that tell their sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from attar._src.model.dependencies.fills import kept
from attar._src.model.dependencies.find import Dependencies
from attar._src.model.dependencies.keep_channels import keep_channels
from attar._src.model.programs import state_of

#: Class -> attribute -> the tensor of the module and its axis that the attribute is the size of.
_SIZES: tuple[tuple[type[nn.Module], Mapping[str, tuple[str, int]]], ...] = (
    (nn.Linear, {"in_features": ("weight", 1), "out_features": ("weight", 0)}),
    (nn.modules.conv._ConvTransposeNd, {"in_channels": ("weight", 0)}),
    (nn.modules.conv._ConvNd, {"out_channels": ("weight", 0)}),
    (nn.modules.batchnorm._NormBase, {"num_features": ("running_mean", 0)}),
    (nn.modules.batchnorm._NormBase, {"num_features": ("weight", 0)}),
    (nn.GroupNorm, {"num_channels": ("weight", 0)}),
    (nn.PReLU, {"num_parameters": ("weight", 0)}),
    (nn.Embedding, {"embedding_dim": ("weight", 1)}),
    (nn.RNNCellBase, {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)}),
    (nn.RNNBase, {"input_size": ("weight_ih_l0", 1), "hidden_size": ("weight_hh_l0", 1)}),
)


class AttributeSize(NamedTuple):
    """An attribute of a submodule, or an entry of it, that is the number of some units."""

    path: str
    name: str
    entry: int | None
    units: torch.Tensor


def remove_units(
    module: nn.Module,
    found: Dependencies,
    units: Collection[int],
    attributes: Sequence[AttributeSize] = (),
    *,
    done: set[int] | None = None,
) -> None:
    """Remove units from a module, in place; its parameters stay the same objects, without gradients.

    Args:
        module: the one that ``found`` was found in, or a copy.
        found: its dependencies.
        units: to remove.
        attributes: that follow, beside those of PyTorch's own layers.
        done: identities of tensors that are smaller already, as a copy shares them; those of the module are added.
    """
    state, done = state_of(module), set() if done is None else done
    for name, vectors in found.state.items():
        tensor = state[name]
        if id(tensor) in done:
            continue
        done.add(id(tensor))
        smaller = tensor.detach()
        for axis, vector in enumerate(vectors):
            left = kept(vector, units)
            if not left.all():
                smaller = smaller.index_select(axis, left.nonzero().reshape(-1))
        if smaller.shape != tensor.shape:
            tensor.data, tensor.grad = smaller.contiguous(), None
    for (path, name), vector in found.counts.items():
        _resize(module.get_submodule(path), name, None, len(vector), int(kept(vector, units).sum()))
    for each in attributes:
        remaining = int(kept(each.units, units).sum())
        _resize(module.get_submodule(each.path), each.name, each.entry, len(each.units), remaining)
    for submodule in module.modules():
        _follow(submodule)
    for selection in found.selections:
        if not kept(selection.units, units).all():
            keep_channels(module.get_submodule(selection.path), selection.axis, selection.chosen_without(units))


def _resize(module: nn.Module, name: str, entry: int | None, size: int, left: int) -> None:
    value = getattr(module, name, None)
    if entry is not None and isinstance(value, tuple | list):
        changed = [left if at == entry and each == size else each for at, each in enumerate(value)]
        setattr(module, name, type(value)(changed))
    elif value == size:
        setattr(module, name, left)


def followed_sizes(module: nn.Module) -> set[str]:
    """Return the attributes of a layer of PyTorch that follow the sizes of its parameters."""
    own = {name for kind, sizes in _SIZES if isinstance(module, kind) for name in sizes}
    return own | ({"in_channels", "out_channels", "groups"} if isinstance(module, nn.modules.conv._ConvNd) else set())


def _follow(module: nn.Module) -> None:
    """Set the sizes that a layer of PyTorch has as attributes."""
    for kind, sizes in _SIZES:
        for name, (tensor, axis) in sizes.items() if isinstance(module, kind) else ():
            value = getattr(module, tensor, None)
            if isinstance(value, torch.Tensor):
                setattr(module, name, value.shape[axis])
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.out_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        module.in_channels = module.weight.shape[1] * module.groups
