"""Brevitas: training with 4-bit weights, and post-training quantization; a symmetric scale an output channel."""

from __future__ import annotations

from typing import Any

import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.gptq import gptq_mode
from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize
from brevitas.inject import value
from brevitas.inject.enum import ScalingImplType
from brevitas.nn import QuantConv2d, QuantLinear
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int8WeightPerChannelFloatMSE
from torch import nn

from row import Asked, Batches, Unable, no_recurrent


def learned(module: nn.Module, _inputs: torch.Tensor) -> nn.Module:
    """Prepare training: ``QuantConv2d`` and ``QuantLinear`` for every layer, learned scales from the largest weight.

    Without LSQ's factor on the gradients of the scales, and without the codes' most negative.
    """
    asked = {
        "weight_quant": Int8WeightPerChannelFloat,
        "weight_bit_width": 4,
        "weight_scaling_impl_type": ScalingImplType.PARAMETER_FROM_STATS,
        "return_quant_tensor": False,
    }
    layers = {nn.Conv2d: (QuantConv2d, asked), nn.Linear: (QuantLinear, asked)}
    quantized: nn.Module = layerwise_quantize(module, compute_layer_map=layers)
    return quantized


def gptq(net: nn.Module, batches: Batches, asked: Asked) -> nn.Module:
    """Return what Brevitas makes: batch-norms folded, scales a channel by squared error, GPTQ, bias correction."""
    no_recurrent(net)
    made = _rounded(net, batches, asked)
    with torch.no_grad(), gptq_mode(made, act_order=True, create_weight_orig=False) as solver:
        for _ in range(solver.num_layers):
            for batch in batches:
                solver.model(*batch)
            solver.update()
    with torch.no_grad(), bias_correction_mode(made):
        for batch in batches:
            made(*batch)
    return made


def _rounded(net: nn.Module, batches: Batches, asked: Asked) -> nn.Module:
    """Return it with rounded weights, and the ranges of activations calibrated."""
    if asked.dynamic:
        raise Unable("its dynamic activations are for language models")
    net = preprocess_for_quantize(net.eval(), merge_bn=True)
    ends = {id(net.get_submodule(name)) for name in asked.ends}

    def of(bits: int) -> Any:
        return value(lambda module: 8 if id(module) in ends else bits)

    how: dict[str, Any] = {
        "weight_quant": Int8WeightPerChannelFloatMSE,
        "weight_bit_width": of(asked.bits),
        "return_quant_tensor": False,
    }
    if asked.activations is not None:
        how |= {"input_quant": Int8ActPerTensorFloat, "input_bit_width": of(asked.activations)}
    layers = {nn.Conv2d: (QuantConv2d, how), nn.Linear: (QuantLinear, how)}
    made: nn.Module = layerwise_quantize(net, compute_layer_map=layers).eval()
    with torch.no_grad():
        made(*batches[0])  # gives scales to the weights
        with calibration_mode(made):
            for batch in batches:
                made(*batch)
    return made
