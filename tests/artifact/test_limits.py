"""Limits are the caller's to raise, under one name wherever a file is made or opened."""

import pytest
import torch
from tests.samples import conv_net

import attar
from attar import ArtifactError, Limits, ModelError
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.cli import main

LOW = Limits(elements=100)


def test_raising_one_limit_raises_those_in_proportion():
    raised = Limits().for_elements(2**30)
    assert (raised.elements, raised.value_elements, raised.graph_elements) == (2**30, 2**30, 2**32)
    assert raised.file_bytes == 4 * Limits().file_bytes
    assert raised.manifest_bytes == Limits().manifest_bytes
    assert Limits().for_elements(10) == Limits()
    assert Limits(elements=2**40).for_elements(2**30).elements == 2**40


def test_a_file_of_more_elements():
    data = pack(conv_net())
    with pytest.raises(ArtifactError, match=r"elements: \d+ is more than the limit of 100; raise it in Limits"):
        open_artifact(data, limits=LOW)
    with pytest.raises(ArtifactError, match="raise it in Limits"):
        attar.Session(data, limits=LOW)
    with pytest.raises(ArtifactError, match="raise it in Limits"):
        attar.Session(data, limits=LOW, isolated=True)
    attar.Session(data, limits=LOW.for_elements(2**20), isolated=True).close()


def test_making_one(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    x = torch.randn(16, 16)
    with pytest.raises(ModelError, match="raise it in Limits"):
        attar.quantize(net, x, limits=LOW)
    quantized = attar.quantize(net, x, limits=LOW.for_elements(1000))
    quantized.save(tmp_path / "m.attar")
    with pytest.raises(ArtifactError, match="raise it in Limits"):
        quantized.save(tmp_path / "n.attar", limits=LOW)
    assert not (tmp_path / "n.attar").exists()
    with pytest.raises(ArtifactError, match="raise it in Limits"):
        attar.load(tmp_path / "m.attar", into=net, limits=LOW)


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "m.attar").write_bytes(pack(conv_net()))
    for command in ("verify", "inspect"):
        assert main([command, str(tmp_path / "m.attar"), "--max-elements", str(2**29)]) == 0
    assert "sound" in capsys.readouterr().out
