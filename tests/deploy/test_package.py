import json

import pytest
import torch
from torch import nn

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import AttarWarning, SpecError
from attar._src.deploy.package import package
from attar._src.deploy.parity import compare_outputs
from attar._src.model.trace import trace
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.size_budget import SizeBudget


@pytest.fixture
def piece():
    return CompressedModel.of(trace(nn.Linear(12, 5), (torch.randn(2, 12),)))


def shipped(piece, path, budget):
    data = CalibrationInputs(((torch.randn(8, 12),),))
    dry = compare_outputs(
        Session(pack(piece.contents(FileInfo()))), piece.simulate(torch.float64), data.batches, "comparing"
    )
    return package(piece, path, FileInfo(), data, coder="rans", dry_run=dry, budget=budget)


def test_a_file_above_its_budget_is_written_and_told_of(piece, tmp_path):
    path = tmp_path / "net.attar"
    with pytest.warns(AttarWarning, match=r"net.attar: [\d.]+ bits per weight, above the budget of 3"):
        report = shipped(piece, path, SizeBudget(3.0))
    assert "above the budget of 3" in report["warnings"][0]
    assert inspect_artifact(open_artifact(path))["bits_per_weight"] > 3
    assert "above the budget of 3" in json.dumps(json.loads((tmp_path / "report.json").read_text()))


def test_bytes_are_a_budget_of_the_whole_file(piece, tmp_path):
    with pytest.warns(AttarWarning, match=r"\d+ bytes, above the budget of 100 bytes"):
        shipped(piece, tmp_path / "net.attar", SizeBudget(max_bytes=100))


@pytest.mark.parametrize("budget", [None, SizeBudget(1000.0), SizeBudget(max_bytes=10**6)])
def test_a_file_within_its_budget_is_not(piece, tmp_path, budget):
    assert shipped(piece, tmp_path / "net.attar", budget)["warnings"] == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    net = torch.nn.Linear(4, 2)
    with pytest.raises(SpecError, match=r"there is no folder .*nope; make it first"):
        attar.quantize(net, torch.randn(8, 4)).save(tmp_path / "nope" / "m.attar")
