"""Registries: a literal tuple of entries under their names, or a user's own ``file.py:name``."""

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

from attar._src.core.errors import SpecError, UnknownName, missing_file

_T = TypeVar("_T")

_folder: ContextVar[Path] = ContextVar("folder", default=Path())


@contextlib.contextmanager
def references_from(folder: Path) -> Iterator[None]:
    """Let the files of ``file.py:name`` be looked for in ``folder`` rather than in the current one."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Registry(Generic[_T]):
    """The entries of one family, each under its ``name`` attribute.

    Wherever a registered name is taken, ``path/to/file.py:name`` and ``package.module:name`` are taken too.

    Args:
        noun: what one entry is, for messages.
        *entries: the entries themselves, each with a ``name``.
        base: class that every entry is an object of, exported from ``attar.extend``; None where any object will do.

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
        """Return the entry called ``name``, or import it where ``name`` has the form ``file.py:name``.

        A class that is imported so is called without arguments: entries are objects.

        Raises:
            UnknownName: no entry has this name; the message lists the nearest ones.
            SpecError: what the reference leads to is no object of ``base``.
        """
        if ":" in name:
            entry = load_object(name)
            entry = entry() if isinstance(entry, type) else entry
            if self.base is not None and not isinstance(entry, self.base):
                article = "an" if self.noun[0] in "aeiou" else "a"
                raise SpecError(
                    f"{name!r} is of class {type(entry).__name__}; {article} {self.noun} is a subclass of "
                    f"attar.extend.{self.base.__name__} or an object of one"
                )
            return cast("_T", entry)
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.noun, name, self._entries) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> tuple[_T, ...]:
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

    The user asked for this code to run; nothing that came from a ``.attar`` file is ever passed here. A file is run
    once for as long as it stays as it is, and the files beside it that it imports do: what was changed is run anew.

    Raises:
        SpecError: the reference has no colon, the file or module is not there or raises, or it holds no such name.
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
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UnknownName(f"object in {source}", name, names) from None


@dataclass(frozen=True)
class _Run:
    """A user's file that was run, with the modules beside it that it imported, and the SHA-256 of all by path."""

    module: ModuleType
    beside: Mapping[str, ModuleType]
    digests: Mapping[Path, str | None]


_run: dict[Path, _Run] = {}


def _from_file(path: Path, reference: str) -> ModuleType:
    """Return the module that a user's file makes: the one it made before, where nothing has changed since."""
    before = _run.get(path)
    if before is not None:
        if all(_digest(each) == digest for each, digest in before.digests.items()):
            return before.module
        # All of them, for they may hold objects of each other.
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
    # A user's file may import its neighbours, as it could if it were run as a script.
    sys.path.insert(0, str(path.parent))
    try:
        # From the text: byte code beside it is only known by its second and size.
        exec(compile(text, path, "exec"), vars(module))
    except BaseException as error:
        del sys.modules[key]
        if not isinstance(error, Exception):
            raise
        raise SpecError(f"{reference!r}: the file raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    theirs = {id(each) for run in _run.values() for each in run.beside.values()}
    now = {name: each for name, each in sys.modules.items() if name not in known or id(each) in theirs}
    beside = {name: each for name, each in now.items() if _lies_in(name, each, path.parent)}
    digests |= {Path(str(each.__file__)): _digest(Path(str(each.__file__))) for each in beside.values()}
    _run[path] = _Run(module, beside, digests)
    return module


def _lies_in(name: str, module: ModuleType, folder: Path) -> bool:
    """True for a module that was found in a folder itself, as its name says: not in packages that lie below it."""
    file, stem = getattr(module, "__file__", None), folder.joinpath(*name.split("."))
    return file in (f"{stem}.py", str(stem / "__init__.py")) and name.partition(".")[0] != "attar"


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
