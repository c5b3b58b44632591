"""Attar makes trained PyTorch models small and fast, in one verified file that runs without PyTorch.

    import attar

    attar.run("recipe.yaml", "runs/mine")
    attar.quantize(module, data, bits=4, activations=8).save("model.attar")
    attar.Session("model.attar").run(inputs)

Names are imported when they are first used, so that ``import attar`` costs nothing and never imports PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attar._src.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from attar._src.artifact.limits import Limits
    from attar._src.artifact.reader import Artifact, open_artifact
    from attar._src.core.errors import (
        ArtifactError,
        AttarError,
        DataError,
        ModelError,
        ParityError,
        SpecError,
        UnknownName,
    )
    from attar._src.deploy.load import load
    from attar._src.deploy.quantize import quantize
    from attar._src.pipeline.run import run
    from attar._src.recipe.recipe import Recipe
    from attar._src.runtime.session import Session

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
    "Artifact": "attar._src.artifact.reader",
    "ArtifactError": "attar._src.core.errors",
    "AttarError": "attar._src.core.errors",
    "DataError": "attar._src.core.errors",
    "Limits": "attar._src.artifact.limits",
    "ModelError": "attar._src.core.errors",
    "ParityError": "attar._src.core.errors",
    "Recipe": "attar._src.recipe.recipe",
    "Session": "attar._src.runtime.session",
    "SpecError": "attar._src.core.errors",
    "UnknownName": "attar._src.core.errors",
    "load": "attar._src.deploy.load",
    "open_artifact": "attar._src.artifact.reader",
    "quantize": "attar._src.deploy.quantize",
    "run": "attar._src.pipeline.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    return lazy_attributes(__name__, _WHERE, name, globals())


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
