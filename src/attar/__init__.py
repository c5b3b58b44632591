"""Attar makes trained PyTorch models small and fast, in one verified file that runs without PyTorch.

    import attar

    attar.run("recipe.yaml", "runs/mine")
    attar.quantize(module, data, bits=4, activations=8).save("model.attar")
    attar.Session("model.attar").run(inputs)

Names are imported when they are first used, so that ``import attar`` costs nothing and never imports PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from attar.core.extra import install

if TYPE_CHECKING:
    from attar.artifact.limits import Limits
    from attar.artifact.reader import Artifact, open_artifact
    from attar.core.errors import (
        ArtifactError,
        AttarError,
        DataError,
        ModelError,
        ParityError,
        SpecError,
        UnknownName,
    )
    from attar.recipe.load import load
    from attar.recipe.quantize import quantize
    from attar.recipe.recipe import Recipe
    from attar.recipe.run import run
    from attar.runtime.session import Session

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "ArtifactError",
    "AttarError",
    "DataError",
    "Limits",
    "ModelError",
    "ParityError",
    "Recipe",
    "Session",
    "SpecError",
    "UnknownName",
    "__version__",
    "load",
    "open_artifact",
    "quantize",
    "run",
]

_WHERE = {
    "Artifact": "attar.artifact.reader",
    "ArtifactError": "attar.core.errors",
    "AttarError": "attar.core.errors",
    "DataError": "attar.core.errors",
    "Limits": "attar.artifact.limits",
    "ModelError": "attar.core.errors",
    "ParityError": "attar.core.errors",
    "Recipe": "attar.recipe.recipe",
    "Session": "attar.runtime.session",
    "SpecError": "attar.core.errors",
    "UnknownName": "attar.core.errors",
    "load": "attar.recipe.load",
    "open_artifact": "attar.artifact.reader",
    "quantize": "attar.recipe.quantize",
    "run": "attar.recipe.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'attar' has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        needed = install(error)
        if needed is None:
            raise
        raise ModuleNotFoundError(f"attar.{name}: {needed}", name=error.name) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
