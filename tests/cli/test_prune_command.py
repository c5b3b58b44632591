"""``attar prune``: what it says while it runs, and how to go on. The fault guarded is a command that is silent."""

import json
from pathlib import Path

import pytest

from attar._src.cli import main
from attar._src.recipe.recipe import as_recipe

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"
GIVEN = [f"{DIGITS}:DigitNet", "--arg", "width=8", "-d", "digits", "--examples", "64"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    return tmp_path_factory.mktemp("pruned") / "half.safetensors"


def test_it_says_what_runs_and_how_to_train_further(pruned, capsys, monkeypatch):
    tracked = []
    monkeypatch.setattr(
        "attar._src.deploy.pruning.prune.track", lambda items, what: tracked.append((len(items), what)) or items
    )
    assert main(["prune", *GIVEN, "--macs", "0.4", "--score", "taylor", "-o", str(pruned)]) == 0
    out, err = capsys.readouterr()
    said = [line.strip() for line in err.splitlines()]
    assert said[0].startswith("reading examples; running and exporting the module")
    scored = "scoring channels and what goes with them by taylor, on 64 examples where it reads any"
    assert said[1] == f"{scored}; the weights that remain make up for them, layer after layer"
    assert said[-1].startswith("running the module as it was and as it is")
    assert tracked == [(1, "gradients of the examples")]
    (text,) = (line for line in out.splitlines() if line.strip().startswith("recipe.yaml: "))
    assert "attar run recipe.yaml" in out
    recipe = as_recipe(json.loads(text.partition(": ")[2]))
    source = recipe.models["pruned"].source
    assert (source.weights, source.arguments) == (str(pruned), {"width": 8})
    assert [stage.stage for stage in recipe.models["pruned"].stages] == ["train"]


def test_of_a_file_that_cannot_be_trained_it_says_which_can(pruned, capsys):
    assert main(["prune", *GIVEN, "--channels", "0.4", "-o", str(pruned.with_suffix(".attar"))]) == 0
    out = capsys.readouterr().out
    assert "Train it further:" in out
    assert "-o pruned.safetensors" in out
