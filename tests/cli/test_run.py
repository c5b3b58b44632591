"""``attar run``: what it prints, where it writes, what it refuses."""

import json

import pytest

from attar._src.cli import main

NETS = "import numpy as np\nfrom torch import nn\n\n\ndef net():\n    return nn.Linear(4, 2)\n\n\ndef sets(split):\n"
NETS += (
    "    x = np.random.default_rng(0).normal(size=(40, 4)).astype('float32')\n    return x, (x[:, 0] > 0).astype(int)\n"
)
NETS += """
from dataclasses import replace
from attar.extend import CompressedModel, Stage

def deep():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Doubt(Stage):
    works_on = CompressedModel

    def run(self, model, context):
        return replace(model, warnings=("the bits [of it] are few; give it more",))
"""
RECIPE = "data: nets.py:sets\nthreads: 1\nmodels: {net: {source: nets.py:net}}\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text(NETS)
    (tmp_path / "mine" / "small.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_is_run_into_a_folder_of_its_name(place, capsys):
    assert main(["run", "mine/small.yaml"]) == 0
    out = capsys.readouterr().out
    assert (place / "runs" / "small" / "net.attar").is_file()
    assert "net" in out
    assert "40 test examples" in out
    assert "runs/small/report.html" in out
    assert main(["run", "mine/small.yaml"]) == 1
    assert "already has a run; resume it (--resume)" in capsys.readouterr().err
    assert main(["run", "mine/small.yaml", "--resume", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "attar run mine/small.yaml --out runs/small"
    assert report["models"][0]["parameters"] == 10


def test_one_model_alone_ends_in_the_bytes_it_has_in_the_whole(place, capsys):
    stages = "[{stage: train, epochs: 1, batch: 10}]"
    models = f"models: {{one: {{source: nets.py:net}}, two: {{source: nets.py:net, stages: {stages}}}}}"
    (place / "mine" / "both.yaml").write_text(f"data: nets.py:sets\nthreads: 1\n{models}\n")
    assert main(["run", "mine/both.yaml"]) == 0
    assert main(["run", "mine/both.yaml", "--only", "two", "--out", "runs/two"]) == 0
    capsys.readouterr()
    assert [path.name for path in (place / "runs" / "two").glob("*.attar")] == ["two.attar"]
    whole, alone = (place / "runs" / name / "two.attar" for name in ("both", "two"))
    assert alone.read_bytes() == whole.read_bytes()
    assert main(["run", "mine/both.yaml", "--only", "two", "--out", "runs/two", "--resume", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "attar run mine/both.yaml --out runs/two --only two"
    assert main(["run", "mine/both.yaml", "--out", "runs/two", "--resume"]) == 1
    assert "models" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::attar.AttarWarning")
def test_a_pruned_model_is_compared_with_the_untouched_one(place, capsys):
    """Guards against a table that compares a pruned model with itself alone."""
    stages = "[{stage: prune_channels, channels: 0.5}]"
    (place / "mine" / "pruned.yaml").write_text(
        f"data: nets.py:sets\nthreads: 1\nmodels: {{one: {{source: nets.py:deep, stages: {stages}}}}}\n"
    )
    assert main(["run", "mine/pruned.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert main(["run", "mine/pruned.yaml", "--resume", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["models"]
    (before, after), macs = one["record"][0]["parameters"], one["record"][0]["macs"]
    smaller = f"{4 * before / one['file_bytes']:.1f} times smaller"
    assert (
        f"one: {after:,} of {before:,} parameters, {macs[1]:,} of {macs[0]:,} multiplications; the file is {smaller}"
        in said
    )


@pytest.mark.filterwarnings("default::attar.AttarWarning")
def test_warnings_are_counted_before_the_table_and_told_after_it(place, capsys):
    models = "models: {one: {source: nets.py:net}, two: {source: nets.py:net, stages: [{stage: nets.py:Doubt}]}}"
    (place / "mine" / "both.yaml").write_text(f"data: nets.py:sets\nthreads: 1\n{models}\n")
    assert main(["run", "mine/both.yaml"]) == 0
    streams = capsys.readouterr()
    # Once when the file is written, and again at the end.
    assert "warning: two.attar: " in streams.err
    # Neither was trained, which is a warning of each.
    assert streams.out.startswith("3 warnings on one and two, below the table\n")
    lines = streams.out.splitlines()
    assert lines[-2] == "warning: two: the bits [of it] are few; give it more"
    assert "report.html" in lines[-1]
    assert main(["run", "mine/both.yaml", "--resume", "--strict", "--json"]) == 1
    streams = capsys.readouterr()
    assert [len(model["warnings"]) for model in json.loads(streams.out)["models"]] == [1, 2]
    assert "--strict: 3 warnings" in streams.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.yaml"], "there is no recipe nothing.yaml"),
        (["mine/small.yaml", "--set", "model.net=1"], "no key named 'model'; did you mean 'models'?"),
        (
            ["mine/small.yaml", "--set", "models.net.stages=[{stage: train}]"],
            "stages.0.epochs: Field required",
        ),
        (["mine/small.yaml", "--set", "models.net.source=nest.py:net"], "there is no file"),
        (["mine/small.yaml", "--only", "nest"], "no model named 'nest'; did you mean 'net'?"),
        (["mine/small.yaml", "--out", "mine"], "mine is not empty and has no run"),
    ],
)
def test_what_cannot_work_ends_in_one_line(place, capsys, arguments, message):
    assert main(["run", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (place / "runs" / "small" / "state").exists()
