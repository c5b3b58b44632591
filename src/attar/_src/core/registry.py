"""Registries of named entries, and imports of a user's own ``file.py:name``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from attar._src.core.errors import SpecError, UnknownName, missing_file, place_of

_T = TypeVar("_T")

_folder: ContextVar[Path] = ContextVar("folder", default=Path())


@contextlib.contextmanager
def references_from(folder: Path) -> Iterator[None]:
    """Resolve relative paths of ``file.py:name`` against ``folder`` instead of the current folder."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Registry(Generic[_T]):
    """Entries by their ``name`` attribute; ``path/to/file.py:name`` and ``package.module:name`` are accepted too.

    ``noun`` is what messages call an entry, ``base`` the class in ``attar.extend`` that every entry is an object of.

    Example:
        >>> class Red: name = "red"
        >>> Registry("colour", Red)["red"] is Red
        True
    """

    def __init__(self, noun: str, *entries: _T, base: type[_T] | None = None) -> None:
        self.noun, self.base = noun, base
        self._entries: dict[str, _T] = {}
        for entry in entries:
            name = _name_of(entry)
            if name in self._entries:
                raise ValueError(f"two {noun}s are named {name!r}")
            self._entries[name] = entry

    def __getitem__(self, name: str) -> _T:
        """Return the entry called ``name``; a class imported from ``file.py:name`` is called without arguments.

        Raises:
            UnknownName: no entry has this name.
            SpecError: the reference does not lead to an object of ``base``.
        """
        if ":" in name:
            entry = load_object(name)
            entry = entry() if isinstance(entry, type) else entry
            if self.base is not None and not isinstance(entry, self.base):
                wanted = f"a subclass of attar.extend.{self.base.__name__}"
                raise SpecError(f"{name!r} is of class {type(entry).__name__}; give {wanted} or an object of one")
            return cast("_T", entry)
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.noun, name, self._entries) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def values(self) -> tuple[_T, ...]:
        """Return all entries in the order of registration."""
        return tuple(self._entries.values())


def _name_of(entry: Any) -> str:
    """Return the name of an entry: its attribute, or the default of a spec's field."""
    fields = getattr(entry, "model_fields", {}) if isinstance(entry, type) else {}
    return str(fields["name"].default if "name" in fields else entry.name)


def load_object(reference: str) -> Any:
    """Import the object ``file.py:name`` or ``package.module:name``.

    This runs code: never pass a name from a ``.attar`` file. A file is run again when it, or a file beside it that it
    imports, has changed.

    Raises:
        SpecError: the reference has no colon, the file or module does not exist or raises, or it has no such name.
    """
    source, separator, name = reference.rpartition(":")
    if not separator or not source or not name:
        raise SpecError(f"{reference!r} is not a reference; write file.py:name or package.module:name")
    if source.endswith(".py"):
        path = (_folder.get() / Path(source).expanduser()).resolve()
        if not path.is_file():
            raise SpecError(f"{reference!r}: {missing_file(path)}")
        module = _from_file(path, reference)
    else:
        try:
            module = importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise SpecError(f"{reference!r}: {error}; for a file write path/to/file.py:{name}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise UnknownName(f"object in {source}", name, [n for n in vars(module) if n[0] != "_"]) from None


@dataclass(frozen=True)
class _Run:
    """A user's file that was run."""

    module: ModuleType
    beside: Mapping[str, ModuleType]  # modules it imported from its folder
    digests: Mapping[Path, str | None]  # SHA-256 of all these files


_runs: dict[Path, _Run] = {}


def _from_file(path: Path, reference: str) -> ModuleType:
    """Run a user's file and return its module; the cached one if no file has changed."""
    before = _runs.get(path)
    if before is not None:
        if all(_digest(each) == digest for each, digest in before.digests.items()):
            return before.module
        # All of them, because they may hold objects of each other.
        for name, module in before.beside.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    importlib.invalidate_caches()
    text = path.read_bytes()
    digests: dict[Path, str | None] = {path: hashlib.sha256(text).hexdigest()}
    key = f"attar_user_{path.stem}_{hashlib.sha256(f'{path} {digests[path]}'.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    known = set(sys.modules)
    sys.modules[key] = module
    # A user's file may import files beside it, as a script may.
    sys.path.insert(0, str(path.parent))
    try:
        # Compile the text: cached byte code is matched only by mtime (in seconds) and size.
        exec(compile(text, path, "exec"), vars(module))
    except BaseException as error:
        del sys.modules[key]
        if not isinstance(error, Exception | SystemExit):
            raise
        place = place_of(error)
        at = f" ({place})" if place else ""
        raise SpecError(f"{reference!r}: the file raised {type(error).__name__}: {error}{at}") from error
    finally:
        sys.path.remove(str(path.parent))
    theirs = {id(each) for run in _runs.values() for each in run.beside.values()}
    now = {name: each for name, each in sys.modules.items() if name not in known or id(each) in theirs}
    beside = {name: each for name, each in now.items() if _lies_in(name, each, path.parent)}
    digests |= {file: _digest(file) for each in beside.values() for file in [Path(str(each.__file__))]}
    _runs[path] = _Run(module, beside, digests)
    return module


def _lies_in(name: str, module: ModuleType, folder: Path) -> bool:
    """Return whether a module was imported from ``folder`` itself, not from a package installed below it."""
    file, stem = getattr(module, "__file__", None), folder.joinpath(*name.split("."))
    return file in (f"{stem}.py", str(stem / "__init__.py")) and name.partition(".")[0] != "attar"


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, None if it does not exist."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
