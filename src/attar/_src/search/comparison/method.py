"""A method of compression as ``attar compare`` tries it: options in one or more variants, one of them tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from attar._src.search.comparison.tuned import TunedOption, option_tuned, with_value

#: What a variant needs beside module and inputs.
Need = Literal["labels", "training"]


@dataclass(frozen=True)
class Variant:
    """Options that make a file.

    Attributes:
        prune: options of ``attar.prune`` that come first; None without.
        quantize: options of ``attar.quantize`` on what that left; None for a file in floating point.
        train: instead of both: ``way``, a name of ``COMPARED_WAYS``, and what its stages are made for.
        like: method without training whose file at equal bytes has as much removed, so that the training begins there.
        needs: what there must be beside module and inputs.

    One value in them may be ``TUNED``.
    """

    prune: Mapping[str, Any] | None = None
    quantize: Mapping[str, Any] | None = None
    train: Mapping[str, Any] | None = None
    like: str | None = None
    needs: frozenset[Need] = frozenset()

    @cached_property
    def tuned(self) -> TunedOption | None:
        """The option that is tuned; None if there is one file only."""
        return option_tuned(self.options(None, raw=True))

    def options(self, value: float | None, *, raw: bool = False) -> dict[str, Any]:
        """Return the options by function, with a value for the one that is tuned.

        Example:
            >>> Variant(prune={"sparsity": "tuned"}).options(0.5)
            {'prune': {'sparsity': 0.5}}
        """
        parts = {"prune": self.prune, "quantize": self.quantize, "train": self.train}
        given = {name: dict(each) for name, each in parts.items() if each is not None}
        return given if raw else dict(with_value(given, value))

    def words(self) -> str:
        """Return the options in words: ``prune macs tuned, score taylor``."""
        return "; ".join(
            f"{name} " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in each.items())
            for name, each in self.options(None, raw=True).items()
        )


@dataclass(frozen=True)
class CompressionMethod:
    """A method, or a combination of several, by the name that tables give it.

    Attributes:
        name: in words.
        variants: each is tuned; the one that serves a target best stands for the method.
    """

    name: str
    variants: tuple[Variant, ...]
