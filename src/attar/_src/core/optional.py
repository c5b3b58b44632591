"""The packages that ``attar[compress]`` has beside the base install, by the name they are imported by."""

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
    """Return what to install where a module of these was not found; None for every other."""
    if (error.name or "").partition(".")[0] not in _COMPRESS:
        return None
    return f"this makes files or trains, and not all it needs is installed ({error}): pip install 'attar[compress]'"
