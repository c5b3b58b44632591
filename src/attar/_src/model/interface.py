"""The interface of a module: its arguments by name, its outputs by path, and how ``torch.export`` is shown both.

An output stays a tensor if it is one; tuples and lists become one flat tuple. If there is a mapping, a dataclass or a
named tuple among them, the result is a dict of paths: ``Output(loss=None, logits=y, hidden=(a, b))`` is ``{"logits": y,
"hidden.0": a, "hidden.1": b}``. Other classes are containers if ``torch.utils._pytree`` knows them. What is no tensor
is left out; unless it is None, there is a warning.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import SUPPORTED_NODES, tree_leaves

from attar._src.core.errors import ModelError
from attar._src.core.fields import argument_of, main_output_name, named_fields

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def forward_parameters(module: Any, method: str = "forward") -> dict[str, bool]:
    """Return the arguments of a module's method in order -> whether a call must give them.

    ``forward(self, x, *more, mask=None)`` is ``{"x": True, "*more": False, "mask": False}``; ``**kwargs`` is left out.

    Raises:
        ModelError: it is no module, or one without Python code.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a ScriptModule has no Python code to trace; give the module that it was made of")
    if not isinstance(module, nn.Module):
        hint = "; build the module and call load_state_dict" if isinstance(module, Mapping) else ""
        raise ModelError(f"a torch.nn.Module was expected, {type(module).__name__} arrived{hint}")
    found = {}
    for name, given in inspect.signature(getattr(module, method)).parameters.items():
        if given.kind is Parameter.VAR_POSITIONAL:
            found[f"*{name}"] = False
        elif given.kind is not Parameter.VAR_KEYWORD:
            found[name] = given.default is Parameter.empty
    return found


def call_by_name(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> Any:
    """Call a module with an input for each of ``names``, or by position if empty; other arguments keep defaults."""
    args, kwargs = _arguments(module.forward, names, inputs)
    return module(*args, **kwargs)


@contextmanager
def flat_entry(module: nn.Module, names: Sequence[str], method: str = "forward") -> Iterator[list[str]]:
    """Let a module take ``names`` by position and return :func:`plain_outputs`, for ``torch.export``.

    The exporter names inputs by the signature of ``forward``, so a function with this signature shadows it on the
    instance. A first hook turns positions into names and a last one flattens the output: hooks of the module itself,
    between the two, see what they always see. At the end the module is as it was.

    Args:
        module: to be exported.
        names: the arguments it is called with.
        method: called instead of ``forward``.

    Yields:
        The warnings about outputs of the last call.
    """
    own = getattr(module, method)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        by_position, by_name = _arguments(own, names, args)
        return by_position, {**by_name, **kwargs}

    warnings: list[str] = []

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        warnings[:] = output_warnings(module, output)
        return plain_outputs(output)

    forward.__signature__ = Signature([Parameter(name, _BY_POSITION[1]) for name in names])  # type: ignore[attr-defined]
    shadowed = {key: value for key, value in module.__dict__.items() if key == "forward"}
    hooks = [
        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
        module.register_forward_hook(after),
    ]
    module.__dict__["forward"] = forward
    try:
        yield warnings
    finally:
        del module.__dict__["forward"]
        module.__dict__.update(shadowed)
        for hook in hooks:
            hook.remove()


def _arguments(function: Any, names: Sequence[str], inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a call passes by position and by name: by position up to the first argument it skips."""
    parameters = inspect.signature(function).parameters
    # By convention (Hugging Face) None lets the configuration decide, and the cache is no tensor.
    off = {"use_cache": False} if _is_none(parameters.get("use_cache")) and "use_cache" not in names else {}
    if not names:
        return tuple(inputs), off if len(inputs) <= [*parameters, "use_cache"].index("use_cache") else {}
    names, inputs = _rebuilt(names, inputs, parameters)
    ordered = [name for name, given in parameters.items() if given.kind in _BY_POSITION]
    matches = [name == own for name, own in zip(names, ordered, strict=False)]
    together = [*matches, False].index(False)
    # A name that is no parameter belongs to *args.
    if not all(name in parameters for name in names[together:]):
        together = len(names)
    return tuple(inputs[:together]), off | dict(zip(names[together:], inputs[together:], strict=True))


def _is_none(parameter: Parameter | None) -> bool:
    return parameter is not None and parameter.default is None


def _rebuilt(
    names: Sequence[str], inputs: Sequence[Any], parameters: Mapping[str, Parameter]
) -> tuple[list[str], list[Any]]:
    """Return arguments and their values: ``h_0`` and ``h_1`` are the tuple of an argument ``h``, if there is one."""
    known = {f"*{name}" if each.kind is Parameter.VAR_POSITIONAL else name: False for name, each in parameters.items()}
    given: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    for name, value in zip(names, inputs, strict=True):
        owner = argument_of(name, known, names)
        if owner is None or owner == name or owner.startswith("*"):
            given[name] = value
        else:
            given[owner] = entries.setdefault(owner, {})
            entries[owner][name.removeprefix(f"{owner}_")] = value
    for owner, parts in entries.items():
        given[owner] = tuple(parts.values()) if all(map(str.isdigit, parts)) else parts
    return [*given], [*given.values()]


def flatten_outputs(output: Any) -> dict[str, Tensor]:
    """Return the tensors of an output by path, in order; the path of a single tensor is empty.

    Raises:
        ModelError: two paths are the same.
    """
    found: dict[str, Tensor] = {}
    for path, item in _leaves(output):
        if isinstance(item, Tensor):
            if path in found:
                raise ModelError(f"two outputs are called {path!r}; rename one")
            found[path] = item
    return found


def output_warnings(module: nn.Module, output: Any) -> tuple[str, ...]:
    """Return a sentence for each part of an output that is left out: neither a tensor nor None."""
    found = []
    for path, item in _leaves(output):
        if not isinstance(item, Tensor | None):
            what, place = type(item).__name__, f" as {path!r}" if path else ""
            hint = "configure the module with use_cache=False" if "Cache" in what else "a file returns tensors only"
            found.append(f"{type(module).__name__} returns {what}{place}, which is left out: {hint}")
    return tuple(found)


def _leaves(output: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every part of an output that contains no others, with its path."""
    fields = named_fields(output)
    if fields is None and isinstance(output, tuple | list):
        fields = {str(index): item for index, item in enumerate(output)}
    if fields is None and type(output) in SUPPORTED_NODES:
        fields = {str(index): item for index, item in enumerate(tree_leaves(output))}
    if fields is None:
        yield path, output
        return
    for key, item in fields.items():
        yield from _leaves(item, f"{path}.{key}" if path else key)


def plain_outputs(output: Any) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Return an output as captured programs return it: a tensor, a flat tuple, or a dict of paths.

    Raises:
        ModelError: as :func:`flatten_outputs`, or there is no tensor.
    """
    if isinstance(output, Tensor):
        return output
    found = flatten_outputs(output)
    if not found:
        raise ModelError(f"the output is {type(output).__name__} without tensors; return at least one")
    return found if _has_names(output) else tuple(found.values())


def main_output(output: Any) -> Tensor:
    """Return what losses and metrics see: ``logits``, else the first floating-point output, else the first."""
    found = flatten_outputs(output)
    return found[main_output_name({name: tensor.is_floating_point() for name, tensor in found.items()})]


def _has_names(output: Any) -> bool:
    if named_fields(output) is not None:
        return True
    return isinstance(output, tuple | list) and any(map(_has_names, output))
