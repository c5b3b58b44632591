"""Models of ``transformers`` in a folder, as ``save_pretrained`` writes it: ``hf:FOLDER``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attar._src.core.errors import AttarWarning, ModelError, short_message
from attar._src.data.huggingface import HF, read_config, transformers_offline

#: Weights that are pickled, or made for another library.
_OTHER = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")


def from_folder(model: Any) -> Any:
    """Return the module of ``hf:FOLDER``; anything else as it is."""
    return load_pretrained(Path(model.removeprefix(HF))) if isinstance(model, str) and model.startswith(HF) else model


def load_pretrained(folder: Path, **arguments: Any) -> nn.Module:
    """Return the model in a folder in float32 and in evaluation mode; nothing is downloaded, no code of it is run.

    Its class is the first of ``architectures`` in ``config.json``, or ``AutoModel`` without any. ``arguments`` go to
    ``from_pretrained``: ``num_labels=3``, ``attn_implementation="eager"``.

    Raises:
        SpecError: ``transformers`` is not installed; the folder or its ``config.json`` does not exist.
        ModelError: the architecture is not one of ``transformers``, the model is quantized already, or its weights are
            pickled, missing or do not fit.
    """
    folder = folder.expanduser()
    config, where = read_config(folder), f"{HF}{folder}"
    _check(config, folder, where)
    with transformers_offline(where) as library:
        kind = _class(config, library, where)
        try:
            model, report = kind.from_pretrained(
                folder,
                **{"dtype": torch.float32, "local_files_only": True, "use_safetensors": True} | arguments,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:
            # A damaged file or a faulty configuration may raise anything.
            raise ModelError(f"{where}: {kind.__name__} cannot be loaded: {short_message(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where}: {kind.__name__} gives a {type(model).__name__}, not a torch.nn.Module")
    _warn_of_new(sorted(report["missing_keys"]), where)
    return model.eval()


def _check(config: Mapping[str, Any], folder: Path, where: str) -> None:
    if config.get("quantization_config"):
        raise ModelError(
            f"{where} is quantized already (quantization_config in config.json): give the floating-point model it was "
            "made from"
        )
    if any(folder.glob("*.safetensors")):
        return
    other = next((path.name for pattern in _OTHER for path in sorted(folder.glob(pattern))), None)
    if other is None:
        raise ModelError(f"{where} has no model.safetensors; copy it beside config.json")
    raise ModelError(
        f"{where} has its weights in {other} and not in safetensors; Attar opens no pickles, as they can run code. If "
        "you trust the file: AutoModel.from_pretrained(folder).save_pretrained(new), with the class of your task, "
        "writes model.safetensors"
    )


def _class(config: Mapping[str, Any], library: Any, where: str) -> Any:
    """Return the class of a configuration."""
    names = config.get("architectures") or ["AutoModel"]
    name = str(names[0] if isinstance(names, list) else names)
    found = getattr(library, name, None)
    if not isinstance(found, type) or not hasattr(found, "from_pretrained"):
        own = " (it has code of its own, which is not run)" if config.get("auto_map") else ""
        raise ModelError(
            f"{where}: the architecture {name} of config.json is not in transformers {library.__version__}{own}: "
            "update transformers, or build the module in Python and give it to attar.quantize, or to the command line "
            "as file.py:function"
        )
    return found


def _warn_of_new(names: list[str], where: str) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        message = (
            f"{where}: {', '.join(names[:3])}{more} {'are' if len(names) > 1 else 'is'} not among the weights and "
            "random: outputs that depend on them mean nothing until they are trained"
        )
        warnings.warn(message, AttarWarning, stacklevel=2)
