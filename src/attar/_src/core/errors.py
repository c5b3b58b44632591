"""Every exception Attar raises on purpose.

    AttarError
    ├── ArtifactError      a file that is not a sound ``.attar`` file, or asks for more than the limits allow
    ├── SpecError          an option, scheme or recipe that cannot work (also a ValueError)
    │   └── UnknownName    a name that is not in a registry, or a glob that matches nothing
    ├── DataError          a data set that is missing or not of the form it should have
    ├── ModelError         a module that cannot be traced, exported or quantized as asked
    └── ParityError        the decoded file does not compute what the quantized module computes

A message says what was asked, what arrived, and the nearest fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

_ENTRIES = 2000  # of a folder, among which a name is looked for


class AttarError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class ArtifactError(AttarError):
    """Something is wrong with a file; ``section`` names the place.

    Args:
        message: what is wrong and, where there is one, the fix.
        section: the part of the file the fault lies in, as ``attar inspect`` names it.
        path: the file, where it is one and the message does not name it.
    """

    def __init__(self, message: str, *, section: str | None = None, path: Path | None = None) -> None:
        self.section, self.path = section, path
        super().__init__(": ".join(str(part) for part in (path, section, message) if part))


@contextmanager
def naming_file(path: Path | None) -> Iterator[None]:
    """Let every :class:`ArtifactError` that names a section name the file, too, where there is one."""
    try:
        yield
    except ArtifactError as error:
        if path is None or error.section is None or error.path is not None:
            raise
        raise ArtifactError(str(error).removeprefix(f"{error.section}: "), section=error.section, path=path) from error


class SpecError(AttarError, ValueError):
    """An option, scheme or recipe that cannot work."""


class UnknownName(SpecError):
    """A name that is not among those that exist; lists the nearest.

    Args:
        what: the noun the name should be of (``"layer"``, ``"coder"``).
        name: what arrived.
        known: every name that would have been accepted.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names, name = sorted(known), name if len(name) <= 80 else f"{name[:77]}..."
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(names[:20]) or 'none'}"
        )
        super().__init__(f"no {what} named {name!r}; {hint}")


def missing_file(path: Path, what: str = "there is no file") -> str:
    """Return that a file is not there, with the names that are nearest to it in its folder."""
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
    """A data set that is missing, or not of the form it should have."""


class ModelError(AttarError):
    """A module that cannot be traced, exported or quantized as asked."""


class ParityError(AttarError):
    """The decoded file does not compute what the quantized module computes."""


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
