"""The interface of a module: its arguments by name, its outputs by path, and how ``torch.export`` is shown both.

An output stays a tensor if it is one; tuples and lists become one flat tuple. If there is a mapping, a dataclass or a
named tuple among them, the result is a dict of paths: ``Output(loss=None, logits=y, hidden=(a, b))`` is ``{"logits": y,
"hidden.0": a, "hidden.1": b}``. None is left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import Any

from torch import Tensor, nn

from attar._src.core.errors import ModelError
from attar._src.core.fields import argument_of, main_output_name, named_fields

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


def call_by_name(module: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> Any:
    """Call a module with an input for each of ``names``, or by position if empty; other arguments keep defaults."""
    args, kwargs = _arguments(module.forward, names, inputs)
    return module(*args, **kwargs)


@contextmanager
def flat_entry(module: nn.Module, names: Sequence[str], method: str = "forward") -> Iterator[None]:
    """Let a module take ``names`` by position and return :func:`plain_outputs`, for ``torch.export``.

    The exporter names inputs by the signature of ``forward``, so a function with this signature shadows it on the
    instance. A first hook turns positions into names and a last one flattens the output: hooks of the module itself,
    between the two, see what they always see. At the end the module is as it was.

    Args:
        module: to be exported.
        names: the arguments it is called with.
        method: called instead of ``forward``.
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
    shadowed = {key: value for key, value in module.__dict__.items() if key == "forward"}
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


def flatten_outputs(output: Any, path: str = "") -> dict[str, Tensor]:
    """Return the tensors of an output by path, in order; the path of a single tensor is empty.

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
        ModelError: as :func:`flatten_outputs`, or there is no tensor.
    """
    if isinstance(output, Tensor):
        return output
    found = flatten_outputs(output)
    if not found:
        raise ModelError(f"the output is a {type(output).__name__} without tensors; return at least one")
    return found if _has_names(output) else tuple(found.values())


def main_output(output: Any) -> Tensor:
    """Return what losses and metrics see: ``logits``, else the first floating-point output, else the first."""
    found = flatten_outputs(output)
    return found[main_output_name({name: tensor.is_floating_point() for name, tensor in found.items()})]


def _has_names(output: Any) -> bool:
    if named_fields(output) is not None:
        return True
    return isinstance(output, tuple | list) and any(map(_has_names, output))
