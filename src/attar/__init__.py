"""Attar makes trained PyTorch models small and fast, in one verified file that runs without PyTorch.

    import attar

    attar.run("recipe.yaml", "runs/mine")
    attar.run_search("holes.yaml", "runs/search").best
    attar.prune(module, data, macs=0.5).module
    attar.compress(module, data, "found", max_drop=1).best
    attar.compare(module, data, "compared", bytes=90_000).answer
    attar.quantize(module, data, bits=4, activations=8).save("model.attar")
    attar.Session("model.attar").run(inputs)

Names are imported when they are first used, so that ``import attar`` costs nothing and never imports PyTorch.
"""

from typing import TYPE_CHECKING

from attar._src.core.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from attar._src.artifact.limits import Limits as Limits
    from attar._src.artifact.reader import Artifact as Artifact
    from attar._src.artifact.reader import open_artifact as open_artifact
    from attar._src.core.errors import ArtifactError as ArtifactError
    from attar._src.core.errors import AttarError as AttarError
    from attar._src.core.errors import AttarWarning as AttarWarning
    from attar._src.core.errors import DataError as DataError
    from attar._src.core.errors import ModelError as ModelError
    from attar._src.core.errors import ParityError as ParityError
    from attar._src.core.errors import SpecError as SpecError
    from attar._src.core.errors import UnknownName as UnknownName
    from attar._src.deploy.load import load as load
    from attar._src.deploy.pruning.prune import prune as prune
    from attar._src.deploy.quantize import quantize as quantize
    from attar._src.methods.allocate.sensitivity_table import SensitivityTable as SensitivityTable
    from attar._src.pipeline.run import run as run
    from attar._src.pipeline.sensitivities.sensitivity import sensitivity as sensitivity
    from attar._src.recipe.recipe import Recipe as Recipe
    from attar._src.runtime.session import Session as Session
    from attar._src.search.comparison.compare import ComparisonResult as ComparisonResult
    from attar._src.search.comparison.compare import compare as compare
    from attar._src.search.compress import compress as compress
    from attar._src.search.compression_result import CompressionResult as CompressionResult
    from attar._src.search.trials.results import SearchResult as SearchResult
    from attar._src.search.trials.run_search import run_search as run_search
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "artifact.limits": "Limits",
            "artifact.reader": "Artifact open_artifact",
            "core.errors": "ArtifactError AttarError AttarWarning DataError ModelError ParityError SpecError "
            "UnknownName",
            "deploy.load": "load",
            "deploy.pruning.prune": "prune",
            "deploy.quantize": "quantize",
            "methods.allocate.sensitivity_table": "SensitivityTable",
            "pipeline.run": "run",
            "pipeline.sensitivities.sensitivity": "sensitivity",
            "recipe.recipe": "Recipe",
            "runtime.session": "Session",
            "search.comparison.compare": "ComparisonResult compare",
            "search.compress": "compress",
            "search.compression_result": "CompressionResult",
            "search.trials.results": "SearchResult",
            "search.trials.run_search": "run_search",
        },
    )
    __all__ = sorted([*__all__, "__version__"])
