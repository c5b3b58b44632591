import torch
from torch import nn

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
