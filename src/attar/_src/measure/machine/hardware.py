"""What a file needs of a processor to be as fast as it was measured: the kernels that ran its layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attar._src.runtime.session import Layer

#: Flags of Linux -> instructions that multiply bytes and sum in 32 bits, the best first.
DOT_PRODUCTS = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI", "asimddp": "dot products"}
_PROCESSOR = Path("/proc/cpuinfo")
#: What a file without integer layers needs.
NOTHING = "nothing"


def dot_product_instructions(processor: Path = _PROCESSOR) -> str | None:
    """Return the instructions for sums of products of bytes on this machine; empty if it has none, None if unknown."""
    try:
        text = processor.read_text()
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    if not lines:
        return None
    flags = set(lines[0].partition(":")[2].split())
    return next((words for flag, words in DOT_PRODUCTS.items() if flag in flags), "")


def hardware_needed(layers: Sequence[Layer], instructions: str | None) -> str:
    """Return what the measured time of a file rests on, in words.

    Args:
        layers: as ONNX Runtime ran them.
        instructions: of this machine, by :func:`dot_product_instructions`.

    Example: ``integer kernels for 19 of 20 layers; here AVX-512 VNNI``.
    """
    count = sum(layer.integer for layer in layers)
    packed = sum(layer.plan == "packed weights" for layer in layers)
    parts = []
    if count:
        here = {None: "", "": "; here without VNNI"}.get(instructions, f"; here {instructions}")
        parts.append(f"integer kernels for {count} of {len(layers)} layers{here}")
    if packed:
        parts.append(f"kernels for packed weights for {packed} of {len(layers)} layers")
    return ", ".join(parts) or NOTHING
