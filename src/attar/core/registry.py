"""Registries: a literal tuple of entries under their names, or a user's own ``file.py:name``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from attar.core.errors import SpecError, UnknownName

T = TypeVar("T")

_folder: ContextVar[Path] = ContextVar("folder", default=Path())


@contextlib.contextmanager
def references_from(folder: Path) -> Iterator[None]:
    """Let the files of ``file.py:name`` be looked for in ``folder`` rather than in the current one."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Registry(Generic[T]):
    """The entries of one family, each under its ``name`` attribute.

    Wherever a registered name is taken, ``path/to/file.py:name`` and ``package.module:name`` are taken too.

    Args:
        noun: what one entry is, for messages.
        *entries: the entries themselves, each with a ``name``.

    Example:
        >>> class Red: name = "red"
        >>> Registry("colour", Red)["red"] is Red
        True
    """

    def __init__(self, noun: str, *entries: T) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}
        for entry in entries:
            name = _name_of(entry)
            if name in self._entries:
                raise ValueError(f"two {noun}s are named {name!r}")
            self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """Return the entry called ``name``, or import it where ``name`` has the form ``file.py:name``.

        A class that is imported so is called without arguments: entries are objects.

        Raises:
            UnknownName: no entry has this name; the message lists the nearest ones.
        """
        if ":" in name:
            entry = load_object(name)
            return cast("T", entry() if isinstance(entry, type) else entry)
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.noun, name, self._entries) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> tuple[T, ...]:
        """Return every entry, in the order they were registered."""
        return tuple(self._entries.values())


def _name_of(entry: Any) -> str:
    """Return the name of an entry: an attribute, or the default of the field of a spec."""
    fields = getattr(entry, "model_fields", {}) if isinstance(entry, type) else {}
    name = fields["name"].default if "name" in fields else entry.name
    assert isinstance(name, str)
    return name


def load_object(reference: str) -> Any:
    """Import ``file.py:name`` or ``package.module:name`` and return what it names.

    The user asked for this code to run; nothing that came from a ``.attar`` file is ever passed here.

    Raises:
        SpecError: the reference has no colon, the file or module is not there or raises, or it holds no such name.
    """
    source, separator, name = reference.rpartition(":")
    if not separator or not source or not name:
        raise SpecError(f"{reference!r} is not a reference; write file.py:name or package.module:name")
    if source.endswith(".py"):
        path = (_folder.get() / Path(source).expanduser()).resolve()
        if not path.is_file():
            raise SpecError(f"{reference!r}: there is no file {path}")
        key = f"attar_user_{path.stem}_{abs(hash(str(path)))}"
        module = sys.modules.get(key)
        if module is None:
            spec = importlib.util.spec_from_file_location(key, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[key] = module
            # A user's file may import its neighbours, as it could if it were run as a script.
            sys.path.insert(0, str(path.parent))
            try:
                spec.loader.exec_module(module)
            except BaseException as error:
                del sys.modules[key]
                if not isinstance(error, Exception):
                    raise
                raise SpecError(f"{reference!r}: the file raised {type(error).__name__}: {error}") from error
            finally:
                sys.path.remove(str(path.parent))
    else:
        try:
            module = importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise SpecError(f"{reference!r}: {error}; for a file write path/to/file.py:{name}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UnknownName(f"object in {source}", name, names) from None
