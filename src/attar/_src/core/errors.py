"""The exceptions and the warning that Attar raises on purpose.

A message should say what was asked, what arrived, and the nearest fix.
"""

from __future__ import annotations

import difflib
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

#: Former words of recipes -> the words that replaced them.
_RENAMED = {
    "banks": ("teacher_cache",),
    "linear": ("uniform",),
    "magnitude": ("l1",),
    "narrow": ("low_precision", "narrow_range"),
    "pace": ("lr_scale",),
    "points": ("codebook",),
}

#: Folders of code that is not the user's.
_LIBRARIES = (*{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},)
_PACKAGES = re.compile(r"[/\\](?:site|dist)-packages[/\\](?!torch[/\\])")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)(?:, in .*\n\s*(.*))?')
_ATTAR = str(Path(__file__).resolve().parents[2])

_ENTRIES = 2000  # how many names of a folder are searched for a close match


class AttarError(Exception):
    """Base class; the command line prints these errors without a traceback."""


class AttarWarning(UserWarning):
    """A file was made, but its user should know something of it first: the sentence is also in its report."""


class ArtifactError(AttarError):
    """A ``.attar`` file is malformed or exceeds the limits.

    ``section`` is the part of the file with the fault, as ``attar inspect`` names it.
    """

    def __init__(self, message: str, *, section: str | None = None, path: Path | None = None) -> None:
        super().__init__(message)
        self.section, self.path = section, path

    def __str__(self) -> str:
        return ": ".join(str(part) for part in (self.path, self.section, *self.args) if part)


@contextmanager
def naming_file(path: Path | None) -> Iterator[None]:
    """Add the path to every :class:`ArtifactError` that names a section but no path."""
    try:
        yield
    except ArtifactError as error:
        if error.section is not None and error.path is None:
            error.path = path
        raise


class SpecError(AttarError, ValueError):
    """An option, scheme or recipe that cannot work; a ValueError, so that validators may raise it."""


@contextmanager
def naming_section(section: str) -> Iterator[None]:
    """Add the section to every :class:`ArtifactError` without one; raise a :class:`SpecError` as an ArtifactError."""
    try:
        yield
    except SpecError as error:
        raise ArtifactError(str(error), section=section) from error
    except ArtifactError as error:
        error.section = error.section or section
        raise


class UnknownName(SpecError):
    """A name that is not in a registry, or a glob that matches nothing; the message suggests the closest known names.

    Example:
        >>> str(UnknownName("coder", "ranz", ["raw", "rans"]))
        "no coder named 'ranz'; did you mean 'rans' or 'raw'?"
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names, name = sorted(known), name if len(name) <= 80 else f"{name[:77]}..."
        renamed = [word for word in _RENAMED.get(name, ()) if word in names]
        close = renamed or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        known_names = f"known: {', '.join(names[:20]) or 'none'}"
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else known_names
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
    except Exception as error:
        kind = type(error) if isinstance(error, DataError | ModelError) else SpecError
        message = str(error) if isinstance(error, AttarError) else short_message(error)
        raise kind(f"{where}: {message}") from error


def place_of(error: BaseException, *, packages: bool = False) -> str:
    """Return the last line of a traceback that is the user's: ``net.py, line 12: y = x.numpy()``; else empty.

    ``packages``: lines of installed packages, PyTorch's apart, count too, such as those of a published model.
    """
    found = traceback.extract_tb(error.__traceback__)
    frames = [(frame.filename, str(frame.lineno), frame.line or "") for frame in found]
    # An error in a worker of a DataLoader has the traceback of that process in its text.
    return _last(frames, packages) or place_in(str(error), packages=packages)


def place_in(text: str, *, packages: bool = False) -> str:
    """Return the last line that is the user's in the text of a traceback, as :func:`place_of`."""
    return _last(_FRAME.findall(text), packages)


def _last(frames: Iterable[tuple[str, str, str]], packages: bool) -> str:
    own = [frame for frame in frames if _is_users(frame[0], packages)]
    if not own:
        return ""
    file, line, code = own[-1]
    return f"{Path(file).name}, line {line}" + (f": {' '.join(code.split())}" if code else "")


def _is_users(file: str, packages: bool) -> bool:
    if packages and _PACKAGES.search(file):
        return not file.startswith(_ATTAR)
    return not file.startswith((*_LIBRARIES, _ATTAR, "<"))


@contextmanager
def user_code(what: str, kind: type[AttarError] = DataError) -> Iterator[None]:
    """Raise what a user's code raises as one line that begins with ``what``; Attar's own errors and Ctrl-C pass.

    EOFError and SystemExit are errors like others here: left alone, the first would be reported as an interruption and
    the second would end the process.

    Raises:
        DataError: or ``kind``; its cause is the exception.

    ``with user_code("data.py:load"): open("x.npy")`` raises ``DataError: data.py:load raised FileNotFoundError: ...``.
    """
    try:
        yield
    except AttarError:
        raise
    except (Exception, SystemExit) as error:
        place = place_of(error)
        said = (
            str(error).strip().splitlines()[-1].strip() if "Original Traceback" in str(error) else short_message(error)
        )
        raise kind(f"{what} raised {said}{f' ({place})' if place else ''}") from error
