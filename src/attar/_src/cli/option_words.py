"""Messages in the words of the command line: errors and warnings say ``max_bytes=40_000``, people there --max-bytes.

The one place where that is done: ``show`` prints all text through :func:`in_option_words`. One rule tells what is an
argument: messages outside of ``cli`` write it with ``=``, as in ``give max_bytes=40_000`` or ``max_bytes= counts the
file``. All other words stay: folders of the user, and fields of recipes, which have a colon.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

#: Argument in Python -> its option, where it is called otherwise.
_RENAMED = {
    "activation_overrides": "--set-activations",
    "methods": "--method",
    "minutes": "--time",
    "overrides": "--set",
}
#: Options that say where modules, data and metrics come from, which Python has as objects under these names.
_COMMAND_ONLY = frozenset({"data", "model", "output", "split", "weights", "dynamic", "metric"})
#: A list, tuple, mapping, text, number or name, such as True; the bracket of a list may be escaped as for rich.
_VALUE = "|".join(
    (
        r"\\?\[[^\]\n]*\]",
        r"\([^()\n]*\)",
        r"\{[^{}\n]*\}",
        r"'[^'\n]*'",
        r"\"[^\"\n]*\"",
        r"-?\d[\d_]*(?:\.\d+)?(?:e[-+]?\d+)?",
        r"[A-Za-z]\w*",
    )
)
_ARGUMENT = re.compile(rf"(?<![\w.'\"/=-])([a-z]\w*)=({_VALUE})?")
#: What Python says in two arguments, and the command line in one option.
_FIXED = re.compile(r"batch=(\w+), dynamic=\(\)")


@dataclass(frozen=True)
class _Option:
    """One option: as it is written, how a flag says no, and which kind it is."""

    written: str
    no: str = ""
    flag: bool = False
    several: bool = False


@dataclass(frozen=True)
class OptionWords:
    """The options of one command, by the arguments of its function in Python.

    Attributes:
        command: its name, which begins the paths of faults: ``compress.max_drop``.
        options: argument -> option.
    """

    command: str
    options: dict[str, _Option]

    @classmethod
    def of(cls, name: str, parameters: Sequence[Any]) -> OptionWords:
        """Return those of a command with these parameters, as click has them."""
        found = {}
        for each in parameters:
            long = next((word for word in each.opts if word.startswith("--")), None)
            if long is not None:
                no = next((word for word in each.secondary_opts if word.startswith("--")), "")
                flag, several = bool(getattr(each, "is_flag", False)), bool(getattr(each, "multiple", False))
                found[long[2:].replace("-", "_")] = _Option(long, no, flag, several)
        by_option = {each.written: each for each in found.values()}
        renamed = {name: by_option[word] for name, word in _RENAMED.items() if name not in found and word in by_option}
        if name == "run":
            # Its messages are of recipes, whose stages have a field of this name; --set of PATH=VALUE is another.
            renamed.pop("overrides", None)
        return cls(name, {word: each for word, each in (found | renamed).items() if word not in _COMMAND_ONLY})

    def translated(self, text: str) -> str:
        """Return a message with options in place of arguments.

        Example:
            >>> words = OptionWords("prune", {"max_bytes": _Option("--max-bytes")})
            >>> words.translated("give max_bytes=40_000; max_bytes= counts the file, as max_bytes: of recipes")
            'give --max-bytes 40000; --max-bytes counts the file, as max_bytes: of recipes'
        """
        # At the start of a message: elsewhere report.json: is a file.
        fault = rf"(?m)(^|: ){self.command}\.(\w+)(?=:)"
        text = re.sub(fault, lambda found: found[1] + self._named(found[2], found[0][len(found[1]) :]), text)
        if "fixed_batch" in self.options:
            text = _FIXED.sub(r"--fixed-batch \1", text)
        return _ARGUMENT.sub(lambda found: self._argument(found[1], found[2], found[0]), text)

    def _named(self, name: str, text: str) -> str:
        option = self.options.get(name)
        return text if option is None else option.written

    def _argument(self, name: str, value: str | None, text: str) -> str:
        option = self.options.get(name)
        if option is None:
            return text
        if value is None:
            return option.written
        try:
            given = ast.literal_eval(value.replace("\\[", "["))
        except (ValueError, SyntaxError):
            # An object, which an option of the command stands for.
            given = True if option.flag else value
        if option.flag:
            return option.no or f"no {option.written}" if given is False else option.written
        if given is None:
            return f"no {option.written}"
        return " ".join(f"{option.written} {each}" for each in _written(given, option)) or text


def _written(given: Any, option: _Option) -> Iterator[str]:
    """Yield the values of an option for one of an argument; nothing where the command line has no form of it."""
    if isinstance(given, dict):
        yield from (f"{key}={value}" for key, value in given.items() if option.several)
    elif isinstance(given, list | tuple):
        yield from (shlex.quote(str(each)) for each in given if option.several)
    elif option.written == "--time":
        yield f"{given:g}m" if isinstance(given, int | float) else str(given)
    else:
        yield shlex.quote(str(given))


_WORDS: ContextVar[OptionWords | None] = ContextVar("option words", default=None)


@contextmanager
def option_words_of(name: str, parameters: Sequence[Any]) -> Iterator[None]:
    """Print messages in the block in the words of a command."""
    token = _WORDS.set(OptionWords.of(name, parameters))
    try:
        yield
    finally:
        _WORDS.reset(token)


def in_option_words(text: str) -> str:
    """Return a message in the words of the command that runs; as it is where none does."""
    words = _WORDS.get()
    return text if words is None else words.translated(text)
