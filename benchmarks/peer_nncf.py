"""NNCF: post-training quantization."""

from __future__ import annotations

import os

os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "0")  # it compiles; 60 seconds are few beside other work

import nncf
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters
from torch import nn

from row import Asked, Batches, Unable, only_linear


def quantized(net: nn.Module, batches: Batches, asked: Asked) -> nn.Module:
    """Return what NNCF's ``quantize`` makes, with its bias correction; weights alone by ``compress_weights``."""
    if asked.dynamic:
        raise Unable("it has no dynamic activations")
    data = nncf.Dataset(batches, lambda batch: batch[0] if len(batch) == 1 else batch)
    if asked.activations is None:
        if asked.bits != 4:
            raise Unable("compress_weights has 8 and 4 bits")
        only_linear(net)
        made: nn.Module = nncf.compress_weights(
            net.eval(), mode=nncf.CompressWeightsMode.INT4_SYM, group_size=-1, all_layers=True, dataset=data
        )
        return made
    advanced = AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(num_bits=asked.activations),
        weights_quantization_params=QuantizationParameters(num_bits=asked.bits),
    )
    quantized_net: nn.Module = nncf.quantize(net.eval(), data, subset_size=len(batches), advanced_parameters=advanced)
    return quantized_net
