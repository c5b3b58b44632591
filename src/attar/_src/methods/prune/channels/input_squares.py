"""Mean squares of what the weights of a module multiply, which scores without labels read."""

from __future__ import annotations

from math import prod

import torch

from attar._src.core.errors import SpecError
from attar._src.methods.prune.units import WeightRows
from attar._src.model.capture import CapturedModel
from attar._src.model.collect import Request, collect
from attar._src.model.programs import state_of
from attar._src.model.recurrent.inputs import expose_inputs
from attar._src.model.statistics import ChannelSquares
from attar._src.model.weights import LayerInput, Window, find_weights, weight_input
from attar._src.work.calibration_inputs import CalibrationInputs


def input_squares(captured: CapturedModel, inputs: CalibrationInputs) -> dict[str, torch.Tensor]:
    """Return name of a weight -> the mean square of what each of its elements multiplies, of its shape.

    Tables of embeddings and transposed convolutions are left out: what they multiply is not seen.
    """
    graph, exposed = expose_inputs(captured.evaluation)
    weights, state = find_weights(captured.evaluation), state_of(captured.evaluation)
    reads: dict[str, LayerInput] = {}
    for name, weight in weights.items():
        try:
            reads[name] = weight_input(graph, weight, exposed)
        except SpecError:
            continue
    wanted = {name: (Request.of_input(read, ChannelSquares),) for name, read in reads.items() if name in state}
    found = {}
    for name, (seen,) in collect(graph, wanted, inputs.batches, "squares of inputs"):
        assert isinstance(seen, ChannelSquares)
        shape, window = tuple(state[name].shape), reads[name].window
        rows = _rows(torch.from_numpy(seen.mean), window, prod(shape))
        found[name] = WeightRows.of(shape, weights[name], window).weight(rows).to(state[name].dtype)
    return found


def _rows(squares: torch.Tensor, window: Window, elements: int) -> torch.Tensor:
    """Return squares of channels as the rows of a weight that multiply them, ``(groups, rows, length)``."""
    positions = prod(window.kernel)
    vectors = squares.reshape(-1, window.length // positions, 1).expand(-1, -1, positions)
    vectors = vectors.reshape(-1, 1, window.length).expand(window.groups, -1, -1)
    return vectors.expand(-1, elements // (window.groups * window.length), -1)
