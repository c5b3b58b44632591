"""Ranks and loggers of a run through Lightning Fabric, and the facts that must be unchanged to resume it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from attar._src.core.digest import file_digest
from attar._src.core.errors import SpecError, missing_file
from attar._src.data.huggingface import HF
from attar._src.data.registry import DATASETS
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.folder import RunFolder
from attar._src.pipeline.local_imports import local_imports
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path, leaves

#: ``file.py:name``, anywhere in a recipe.
_IN_FILE = re.compile(r"(?P<file>[^:]+\.py):\w+")
_PACKAGES = ("attar", "torch", "numpy", "onnxruntime", "lightning-fabric")


def is_first(recipe: Recipe) -> bool:
    """Return whether this process is the first rank, also before the others are launched."""
    return recipe.devices == 1 or int(os.environ.get("LOCAL_RANK", "0")) == 0


def versions() -> dict[str, str]:
    """Return name -> version of Python and the packages that determine a file's bytes."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()}


def run_facts(recipe: Recipe, splits: DataSplits) -> dict[str, Any]:
    """Return what must be unchanged to resume a run: recipe, hashes of data and of the user's files, versions.

    Raises:
        SpecError: a file that the recipe names does not exist; the message has its path in the recipe.
    """
    return {
        "recipe": _described(recipe),
        "data": splits.fingerprint(),
        "files": file_facts(recipe),
        "versions": versions(),
    }


def file_facts(recipe: Recipe) -> dict[str, str]:
    """Return the path of each of the user's files that a recipe names, and those they import -> its SHA-256.

    Raises:
        SpecError: a file does not exist; the message has its path in the recipe.
    """
    words = [(place, word) for place, word in leaves(_described(recipe)) if isinstance(word, str)]
    in_words = {match["file"] for _, word in words if (match := _IN_FILE.fullmatch(word))}
    named = {expand_path(name) for name in in_words | _other_files(recipe)}
    for path in [path for path in named if path.suffix == ".py"]:
        folder = (recipe.folder / path).parent
        named |= {path.parent / other.relative_to(folder) for other in local_imports(recipe.folder / path)}
    for path in sorted(named):
        if not (recipe.folder / path).is_file():
            at = [place for place, word in words if path in map(expand_path, (word, word.rpartition(":")[0]))]
            raise SpecError(": ".join([*(f"recipe.{place}" for place in at[:1]), missing_file(recipe.folder / path)]))
    return {str(path): file_digest(recipe.folder / path) for path in sorted(named)}


def _described(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.described().items() if name != "root"}


def launch_fabric(recipe: Recipe, folder: RunFolder) -> Fabric:
    """Start the ranks of a run and return its fabric; its loggers already have the journal's epochs."""
    logs = folder.fresh_logs()
    loggers = [
        CSVLogger(logs, name="csv", version="", flush_logs_every_n_steps=1),
        TensorBoardLogger(logs, name="tensorboard", version=""),
    ]
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=recipe.devices,
        strategy="auto" if recipe.devices == 1 else "ddp_find_unused_parameters_true",
        precision=recipe.precision if recipe.precision != "auto" else None,
        loggers=loggers if folder.first else [],
    )
    fabric.launch()
    if recipe.threads is not None:
        # Fabric sets the number of threads itself when it starts ranks.
        torch.set_num_threads(recipe.threads)
    for row in folder.journal.find("epoch"):
        log_epoch(fabric, row)
    return fabric


def log_epoch(fabric: Fabric, row: dict[str, Any]) -> None:
    """Log the figures of an epoch as ``seed-0/student/1-finetune/loss``."""
    where = f"seed-{row['seed']}/{row['model']}/{row['index']}-{row['stage']}"
    figures = {
        f"{where}/{key}": value
        for key, value in row.items()
        if type(value) in (int, float) and key not in ("seed", "index", "epoch")
    }
    fabric.log_dict(figures, step=row["epoch"])


def _file(recipe: Recipe, weights: str | None) -> str | None:
    """Return the file of weights, without the entry of ``x.pt:ema``."""
    before, colon, _ = (weights or "").rpartition(":")
    return before if colon and not (recipe.folder / expand_path(weights or "")).is_file() else weights


def _weights(recipe: Recipe, factory: str) -> set[str]:
    """Return the files that a ``.pt2`` file, or the module in ``hf:FOLDER``, is made of."""
    if not factory.startswith(HF):
        return {factory} if factory.endswith(".pt2") else set()
    place = expand_path(factory.removeprefix(HF))
    made_of = [path for kind in ("config.json", "*.safetensors") for path in (recipe.folder / place).glob(kind)]
    return {str(place / path.name) for path in made_of}


def _other_files(recipe: Recipe) -> set[str]:
    """Return the files a recipe names without ``:name``: weights, ``.attar`` files, arrays such as ``npz:PATH``."""
    sources = [model.source for model in recipe.models.values()]
    files = {name for source in sources for name in (_file(recipe, source.weights), source.file) if name}
    files |= {name for each in sources if isinstance(each.factory, str) for name in _weights(recipe, each.factory)}
    source = recipe.data.source
    word, _, argument = source.partition(":") if isinstance(source, str) else ("", "", "")
    return files | ({argument} if word in set(DATASETS) and argument else set())
