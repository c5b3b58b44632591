"""The exceptions Attar raises on purpose.

    AttarError
    ├── ArtifactError      a ``.attar`` file that is malformed or exceeds the limits
    ├── SpecError          an option, scheme or recipe that cannot work (also a ValueError)
    │   └── UnknownName    a name that is not in a registry, or a glob that matches nothing
    ├── DataError          a data set that is missing or has the wrong form
    ├── ModelError         a module that cannot be traced, exported or quantized
    └── ParityError        the decoded file and the quantized module compute different outputs

A message should say what was asked, what arrived, and the nearest fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

#: Former words of recipes -> the words that replaced them.
_RENAMED = {
    "banks": ("teacher_cache",),
    "linear": ("uniform",),
    "narrow": ("low_precision", "narrow_range"),
    "pace": ("lr_scale",),
    "points": ("codebook",),
}

_ENTRIES = 2000  # how many names of a folder are searched for a close match


class AttarError(Exception):
    """Base class; the command line prints these errors without a traceback."""


class ArtifactError(AttarError):
    """A ``.attar`` file is malformed or exceeds the limits.

    Args:
        message: the fault and, if there is one, the fix.
        section: the part of the file with the fault, as ``attar inspect`` names it.
        path: the file, if there is one and the message does not name it.
    """

    def __init__(self, message: str, *, section: str | None = None, path: Path | None = None) -> None:
        self.section, self.path = section, path
        super().__init__(": ".join(str(part) for part in (path, section, message) if part))


@contextmanager
def naming_file(path: Path | None) -> Iterator[None]:
    """Add the path, if not None, to every :class:`ArtifactError` that names a section."""
    try:
        yield
    except ArtifactError as error:
        if path is None or error.section is None or error.path is not None:
            raise
        raise ArtifactError(str(error).removeprefix(f"{error.section}: "), section=error.section, path=path) from error


class SpecError(AttarError, ValueError):
    """An option, scheme or recipe that cannot work."""


class UnknownName(SpecError):
    """An unknown name; the message suggests the closest known ones.

    Args:
        what: what the name should denote (``"layer"``, ``"coder"``).
        name: the name that was given.
        known: all accepted names.

    Example:
        >>> str(UnknownName("coder", "ranz", ["raw", "rans"]))
        "no coder named 'ranz'; did you mean 'rans' or 'raw'?"
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names, name = sorted(known), name if len(name) <= 80 else f"{name[:77]}..."
        renamed = [word for word in _RENAMED.get(name, ()) if word in names]
        close = renamed or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(names[:20]) or 'none'}"
        )
        super().__init__(f"no {what} named {name!r}; {hint}")


def missing_file(path: Path, what: str = "there is no file") -> str:
    """Return the message for a missing file, with the closest names in its folder."""
    if path.is_dir():
        return f"{what} {path}, which is a folder"
    if not path.parent.is_dir():
        return f"{what} {path}; there is no folder {path.parent} either"
    try:
        names = [each.name for each in islice(path.parent.iterdir(), _ENTRIES) if each.name != path.name]
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, sorted(names), n=3, cutoff=0.6)
    hint = " or ".join(str(path.parent / name) for name in close)
    return f"{what} {path}; did you mean {hint}?" if close else f"{what} {path}"


class DataError(AttarError):
    """A data set that is missing or has the wrong form."""


class ModelError(AttarError):
    """A module that cannot be traced, exported or quantized."""


class ParityError(AttarError):
    """The decoded file and the quantized module compute different outputs."""


def short_message(error: BaseException, lines: int = 3) -> str:
    """Return the class and the first lines of an error's message on one line of at most 600 characters."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(text[:lines])[:600]}"


@contextmanager
def prefixed_errors(where: str) -> Iterator[None]:
    """Prefix the message of every exception with ``where``, such as the path of a stage in a recipe.

    Raises:
        SpecError: for every exception but DataError and ModelError, which keep their class.
    """
    try:
        yield
    except (DataError, ModelError) as error:
        raise type(error)(f"{where}: {error}") from error
    except AttarError as error:
        raise SpecError(f"{where}: {error}") from error
    except Exception as error:
        raise SpecError(f"{where}: {short_message(error)}") from error
