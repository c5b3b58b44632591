"""Neural Compressor: post-training quantization."""

from __future__ import annotations

import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import GPTQConfig, StaticQuantConfig, convert, prepare
from torch import nn

from row import Asked, Batches, Unable, only_linear


def quantized(net: nn.Module, batches: Batches, asked: Asked) -> nn.Module:
    """Return what Neural Compressor makes: static int8 by PT2E, weights alone by its GPTQ, a scale a channel."""
    if asked.dynamic:
        raise Unable("its dynamic quantization is for Intel's extension of PyTorch")
    if asked.activations is not None:
        if (asked.bits, asked.activations) != (8, 8):
            raise Unable("its static quantization has 8 bits")

        shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in batches[0])
        prepared = prepare(export(net.eval(), batches[0], dynamic_shapes=shapes), StaticQuantConfig())
    else:
        only_linear(net)
        prepared = prepare(net.eval(), GPTQConfig(bits=asked.bits, group_size=-1, act_order=True))
    with torch.no_grad():
        for batch in batches:
            prepared(*batch)
    made: nn.Module = convert(prepared)
    return made
