"""A second graph: the encoder of a model, and a step of the decoder that is tied to its embedding, in one file."""

import torch
from torch import nn

from attar.extend import (
    CalibrationInputs,
    CompressedModel,
    Context,
    EntryPoint,
    FileInfo,
    PostTrainingQuantize,
    pack,
    trace_methods,
)


class Translator(nn.Module):
    """Tokens are read into one vector, and written from it one by one; the output layer is the embedding."""

    def __init__(self, words=40, width=16):
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.mix, self.cell = nn.Linear(width, width), nn.GRUCell(width, width)
        self.out = nn.Linear(width, words, bias=False)
        self.out.weight = self.table.weight

    def encode(self, tokens):
        return torch.tanh(self.mix(self.table(tokens).mean(1)))

    def step(self, memory, token):
        memory = self.cell(self.table(token), memory)
        return self.out(memory), memory


def compress(module, tokens):
    """Return the bytes of a file with two graphs in 8 bits, calibrated on ``tokens``, int64 ``(N, length)``."""
    with torch.no_grad():
        step = (module.encode(tokens), tokens[:, 0])
    inputs = {"encoder": CalibrationInputs(((tokens,),)), "decoder_step": CalibrationInputs((step,))}
    entries = {"encoder": EntryPoint((tokens,), "encode"), "decoder_step": EntryPoint(step, "step")}
    model = CompressedModel.of(trace_methods(module, entries))
    return pack(PostTrainingQuantize(bits=8, activations=8).run(model, Context(inputs)).contents(FileInfo()))
