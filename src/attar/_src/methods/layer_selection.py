"""Selection of weights by globs, with a setting for each: ``bits: 4``, ``overrides: {head: 8}``, ``keep: [stem]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from attar._src.work.learner import Learner

_T = TypeVar("_T")


def select_weights(
    learner: Learner, general: _T, overrides: Mapping[str, _T], *, keep: Sequence[str], layers: Sequence[str] = ("*",)
) -> dict[str, _T]:
    """Return weight -> setting for each weight a rule acts on, in the order of the module.

    Args:
        general: setting of the weights ``layers`` match.
        overrides: glob -> setting instead, also outside ``layers``; the last match wins.
        keep: globs of weights to leave out.
        layers: globs of weights to include.

    Raises:
        UnknownName: a glob matches no layer; the error lists the nearest names.
    """
    found = dict.fromkeys(learner.select(layers), general)
    for glob, instead in overrides.items():
        found.update(dict.fromkeys(learner.select((glob,)), instead))
    kept = set(learner.select(keep))
    return {name: found[name] for name in learner.weights if name in found and name not in kept}
