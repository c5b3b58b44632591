"""First run of a module on a batch of its data, before anything is traced: errors of either are in the user's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from attar._src.core.errors import AttarError, ModelError, place_of, short_message
from attar._src.data.axes import Dynamic
from attar._src.deploy.calibration_inputs import FITS, calibration_inputs
from attar._src.model.capture import in_mode
from attar._src.model.forms.as_module import as_module, is_uninitialized
from attar._src.model.interface import call_by_name, flatten_outputs, forward_parameters
from attar._src.work.calibration_inputs import CalibrationInputs

#: What encoder-decoders of transformers take beside the inputs of the encoder.
_DECODER = "decoder_input_ids"


def prepare(
    model: Any,
    data: Any,
    *,
    examples: int,
    batch: int,
    collate: Callable[[list[Any]], Any] | None = None,
    dynamic: Dynamic = None,
) -> tuple[nn.Module, CalibrationInputs, dict[str, str]]:
    """Return a model and its data as a module that runs on its inputs, and notes, by topic, on what was changed.

    Raises:
        ModelError: as :func:`as_module` and :func:`run_once`.
        DataError: as :func:`calibration_inputs`.
    """
    module, changes = as_module(model)
    parameters, fits = forward_parameters(module), fit_of(module)
    inputs = calibration_inputs(
        data, parameters, examples=examples, batch=batch, dynamic=dynamic, collate=collate, fits=fits
    )
    run_once(module, inputs)
    return (
        module,
        inputs,
        {topic: "; ".join(each) for topic, each in (("module", changes), ("data", inputs.notes)) if each},
    )


def run_once(module: nn.Module, inputs: CalibrationInputs) -> None:
    """Run a module in evaluation mode on its first batch; a lazy module gets its parameters by it.

    Two examples of the batch tell as much, unless the module takes no batches of two.

    Raises:
        ModelError: the module fails; the message has the inputs and the line of its code.
    """
    batch = inputs.batches[0]
    try:
        with torch.no_grad(), in_mode(module, train=False):
            if inputs.count(batch) > 2 and _runs(module, inputs.names, inputs.part(batch, 0, 2)):
                return
            call_by_name(module, inputs.names, batch)
    except AttarError:
        raise
    except Exception as error:
        # The module is the user's code and may raise anything.
        place = place_of(error)
        raise ModelError(
            f"{type(module).__name__} fails on the first batch, {_described(inputs.names, batch)}: "
            f"{short_message(error)}{f' ({place})' if place else ''}; {_hint(module, inputs)}"
        ) from error


def _runs(module: nn.Module, names: tuple[str, ...], inputs: tuple[Tensor, ...]) -> bool:
    try:
        call_by_name(module, names, inputs)
    except Exception:  # noqa: BLE001 - the whole batch will tell
        return False
    return True


def _hint(module: nn.Module, inputs: CalibrationInputs) -> str:
    if _DECODER in forward_parameters(module) and _DECODER not in inputs.names:
        return (
            f"it also takes {_DECODER}: add them to the data, or give the encoder alone, which needs none: "
            "model.get_encoder()"
        )
    if isinstance(module, fx.GraphModule):
        return (
            "a program exported for one size of batch, say 4, takes batch=4, dynamic=(); export it with "
            "dynamic_shapes for any"
        )
    return "the data should be what its forward takes: preprocessed, with axis 0 for examples"


def fit_of(module: nn.Module) -> Callable[[tuple[tuple[str, ...], tuple[Tensor, ...]]], int] | None:
    """Return the function that tells how a batch fits: 0 if the module raises, FITS if an output has axis 0, else 1.

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
        return FITS if any(output.shape[:1] == inputs[0].shape[:1] for output in outputs.values()) else 1

    return fit


def _described(names: tuple[str, ...], batch: tuple[Tensor, ...]) -> str:
    """Return the inputs in words: ``ids int64 (2, 7), mask float32 (2, 7)``."""
    words = [f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in batch]
    return ", ".join(f"{name} {word}" for name, word in zip(names, words, strict=True)) if names else ", ".join(words)
