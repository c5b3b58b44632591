"""Removal of whole layers from a module: taken out of their container, or replaced by what returns its input."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from attar._src.artifact.manifest import Name
from attar._src.core.spec import Spec


class Passage(Spec):
    """What a layer hands on where it is skipped.

    Attributes:
        argument: of its ``forward``, by position or by name.
        entries: 0 if it returns a tensor; else the length of the tuple whose first entry this is, the others are None.
    """

    argument: Annotated[int, Field(ge=0, le=31)] | Name = 0
    entries: Annotated[int, Field(ge=0, le=31)] = 0

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what a call of the layer with these arguments returns if it is skipped."""
        value = args[self.argument] if isinstance(self.argument, int) else kwargs[self.argument]
        return (value, *[None] * (self.entries - 1)) if self.entries else value


class Skipped(nn.Module):
    """Stands where a layer was, and returns one of its arguments."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self.passage = passage.describe()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the argument that the layer handed on around its weights."""
        return Passage.model_validate(self.passage).of(args, kwargs)


def container_of(module: nn.Module, path: str) -> nn.Module | None:
    """Return the ``nn.Sequential`` or ``nn.ModuleList`` that a submodule is a member of, if any."""
    parent = module.get_submodule(path.rpartition(".")[0])
    return parent if isinstance(parent, nn.Sequential | nn.ModuleList) else None


def remove_layers(module: nn.Module, dropped: Collection[str], skipped: Mapping[str, Passage]) -> None:
    """Remove layers from a module, in place.

    Args:
        module: the module.
        dropped: paths of members of containers, which get shorter: the next members move up.
        skipped: path of a layer that something takes its place of -> what that returns.
    """
    for path, passage in skipped.items():
        owner, _, name = path.rpartition(".")
        module.get_submodule(owner)._modules[name] = Skipped(passage)
    by_container: dict[str, set[str]] = {}
    for path in dropped:
        owner, _, name = path.rpartition(".")
        by_container.setdefault(owner, set()).add(name)
    # The paths of containers inside others hold until these get shorter: longest first.
    for owner in sorted(by_container, key=lambda each: each.count("."), reverse=True):
        _shorten(module.get_submodule(owner)._modules, by_container[owner])
    for submodule in module.modules():
        if isinstance(submodule, nn.TransformerEncoder | nn.TransformerDecoder):
            submodule.num_layers = len(submodule.layers)


def _shorten(members: dict[str, nn.Module | None], removed: Collection[str]) -> None:
    """Remove members by name; numbers stay without gaps, other names as they are."""
    numbered = [*members] == [str(at) for at in range(len(members))]
    left = [(name, member) for name, member in members.items() if name not in removed]
    members.clear()
    members.update((str(at) if numbered else name, member) for at, (name, member) in enumerate(left))


@contextmanager
def skipping(module: nn.Module, skipped: Mapping[str, Passage]) -> Iterator[None]:
    """Let layers of a module hand on what they get; they still run."""

    def hook(passage: Passage) -> Any:
        return lambda _, args, kwargs, __: passage.of(args, kwargs)

    handles = [
        module.get_submodule(path).register_forward_hook(hook(passage), with_kwargs=True)
        for path, passage in skipped.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
