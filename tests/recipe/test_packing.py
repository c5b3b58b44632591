import json

import pytest
import torch
from torch import nn

from attar.artifact.inspect import describe
from attar.artifact.reader import open_artifact
from attar.artifact.writer import pack
from attar.model.trace import trace
from attar.recipe.packing import ship
from attar.recipe.parity import compare
from attar.runtime import Session
from attar.work.workpiece import Calibration, Use, Workpiece


@pytest.fixture
def piece():
    return Workpiece(trace(nn.Linear(12, 5), (torch.randn(2, 12),)))


def shipped(piece, path, budget):
    data = Calibration(((torch.randn(8, 12),),))
    dry = compare(Session(pack(piece.contents(Use()))), piece.simulate(torch.float64), data.batches, "comparing")
    return ship(piece, path, Use(), data, coder="rans", dry_run=dry, left={}, budget=budget)


def test_a_file_above_its_budget_is_written_and_told_of(piece, tmp_path):
    path = tmp_path / "net.attar"
    with pytest.warns(UserWarning, match=r"net.attar: [\d.]+ bits per weight, above the 3 that were asked for"):
        report = shipped(piece, path, 3.0)
    assert "above the 3 that were asked for" in report["left_in_floating_point"]["size"]
    assert describe(open_artifact(path))["bits_per_weight"] > 3
    assert "above the 3" in json.dumps(json.loads((tmp_path / "report.json").read_text()))


@pytest.mark.parametrize("budget", [None, 1000.0])
def test_a_file_within_its_budget_is_not(piece, tmp_path, budget):
    assert shipped(piece, tmp_path / "net.attar", budget)["left_in_floating_point"] == {}
