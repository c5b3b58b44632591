"""First run of a module on a batch of its data, before anything is traced: errors of either are in the user's words."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attar._src.core.errors import AttarError, ModelError, place_of, short_message
from attar._src.model.capture import in_mode
from attar._src.model.forms.as_module import is_uninitialized
from attar._src.model.interface import call_by_name, flatten_outputs
from attar._src.work.compressed_model import CalibrationInputs


def run_once(module: nn.Module, inputs: CalibrationInputs) -> None:
    """Run a module in evaluation mode on its first batch; a lazy module gets its parameters by it.

    Raises:
        ModelError: the module fails; the message has the inputs and the line of its code.
    """
    batch = inputs.batches[0]
    try:
        with torch.no_grad(), in_mode(module, train=False):
            call_by_name(module, inputs.names, batch)
    except AttarError:
        raise
    except Exception as error:
        # The module is the user's code and may raise anything.
        place = place_of(error)
        raise ModelError(
            f"{type(module).__name__} fails on the first batch, {_described(inputs.names, batch)}: "
            f"{short_message(error)}{f' ({place})' if place else ''}; the data should be what its forward takes: "
            "preprocessed, with axis 0 for examples"
        ) from error


def fit_of(module: nn.Module) -> Callable[[tuple[tuple[str, ...], tuple[Tensor, ...]]], int] | None:
    """Return the function that tells how a batch fits: 0 if the module raises, 2 if an output has its axis 0, else 1.

    None for a lazy module, whose parameters would take the shapes of the first trial.
    """
    if is_uninitialized(module):
        return None

    def fit(batch: tuple[tuple[str, ...], tuple[Tensor, ...]]) -> int:
        names, inputs = batch
        try:
            with torch.no_grad(), in_mode(module, train=False):
                outputs = flatten_outputs(call_by_name(module, names, inputs))
        except Exception:  # noqa: BLE001 - a module may raise anything on a batch that it does not take
            return 0
        return 1 + any(output.shape[:1] == inputs[0].shape[:1] for output in outputs.values())

    return fit


def _described(names: tuple[str, ...], batch: tuple[Tensor, ...]) -> str:
    """Return the inputs in words: ``ids int64 (2, 7), mask float32 (2, 7)``."""
    words = [f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in batch]
    return ", ".join(f"{name} {word}" for name, word in zip(names, words, strict=True)) if names else ", ".join(words)
