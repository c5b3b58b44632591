"""What PyTorch logs while an export fails does not come before Attar's own sentence."""

import logging

import pytest
import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.model.capture import capture


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5)])
def test_a_failed_capture_logs_nothing(caplog, shape):
    with caplog.at_level(logging.INFO), pytest.raises(ModelError, match="Linear cannot be traced"):
        capture(nn.Linear(3, 3), (torch.zeros(shape),))
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
