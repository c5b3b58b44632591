import torch
from torch import nn

import attar
from attar._src.deploy.dry_run import dry_run
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo

INPUTS = CalibrationInputs(((torch.randn(8, 4),),), ("x",))


class Auxiliary(nn.Module):
    """Returns another number of outputs in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return (y, y.square()) if self.training else y


class Demanding(Auxiliary):
    def forward(self, x):
        if self.training:
            raise ValueError("no targets")
        return self.layer(x)


def test_a_module_with_more_outputs_in_training_is_deployed_with_its_own():
    found = dry_run(Auxiliary(), FileInfo(), INPUTS, dynamic=[0])
    assert not found.note
    assert len(found.traced.outputs) == 1
    assert len(found.captured.training(*INPUTS.batches[0])) == 2


def test_a_module_without_training_mode_has_a_note_that_says_why():
    found = dry_run(Demanding(), FileInfo(), INPUTS, dynamic=[0])
    assert "no targets" in found.note
    assert "captured in evaluation mode" in found.note


class Padded(nn.Module):
    """Learned positions, cut to the length of the batch, and a mask of the padding, which is optional."""

    def __init__(self):
        super().__init__()
        self.words, self.positions, self.out = nn.Embedding(30, 8), nn.Parameter(torch.randn(1, 64, 8)), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask=None):
        x = self.words(input_ids) + self.positions[:, : input_ids.shape[1]]
        return self.out(x if attention_mask is None else x * attention_mask.unsqueeze(-1))


def test_a_table_cut_to_a_length_that_varies():
    # The exported program guards the length as min(64, s): no batch may be run through those guards.
    inputs = {"input_ids": torch.randint(0, 30, (64, 20)), "attention_mask": torch.ones(64, 20, dtype=torch.long)}
    quantized = attar.quantize(Padded(), inputs, bits=8, dynamic=(0, 1))
    assert [not isinstance(length, int) for length in quantized.compressed.main.traced.inputs[0].shape] == [True, True]
