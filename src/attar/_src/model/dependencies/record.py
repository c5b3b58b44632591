"""Records of removals: what a file tells of them, so that the same can be removed from a module as it was before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from attar._src.core.errors import ModelError
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.check import Removable
from attar._src.model.dependencies.fills import kept
from attar._src.model.dependencies.find import find_dependencies
from attar._src.model.dependencies.remove import AttributeSize, remove_units

#: The attribute of a module that has the records of all removals from it, in order.
_RECORDS = "attar_removals"


def removal_records(module: nn.Module) -> tuple[Mapping[str, Any], ...]:
    """Return the records of what was removed from a module, in order."""
    return tuple(vars(module).get(_RECORDS, ()))


def recorded_removals(module: nn.Module) -> tuple[Mapping[str, Any], ...]:
    """Return an entry for each removal from a module, for the record of a file made of it."""
    return tuple({"stage": "prune_channels", "removed": removed} for removed in removal_records(module))


def remove_and_record(module: nn.Module, removable: Removable, units: Collection[int]) -> dict[str, Any]:
    """Remove units from a module, in place; return the record, which the module has from then on, too.

    ``units`` has for each group a mask of its units as a hexadecimal number, the first unit in the lowest bit: 1 if it
    was removed. ``sizes`` has attributes of submodules beside those of PyTorch's layers; ``fixed_fills`` is that of
    :func:`find_dependencies`.
    """
    found = removable.found
    masks = {group.name: sum(1 << at for at, unit in enumerate(group.units) if unit in units) for group in found.groups}
    sizes = {_place(each): int(kept(each.units, units).sum()) for each in removable.attributes}
    record: dict[str, Any] = {"units": {name: f"{mask:x}" for name, mask in masks.items() if mask}}
    if sizes:
        record["sizes"] = sizes
    if found.fixed_fills:
        record["fixed_fills"] = True
    removable.remove(module, units)
    vars(module)[_RECORDS] = (*removal_records(module), record)
    return record


def remove_recorded(
    module: nn.Module, captured: CapturedModel, record: Mapping[str, Any], *, copies: Sequence[nn.Module] = ()
) -> None:
    """Remove from a module, in place, what a record tells, and the same from copies of it.

    Raises:
        ModelError: the module has no such groups or attributes; nothing is changed.
    """
    found = find_dependencies(module, captured, fixed_fills=record.get("fixed_fills") is True)
    groups = {group.name: group.units for group in found.groups}
    removed: set[int] = set()
    for name, mask in _entries(record, "units", str):
        if name not in groups or not _is_mask(mask, len(groups[name])):
            raise _foreign(module, f"channels of {name}")
        removed |= {unit for at, unit in enumerate(groups[name]) if int(mask, 16) >> at & 1}
    if len(found.with_one_left([*removed])) < len(removed):
        raise _foreign(module, "all channels of a layer")
    sizes = _entries(record, "sizes", int)
    for place, size in sizes:
        if size < 0 or _owner_of(module, place) is None:
            raise _foreign(module, f"parts counted by {place}")
    for each in (module, *copies):
        remove_units(each, found, removed)
        for place, size in sizes:
            _set_size(each, place, size)
        vars(each)[_RECORDS] = (*removal_records(each), dict(record))


def _entries(record: Mapping[str, Any], key: str, kind: type) -> list[tuple[str, Any]]:
    entries = record.get(key, {})
    if not isinstance(entries, dict) or not all(type(value) is kind for value in entries.values()):
        raise ModelError(f"the file's record of removed channels is damaged: {key} is no mapping to {kind.__name__}")
    return [*entries.items()]


def _place(size: AttributeSize) -> str:
    """Return the path of an attribute: ``blocks.0.attention.heads``, ``shape.1`` of an entry of a tuple."""
    return ".".join(str(part) for part in (size.path, size.name, size.entry) if part not in ("", None))


def _owner_of(module: nn.Module, place: str) -> tuple[nn.Module, str, int | None] | None:
    """Return the submodule, the name and the entry of an attribute that is a whole number; None if there is none."""
    path, _, name = place.rpartition(".")
    entry = int(name) if name.isdecimal() else None
    if entry is not None:
        path, _, name = path.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return None
    value = vars(owner).get(name)
    if entry is not None:
        value = value[entry] if isinstance(value, tuple | list) and entry < len(value) else None
    return (owner, name, entry) if type(value) is int else None


def _set_size(module: nn.Module, place: str, size: int) -> None:
    found = _owner_of(module, place)
    assert found is not None
    owner, name, entry = found
    value = getattr(owner, name)
    setattr(owner, name, size if entry is None else type(value)([*value[:entry], size, *value[entry + 1 :]]))


def _is_mask(mask: str, count: int) -> bool:
    try:
        return 0 <= int(mask, 16) < 1 << count
    except ValueError:
        return False


def _foreign(module: nn.Module, what: str) -> ModelError:
    return ModelError(
        f"the file was made from a module of which {what} were removed, and {type(module).__name__} has none such; "
        "give the module as it was before channels were removed"
    )
