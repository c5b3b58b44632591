"""Brevitas' training with 4-bit weights, a symmetric scale an output channel, activations in floating point."""

from __future__ import annotations

import torch
from brevitas.graph.quantize import layerwise_quantize
from brevitas.inject.enum import ScalingImplType
from brevitas.nn import QuantConv2d, QuantLinear
from brevitas.quant import Int8WeightPerChannelFloat
from torch import nn


def learned(module: nn.Module, _inputs: torch.Tensor) -> nn.Module:
    """Take ``QuantConv2d`` and ``QuantLinear`` for every layer: learned scales that begin at the largest weight.

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
