"""The library ``transformers``, imported on demand and kept off the network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attar._src.core.errors import SpecError, missing_file

#: Beginning of a model that is a folder: ``hf:FOLDER``.
HF = "hf:"


@contextmanager
def transformers_offline(what: str) -> Iterator[Any]:
    """Yield the module ``transformers``, which in the block downloads nothing and prints nothing but errors.

    Raises:
        SpecError: it is not installed; ``what`` needs it.
    """
    try:
        library: Any = importlib.import_module("transformers")
        hub: Any = importlib.import_module("huggingface_hub.constants")
    except ModuleNotFoundError as error:
        raise SpecError(f"{what} needs transformers ({error}): pip install 'attar[hf]'") from error
    log: Any = importlib.import_module("transformers.utils.logging")
    before = hub.HF_HUB_OFFLINE, log.get_verbosity(), log.is_progress_bar_enabled()
    hub.HF_HUB_OFFLINE = True
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield library
    finally:
        hub.HF_HUB_OFFLINE = before[0]
        log.set_verbosity(before[1])
        if before[2]:
            log.enable_progress_bar()


def read_config(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a folder as ``save_pretrained`` writes it.

    Raises:
        SpecError: the folder or the file does not exist, or is no JSON object.
    """
    if not folder.is_dir():
        missing = missing_file(folder, "there is no folder")
        raise SpecError(
            f"{HF}{folder}: {missing}; {HF} takes a folder on this machine and downloads nothing: "
            "hf download NAME --local-dir FOLDER"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise SpecError(f"{HF}{folder} has no config.json; give a folder that model.save_pretrained(folder) wrote")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise SpecError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise SpecError(f"{path} is a {type(found).__name__}; an object was expected")
    return found
