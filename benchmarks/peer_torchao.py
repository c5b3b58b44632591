"""torchao: training with 4-bit weights, and post-training quantization; a symmetric scale an output channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis
from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    HistogramObserver,
    LearnableFakeQuantize,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    enable_range_learning,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer
from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig

from row import Asked, Batches, Unable, no_recurrent, only_linear

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


def pt2e(net: nn.Module, batches: Batches, asked: Asked) -> nn.Module:
    """Return what torchao's PT2E makes: weights by their largest, activations by histograms (least squared error)."""
    if asked.dynamic:
        raise Unable("PT2E's dynamic quantizer is for linear layers alone: see quantize_")
    no_recurrent(net)
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in batches[0])
    program = torch.export.export(net.eval(), batches[0], dynamic_shapes=shapes).module(check_guards=False)
    prepared = prepare_pt2e(program, _Asked(asked))
    with torch.no_grad():
        for batch in batches:
            prepared(*batch)
    made: nn.Module = convert_pt2e(prepared)
    return made


def quantized(net: nn.Module, _batches: Batches, asked: Asked) -> nn.Module:
    """Return what torchao's ``quantize_`` makes of linear layers: HQQ's scales, a channel each; activations dynamic."""
    dtype = getattr(torch, f"int{asked.bits}")
    if asked.activations is not None and not asked.dynamic:
        raise Unable("static activations are PT2E's")
    if asked.dynamic:
        config: Any = Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=PerAxis(0))
    else:
        config = IntxWeightOnlyConfig(dtype, PerAxis(0), intx_choose_qparams_algorithm="hqq_scale_only")
    only_linear(net)
    quantize_(net.eval(), config)
    return net


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


class _Asked(Quantizer):  # type: ignore[misc]
    """Asks for what a row asks."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        nodes = [node for node in model.graph.nodes if node.target in _PRODUCTS]
        for node in nodes:
            ends = any(end in str(node.args[1]) for end in _flat(self._asked.ends))
            limit = 2 ** ((8 if ends else self._asked.bits) - 1) - 1
            weight = QuantizationSpec(
                torch.int8, PerChannelMinMaxObserver, -limit, limit, torch.per_channel_symmetric, ch_axis=0
            )
            read = None
            if self._asked.activations is not None:
                top = 2 ** (8 if ends else self._asked.activations) - 1
                read = QuantizationSpec(torch.uint8, HistogramObserver, 0, top, torch.per_tensor_affine)
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                {node.args[0]: read, node.args[1]: weight}, _annotated=True
            )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        pass


def _flat(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"p_{name.replace('.', '_')}_weight" for name in names) + names
