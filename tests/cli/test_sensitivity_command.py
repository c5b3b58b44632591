"""``attar sensitivity`` as people call it."""

import csv
import json
from pathlib import Path
from typing import get_type_hints

import pytest
import safetensors.torch
import torch

from attar._src.cli import main
from attar._src.cli.quantize import quantize_command
from attar._src.cli.sensitivity import sensitivity_command
from attar._src.core.registry import load_object
from attar._src.methods.quantize.ptq.registry import SOLVERS

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.torch.save_file(load_object(f"{DIGITS}:DigitNet")(width=8).state_dict(), path)
    return path


def run(*options):
    given = [f"{DIGITS}:DigitNet", "--arg", "width=8", "--data", "digits", "--examples", 64, *options]
    return main(["sensitivity", *map(str, given)])


def test_the_folder_and_the_table(weights, tmp_path, capsys):
    assert run("--levels", "2,8", "-w", weights, "-o", tmp_path / "s") == 0
    out = capsys.readouterr().out
    assert "convs.0.weight" in out
    assert "sensitivity.html" in out
    table = json.loads((tmp_path / "s" / "sensitivity.json").read_text())
    rows = list(csv.DictReader((tmp_path / "s" / "sensitivity.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(table["layers"])
    assert rows[0]["layer"] == table["layers"][0]["name"]
    page = (tmp_path / "s" / "sensitivity.html").read_text()
    assert "convs.0.weight" in page
    assert "http-equiv" in page
    assert "What each layer needs" in page
    assert "--sensitivity FOLDER" in page
    assert run("--levels", "2,8", "-w", weights, "-o", tmp_path / "s", "--json") == 0
    assert json.loads(capsys.readouterr().out) == table


def test_rates_are_levels_of_their_own(weights, tmp_path, capsys):
    """Guards the table that ``attar quantize --sensitivity`` reads: each level at each rate, and its bytes."""
    options = ("--levels", "2,4", "--rates", "0,0.1", "--scales", "gptq", "-w", weights, "-o", tmp_path)
    assert run(*options) == 0
    assert "4 at 0.1" in capsys.readouterr().out
    table = json.loads((tmp_path / "sensitivity.json").read_text())
    assert table["rates"] == [0.0, 0.1]
    layer = max(table["layers"], key=lambda each: each["before"])
    sizes = {(each["level"], each["rate"]): each["bytes"] for each in layer["levels"]}
    assert sizes[4, 0.1] < sizes[4, 0.0]
    assert "At the rate 0; other rates are in the table." in (tmp_path / "sensitivity.html").read_text()
    assert run(*options[:3], "nought", *options[4:]) == 2
    assert "--rates" in capsys.readouterr().err


def test_levels_that_cannot_be_read(tmp_path, capsys):
    assert run("--levels", "two", "-o", tmp_path) == 2
    assert "write numbers" in capsys.readouterr().err
    assert run("--levels", "9", "-o", tmp_path) == 1
    assert "from 2 to 8" in capsys.readouterr().err


@pytest.mark.parametrize("command", [quantize_command, sensitivity_command])
def test_the_help_names_every_solver(command):
    """Guards the help, which is written by hand, since the registry imports PyTorch."""
    said = get_type_hints(command, include_extras=True)["scales"].__metadata__[0].help
    assert [name for name in SOLVERS if name not in said] == []
