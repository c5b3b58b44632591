import torch
from torch import nn

from attar._src.deploy.dry_run import dry_run
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo


class Auxiliary(nn.Module):
    """Returns another number of outputs in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return (y, y.square()) if self.training else y


def test_a_module_with_more_outputs_in_training_is_captured_in_evaluation_mode():
    inputs = CalibrationInputs(((torch.randn(8, 4),),), ("x",))
    found = dry_run(Auxiliary(), FileInfo(), inputs, dynamic=[0])
    assert found.mode == "eval"
    assert len(found.traced.outputs) == 1
