"""Which weights a rule acts on, and with what: globs of layers, exceptions and those left alone; below the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from attar._src.work.learner import Learner

_T = TypeVar("_T")


def select_weights(
    learner: Learner, general: _T, overrides: Mapping[str, _T], *, keep: Sequence[str], layers: Sequence[str] = ("*",)
) -> dict[str, _T]:
    """Return what holds for each weight a rule acts on, in the order of the module.

    Args:
        learner: whose weights.
        general: what holds for every weight that ``layers`` match.
        overrides: glob -> what holds instead, also outside ``layers``; of several that match, the last.
        keep: globs of weights left alone.
        layers: globs.

    Raises:
        UnknownName: a glob matches no layer; the nearest names are listed.
    """
    found = dict.fromkeys(learner.select(layers), general)
    for glob, instead in overrides.items():
        found.update(dict.fromkeys(learner.select((glob,)), instead))
    kept = set(learner.select(keep))
    return {name: found[name] for name in learner.weights if name in found and name not in kept}
