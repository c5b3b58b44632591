"""Records of removals: what a file tells of them, so that the same can be removed from a module as it was before.

A removal is of channels, or of whole layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from attar._src.artifact.manifest import Name, Size
from attar._src.core.errors import ModelError
from attar._src.core.spec import Spec
from attar._src.model.blocks.remove import Passage, container_of, remove_layers
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.check import Removable
from attar._src.model.dependencies.fills import kept
from attar._src.model.dependencies.find import Dependencies, find_dependencies
from attar._src.model.dependencies.remove import AttributeSize, followed_sizes, remove_units

#: The attribute of a module that has the records of all removals from it, in order; plain dicts, so that a pickled
#: module needs no Attar.
_RECORDS = "attar_removals"


class Removal(Spec):
    """The record of units, or of layers, that were removed from a module.

    Attributes:
        units: name of a group -> mask of its units as a hexadecimal number, the first unit in the lowest bit: 1 if it
            was removed.
        sizes: path of an attribute of a submodule, beside those of PyTorch's layers -> the number it has since.
        fixed_fills: that of :func:`find_dependencies`.
        dropped: paths of layers that were taken out of their containers.
        skipped: path of a layer whose place something took -> what that returns.
    """

    units: dict[Name, Annotated[str, Field(pattern="^[0-9a-f]+$")]]
    sizes: dict[Name, Size] = {}
    fixed_fills: bool = False
    dropped: tuple[Name, ...] = ()
    skipped: dict[Name, Passage] = {}

    @property
    def of_layers(self) -> bool:
        """Whether layers were removed, not channels."""
        return bool(self.dropped or self.skipped)

    def inside(self, path: str) -> Removal:
        """Return the record for a module that has the present one at ``path``: ``0.weight`` -> ``net.0.weight``."""
        if not path:
            return self
        units = {f"{path}.{name}": mask for name, mask in self.units.items()}
        sizes = {f"{path}.{name}": size for name, size in self.sizes.items()}
        return Removal(
            units=units,
            sizes=sizes,
            fixed_fills=self.fixed_fills,
            dropped=tuple(f"{path}.{name}" for name in self.dropped),
            skipped={f"{path}.{name}": passage for name, passage in self.skipped.items()},
        )


def removal_records(module: nn.Module) -> tuple[Removal, ...]:
    """Return the records of what was removed from a module and its submodules, in order.

    A submodule has those of removals from it alone, which were before it came into the module or after all others:
    :func:`_note` moves them to the module.
    """
    found = ((path, vars(each).get(_RECORDS, ())) for path, each in module.named_modules())
    return tuple(Removal.model_validate(record).inside(path) for path, records in found for record in records)


def recorded_removals(module: nn.Module) -> tuple[Mapping[str, Any], ...]:
    """Return an entry for each removal from a module, for the record of a file made of it."""
    return tuple(
        {"stage": "prune_layers" if each.of_layers else "prune_channels", "removed": each.describe()}
        for each in removal_records(module)
    )


def remove_and_record(module: nn.Module, removable: Removable, units: Collection[int]) -> dict[str, Any]:
    """Remove units from a module, in place; return the record as JSON, which the module has from then on, too."""
    found = removable.found
    masks = {group.name: sum(1 << at for at, unit in enumerate(group.units) if unit in units) for group in found.groups}
    record = Removal(
        units={name: f"{mask:x}" for name, mask in masks.items() if mask},
        sizes={_place(each): int(kept(each.units, units).sum()) for each in removable.attributes},
        fixed_fills=found.fixed_fills,
    )
    removable.remove(module, units)
    _note(module, record)
    return record.describe()


def remove_layers_and_record(
    module: nn.Module, dropped: Collection[str], skipped: Mapping[str, Passage]
) -> dict[str, Any]:
    """Remove layers from a module, in place; return the record as JSON, which the module has from then on, too."""
    record = Removal(units={}, dropped=tuple(dropped), skipped=dict(skipped))
    remove_layers(module, dropped, skipped)
    _note(module, record)
    return record.describe()


def remove_recorded_layers(module: nn.Module, record: Removal, *, copies: Sequence[nn.Module] = ()) -> None:
    """Remove from a module, in place, the layers that a record tells, and the same from copies of it.

    Raises:
        ModelError: the module has no such layers; nothing is changed.
    """
    for path in (*record.dropped, *record.skipped):
        try:
            module.get_submodule(path)
            known = path in record.skipped or container_of(module, path) is not None
        except AttributeError:
            known = False
        if not known or not path:
            raise _foreign(module, f"the layer {path}")
    for each in (module, *copies):
        remove_layers(each, record.dropped, record.skipped)
        _note(each, record)


def remove_recorded(
    module: nn.Module, captured: CapturedModel, record: Removal, *, copies: Sequence[nn.Module] = ()
) -> None:
    """Remove from a module, in place, what a record tells, and the same from copies of it.

    Raises:
        ModelError: the module has no such groups or attributes; nothing is changed.
    """
    found = find_dependencies(module, captured, fixed_fills=record.fixed_fills)
    groups = {group.name: group.units for group in found.groups}
    removed: set[int] = set()
    for name, digits in record.units.items():
        mask = int(digits, 16)
        if name not in groups or mask >> len(groups[name]):
            raise _foreign(module, f"channels of {name}")
        removed |= {unit for at, unit in enumerate(groups[name]) if mask >> at & 1}
    if len(found.with_one_left([*removed])) < len(removed):
        raise _foreign(module, "all channels of a layer")
    for place, size in record.sizes.items():
        if not _follows(module, found, removed, place, size):
            raise _foreign(module, f"parts counted by {place}")
    done: set[int] = set()
    for each in (module, *copies):
        remove_units(each, found, removed, done=done)
        for place, size in record.sizes.items():
            _set_size(each, place, size)
        _note(each, record)


def _note(module: nn.Module, record: Removal) -> None:
    """Add the record of the latest removal, behind all earlier ones, also those from submodules."""
    records = (*removal_records(module), record)
    for each in module.modules():
        vars(each).pop(_RECORDS, None)
    vars(module)[_RECORDS] = tuple(each.describe() for each in records)


def _follows(module: nn.Module, found: Dependencies, removed: Collection[int], place: str, size: int) -> bool:
    """Whether an attribute counts channels of which ``size`` are left."""
    attribute = _attribute(module, place)
    if attribute is None:
        return False
    path, _, _, value = attribute
    return any(len(each) == value and int(kept(each, removed).sum()) == size for each in found.sizes.get(path, ()))


def _place(size: AttributeSize) -> str:
    """Return the path of an attribute: ``blocks.0.attention.heads``, ``shape.1`` of an entry of a tuple."""
    return ".".join(str(part) for part in (size.path, size.name, size.entry) if part not in ("", None))


def _attribute(module: nn.Module, place: str) -> tuple[str, str, int | None, int] | None:
    """Return path, name, entry and value of an attribute that is a whole number and may follow a removal, if any."""
    path, _, name = place.rpartition(".")
    entry = int(name) if name.isdecimal() else None
    if entry is not None:
        path, _, name = path.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return None
    value = None if name.startswith("_") or name in followed_sizes(owner) else vars(owner).get(name)
    if entry is not None:
        value = value[entry] if isinstance(value, tuple | list) and entry < len(value) else None
    return (path, name, entry, value) if type(value) is int else None


def _set_size(module: nn.Module, place: str, size: int) -> None:
    found = _attribute(module, place)
    assert found is not None
    path, name, entry, _ = found
    owner = module.get_submodule(path)
    value = getattr(owner, name)
    setattr(owner, name, size if entry is None else type(value)([*value[:entry], size, *value[entry + 1 :]]))


def _foreign(module: nn.Module, what: str) -> ModelError:
    return ModelError(
        f"the file was made from a module of which {what} were removed, and {type(module).__name__} has none such; "
        "give the module as it was before anything was removed"
    )
