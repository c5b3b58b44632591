"""The packages of ``attar[compress]``, by import name."""

from __future__ import annotations

_COMPRESS = (
    "filelock",
    "jinja2",
    "lightning_fabric",
    "onnxscript",
    "plotly",
    "ruamel",
    "safetensors",
    "sklearn",
    "tensorboardX",
    "torch",
)


def install_hint(error: ModuleNotFoundError) -> str | None:
    """Return what to install if the missing module belongs to ``attar[compress]``; None for other modules."""
    if (error.name or "").partition(".")[0] not in _COMPRESS:
        return None
    return f"this needs the packages for training and compression ({error}): pip install 'attar[compress]'"
