"""Named preprocessings, the constants of ``(raw * scale - mean[c]) / std[c]``."""

from __future__ import annotations

import json

from pydantic import ValidationError

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import SpecError
from attar._src.core.registry import Registry
from attar._src.core.spec import explain

_BYTE = 1 / 255

PREPROCESSINGS: Registry[Preprocessing] = Registry(
    "preprocessing",
    Preprocessing(name="none", layout="NCHW"),
    Preprocessing(name="unit", layout="NCHW", scale=_BYTE),
    Preprocessing(name="digits", layout="NCHW", scale=1 / 16),
    Preprocessing(name="mnist", layout="NCHW", scale=_BYTE, mean=(0.1307,), std=(0.3081,)),
    Preprocessing(
        name="cifar10", layout="NCHW", scale=_BYTE, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    Preprocessing(name="imagenet", layout="NCHW", scale=_BYTE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
)


def find_preprocessing(name: str) -> Preprocessing | None:
    """Return a preprocessing by its name in ``PREPROCESSINGS`` or by ``file.py:name``; None for ``none``."""
    chosen = PREPROCESSINGS[name]
    if not isinstance(chosen, Preprocessing):
        raise SpecError(f"{name!r} is a {type(chosen).__name__}; a Preprocessing was expected")
    return None if chosen.name == "none" else _checked(chosen)


def parse_preprocessing(text: str) -> Preprocessing | None:
    """Return the preprocessing a user wrote: a name, or an object with the fields of :class:`Preprocessing`.

    ``{"scale": 0.00392, "mean": [0.5], "std": [0.25]}`` has the layout ``NCHW`` and the name ``custom``.
    """
    if not text.lstrip().startswith("{"):
        return find_preprocessing(text)
    try:
        fields = {"name": "custom", "layout": "NCHW", **json.loads(text)}
        return _checked(Preprocessing.model_validate_json(json.dumps(fields)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError(f"preprocessing {text!r} is not JSON: {error}") from error
    except ValidationError as error:
        raise SpecError(explain(error, where="preprocessing")) from error


def _checked(preprocessing: Preprocessing) -> Preprocessing:
    layout, means, stds = preprocessing.layout, len(preprocessing.mean), len(preprocessing.std)
    if not (layout.isalpha() and layout.isupper() and len(set(layout)) == len(layout) and "N" in layout):
        raise SpecError(f"layout {layout!r} is not a word of different capital letters with an N, such as NCHW or NC")
    if 0 in (means, stds) or (means != stds and 1 not in (means, stds)):
        raise SpecError(f"preprocessing has {means} means and {stds} standard deviations; one of each for a channel")
    if max(means, stds) > 1 and "C" not in layout:
        raise SpecError(f"preprocessing has {max(means, stds)} channels and layout {layout!r} has no axis C")
    return preprocessing
