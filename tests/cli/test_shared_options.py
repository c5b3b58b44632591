"""Options that commands share: guards against one that a command lacks, or that means something else there."""

import inspect
import json
from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from attar._src.cli import load_command, main
from attar._src.cli.options.shared import ModuleOptions, with_options

COMMANDS = ("quantize", "sensitivity", "prune", "compress", "compare")


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_take_a_module_and_data_have_all_of_them(name):
    found = inspect.signature(load_command(name)).parameters
    assert [each.name for each in fields(ModuleOptions) if each.name not in found] == []
    assert {each.default for each in found.values()} - {inspect.Parameter.empty}
    for each in fields(ModuleOptions):
        if each.name != "examples":
            assert found[each.name].default in (each.default, inspect.Parameter.empty)


def test_a_command_gets_the_class_and_its_own_options():
    seen = []

    @dataclass(frozen=True)
    class More(ModuleOptions):
        examples: Annotated[int, typer.Option(min=2)] = 7

    @with_options(More)
    def command(of: More, output: Annotated[str, typer.Option("-o")], bits: int = 4) -> None:
        """Do it."""
        seen.append((of, output, bits))

    app = typer.Typer()
    app.command()(command)
    told = CliRunner().invoke(app, ["net.py:net", "-d", "digits", "-o", "x", "--metric", "f1", "--bits", "3"])
    assert told.exit_code == 0, told.output
    of, output, bits = seen[0]
    assert (of.model, of.data, of.metric, of.examples, output, bits) == ("net.py:net", "digits", "f1", 7, "x", 3)
    assert of.choice().metric == "f1"
    help_ = CliRunner().invoke(app, ["--help"]).output
    assert "Module and data" in help_
    assert "Do it." in help_
    assert CliRunner().invoke(app, ["net.py:net", "-d", "digits", "-o", "x", "--examples", "1"]).exit_code == 2


def test_a_metric_of_ones_own_judges(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "import numpy as np\n\n\ndef top2(outputs, targets):\n"
        "    best = np.argsort(outputs, -1)[:, -2:]\n    return float((best == targets[:, None]).any(-1).mean())\n\n\n"
        "top2.larger_is_better = True\n"
    )
    digits = "examples/digits.py:DigitNet"
    given = [
        "quantize",
        digits,
        "--arg",
        "width=4",
        "-d",
        "digits",
        "--examples",
        "64",
        "-o",
        str(tmp_path / "m.attar"),
    ]
    assert main([*given, "--metric", f"{tmp_path / 'own.py'}:top2", "--json", "--tolerance", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["fidelity"]["metric"]["name"] == "top2"
    assert main([*given, "--metric", f"{tmp_path / 'own.py'}:top3"]) == 1
    assert "top3" in capsys.readouterr().err
