"""Outputs: what a module returns, flattened with names; captured programs, parity, losses and teachers share it.

A tensor stays a tensor; tuples and lists become one flat tuple. Where a mapping, a dataclass or a named tuple is among
them, the result is a dict of paths: ``Output(loss=None, logits=y, hidden=(a, b))`` is ``{"logits": y, "hidden.0": a,
"hidden.1": b}``. None is left out.
"""

from __future__ import annotations

from typing import Any

import torch

from attar._src.core.errors import ModelError
from attar._src.core.fields import main_output_name, named_fields


def flatten_outputs(output: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors of an output by path, in order; of a single tensor the path is empty.

    Raises:
        ModelError: something in it is neither a tensor nor None nor a container of them, or two paths are the same.
    """
    if isinstance(output, torch.Tensor):
        return {path: output}
    if output is None:
        return {}
    fields = named_fields(output)
    if fields is None and isinstance(output, tuple | list):
        fields = {str(index): item for index, item in enumerate(output)}
    if fields is None:
        what = f"output {path!r}" if path else "the output"
        raise ModelError(
            f"{what} is {type(output).__name__}; return tensors or None, alone or in tuples, lists, mappings and "
            "dataclasses"
        )
    found: dict[str, torch.Tensor] = {}
    for key, item in fields.items():
        for name, tensor in flatten_outputs(item, f"{path}.{key}" if path else key).items():
            if name in found:
                raise ModelError(f"two outputs are called {name!r}; rename one")
            found[name] = tensor
    return found


def plain_outputs(output: Any) -> torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
    """Return an output as captured programs return it: a tensor, a flat tuple, or a dict of paths.

    Raises:
        ModelError: as :func:`flatten_outputs`, or it holds no tensor.
    """
    if isinstance(output, torch.Tensor):
        return output
    found = flatten_outputs(output)
    if not found:
        raise ModelError(f"the output is a {type(output).__name__} without tensors; return at least one")
    return found if _has_names(output) else tuple(found.values())


def main_output(output: Any) -> torch.Tensor:
    """Return the tensor that losses, metrics and students see: ``logits`` if there is one, else the first floating."""
    found = flatten_outputs(output)
    return found[main_output_name({name: tensor.is_floating_point() for name, tensor in found.items()})]


def _has_names(output: Any) -> bool:
    if named_fields(output) is not None:
        return True
    return isinstance(output, tuple | list) and any(_has_names(item) for item in output)
