"""torchao's training with 4-bit weights, a symmetric scale an output channel, activations in floating point."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    LearnableFakeQuantize,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    enable_range_learning,
)
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

_LIMIT = 7  # of 4 bits, without the most negative code
_PRODUCTS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


def learned(module: nn.Module, _inputs: torch.Tensor) -> nn.Module:
    """Put a ``LearnableFakeQuantize`` on every weight: learned steps, their gradients scaled, as LSQ has them.

    Its part alone, without the rewriting that :func:`exported` does.
    """
    grids = []
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            grid = LearnableFakeQuantize(
                PerChannelMinMaxObserver,
                -_LIMIT,
                _LIMIT,
                use_grad_scaling=True,
                dtype=torch.int8,
                qscheme=torch.per_channel_symmetric,
                ch_axis=0,
            )
            grid(layer.weight)  # makes its parameters
            parametrize.register_parametrization(layer, "weight", grid)
            grids.append(grid)
    module.apply(enable_range_learning)
    for grid in grids:  # symmetric: it sets them to 0 in every forward, and nothing has to train them
        grid.zero_point.requires_grad_(False)
    return module


def exported(module: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """Take the documented way of PT2E: export, ``prepare_qat_pt2e``; scales follow the weights.

    The fake quantizer is the one its own quantizers put on weights. A batch-norm directly behind a convolution is
    simulated folded, which costs more than the rounding.
    """
    program = torch.export.export(module.train(), (inputs,)).module(check_guards=False)
    prepared: nn.Module = prepare_qat_pt2e(program, _Weights())
    return prepared


class _Weights(Quantizer):  # type: ignore[misc]
    """Asks for the weights of convolutions and linear layers."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        spec = QuantizationSpec(
            torch.int8,
            FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver),
            -_LIMIT,
            _LIMIT,
            torch.per_channel_symmetric,
            ch_axis=0,
        )
        for node in model.graph.nodes:
            if node.target in _PRODUCTS:
                asked = {node.args[0]: None, node.args[1]: spec}
                node.meta["quantization_annotation"] = QuantizationAnnotation(asked, _annotated=True)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        pass
