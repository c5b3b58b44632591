"""The interface of a module: its arguments by name, its outputs by path, and how ``torch.export`` is shown both.

A tensor stays a tensor; tuples and lists become one flat tuple. Where a mapping, a dataclass or a named tuple is among
them, the result is a dict of paths: ``Output(loss=None, logits=y, hidden=(a, b))`` is ``{"logits": y, "hidden.0": a,
"hidden.1": b}``. None is left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import Any

from torch import Tensor, nn

from attar._src.core.errors import ModelError
from attar._src.core.fields import main_output_name, named_fields

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def forward_parameters(module: nn.Module, method: str = "forward") -> dict[str, bool]:
    """Return the arguments of a module's method in order -> whether a call must give them.

    ``forward(self, x, *more, mask=None)`` is ``{"x": True, "*more": False, "mask": False}``; ``**kwargs`` is left out.
    """
    found = {}
    for name, given in inspect.signature(getattr(module, method)).parameters.items():
        if given.kind is Parameter.VAR_POSITIONAL:
            found[f"*{name}"] = False
        elif given.kind is not Parameter.VAR_KEYWORD:
            found[name] = given.default is Parameter.empty
    return found


def call_by_name(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor], method: str = "forward") -> Any:
    """Call a module with inputs for the arguments ``names``; all others keep their defaults.

    Args:
        module: called itself, so that its hooks run; for another ``method`` that is called.
        names: of the arguments; none for inputs by position.
        inputs: a tensor for each.
        method: what is called.
    """
    args, kwargs = _arguments(getattr(module, method), names, inputs)
    return (module if method == "forward" else getattr(module, method))(*args, **kwargs)


@contextmanager
def flat_entry(module: nn.Module, names: Sequence[str], method: str = "forward") -> Iterator[None]:
    """Let a module take ``names`` by position and return :func:`plain_outputs`, for ``torch.export``.

    The exporter calls the module and names its inputs by the signature of ``forward``. That is shadowed on the instance
    by a function of this signature; a hook before all others turns positions into names, one after all others flattens
    the output, so that the module's own hooks see what they always see.

    Args:
        module: as it was again afterwards.
        names: the arguments it is called with.
        method: what is called in place of ``forward``.
    """
    own = getattr(module, method)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        by_position, by_name = _arguments(own, names, args)
        return by_position, {**by_name, **kwargs}

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return plain_outputs(output)

    forward.__signature__ = Signature([Parameter(name, _BY_POSITION[1]) for name in names])  # type: ignore[attr-defined]
    shadowed = {key: module.__dict__[key] for key in ("forward",) if key in module.__dict__}
    hooks = [
        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
        module.register_forward_hook(after),
    ]
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        module.__dict__.update(shadowed)
        for hook in hooks:
            hook.remove()


def _arguments(function: Any, names: Sequence[str], inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a call gives by position and by name: by position as long as no argument is skipped."""
    parameters = inspect.signature(function).parameters
    ordered = [name for name, given in parameters.items() if given.kind in _BY_POSITION]
    together = 0
    while together < min(len(names), len(ordered)) and names[together] == ordered[together]:
        together += 1
    # What is no parameter goes into *args.
    if not all(name in parameters for name in names[together:]):
        together = len(names)
    named = dict(zip(names[together:], inputs[together:], strict=True)) if names else {}
    return tuple(inputs[: together if names else None]), named


def flatten_outputs(output: Any, path: str = "") -> dict[str, Tensor]:
    """Return the tensors of an output by path, in order; of a single tensor the path is empty.

    Raises:
        ModelError: something in it is neither a tensor nor None nor a container of them, or two paths are the same.
    """
    if isinstance(output, Tensor):
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
    found: dict[str, Tensor] = {}
    for key, item in fields.items():
        for name, tensor in flatten_outputs(item, f"{path}.{key}" if path else key).items():
            if name in found:
                raise ModelError(f"two outputs are called {name!r}; rename one")
            found[name] = tensor
    return found


def plain_outputs(output: Any) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Return an output as captured programs return it: a tensor, a flat tuple, or a dict of paths.

    Raises:
        ModelError: as :func:`flatten_outputs`, or it holds no tensor.
    """
    if isinstance(output, Tensor):
        return output
    found = flatten_outputs(output)
    if not found:
        raise ModelError(f"the output is a {type(output).__name__} without tensors; return at least one")
    return found if _has_names(output) else tuple(found.values())


def main_output(output: Any) -> Tensor:
    """Return the tensor that losses, metrics and students see: ``logits`` if there is one, else the first floating."""
    found = flatten_outputs(output)
    return found[main_output_name({name: tensor.is_floating_point() for name, tensor in found.items()})]


def _has_names(output: Any) -> bool:
    if named_fields(output) is not None:
        return True
    return isinstance(output, tuple | list) and any(_has_names(item) for item in output)
