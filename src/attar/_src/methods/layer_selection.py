"""Selection of weights by globs with a setting each, such as ``bits: 4, overrides: {head: 8}, keep: [stem]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from attar._src.work.learner import Learner

_T = TypeVar("_T")


def select_weights(
    learner: Learner, general: _T, overrides: Mapping[str, _T], *, keep: Sequence[str], layers: Sequence[str] = ("*",)
) -> dict[str, _T]:
    """Return weight -> setting for each weight a rule acts on, in the order of the module.

    For the weights of stem, body and head, bits 4, overrides {head: 8} and keep [stem] give body 4 and head 8.

    Args:
        learner: the module.
        general: setting of the weights matched by the globs ``layers``.
        overrides: glob -> other setting, also outside ``layers``; the last match wins.
        keep: globs of weights to leave out.
        layers: globs of weights to include.

    Raises:
        UnknownName: a glob matches no layer; the error lists the nearest names.
    """
    settings = dict.fromkeys(learner.select(layers), general)
    for glob, setting in overrides.items():
        settings.update(dict.fromkeys(learner.select((glob,)), setting))
    kept = set(learner.select(keep))
    return {name: settings[name] for name in learner.weights if name in settings and name not in kept}
