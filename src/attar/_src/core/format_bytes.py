"""Sizes in bytes as people read them; used by the commands and the report."""

from __future__ import annotations


def format_bytes(size: float) -> str:
    """Return a size with a decimal unit: ``512 B``, ``1.5 KB`` (1500 bytes), ``2.0 MB``, ``3.0 GB``."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("KB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"
