"""The study of Polino et al. 2018: what is measured of a run, and what its tables make of several seeds."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.core.registry import load_object
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.pipeline.run import run
from attar._src.recipe.recipe import read_recipe

STUDY = Path(__file__).parents[2] / "studies" / "polino2018"
NETS = """
import numpy as np
from torch import nn


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def sets(split):
    n = {"train": 96, "test": 30}[split]
    rng = np.random.default_rng(len(split))
    y = rng.integers(0, 3, n)
    return (np.eye(3)[y].repeat(2, 1) + rng.normal(scale=0.6, size=(n, 6))).astype("float32"), y
"""
RECIPE = """
data: {source: nets.py:sets, validation: 0.25}
threads: 1
seeds: [3, 5]
models:
  teacher: {source: nets.py:net, stages: [{stage: train, epochs: 1, batch: 32}]}
  rounded: {source: {factory: nets.py:net, weights: begun.attar}, stages: [{stage: quantize, bits: 4}]}
  trained: {source: nets.py:net, stages: [{stage: distill, teacher: teacher, epochs: 2, batch: 32}]}
"""


@pytest.fixture(scope="module")
def study():
    """The study's own code."""
    names = {
        "measure": ("measured", "curves", "run_rows", "ordered"),
        "tables": ("TABLES", "fill"),
        "figures": ("draw",),
        "huffman_size": ("huffman_size",),
    }
    return SimpleNamespace(
        **{name: load_object(f"{STUDY / file}.py:{name}") for file, found in names.items() for name in found}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe, and a run of it."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "nets.py").write_text(NETS)
    (folder / "r.yaml").write_text(RECIPE)
    # What `rounded` begins with.
    (folder / "begin.yaml").write_text("{data: nets.py:sets, models: {begun: {source: nets.py:net}}}\n")
    run(folder / "begin.yaml", folder / "begin")
    shutil.copy(folder / "begin" / "begun.attar", folder / "begun.attar")
    run(folder / "r.yaml", folder / "made")
    return folder


@pytest.fixture(scope="module")
def test_split(place):
    x, y = load_object(f"{place / 'nets.py'}:sets")("test")
    return SimpleNamespace(x=x, y=y)


@pytest.fixture(scope="module")
def rows(place, test_split, study):
    return study.run_rows(place / "made", read_recipe(place / "r.yaml"), test_split, {})


def test_the_rows_of_a_run_are_those_of_its_files(place, test_split, rows, study):
    files = {"": place / "made", " seed 5": place / "made" / "seed-5"}
    assert set(rows) == {f"{model}{seed}" for model in ("rounded", "trained") for seed in files}
    for suffix, folder in files.items():
        for model in ("rounded", "trained"):
            artifact, row = attar.open_artifact(folder / f"{model}.attar"), rows[f"{model}{suffix}"]
            found, counted = (
                evaluate_accuracy(attar.Session(artifact), test_split.x, test_split.y),
                study.huffman_size(artifact),
            )
            assert row["accuracy_percent"] == row["first"]["accuracy_percent"] == round(100 * found.accuracy, 4)
            assert row["examples"] == row["first"]["examples"] == 30
            sizes = inspect_artifact(artifact)
            assert all(
                row[k] == sizes[k] for k in ("sha256", "file_bytes", "graph_bytes", "parameters", "bits_per_weight")
            )
            assert (row["paper_bytes"], row["paper_ratio"]) == (counted.bytes, counted.ratio)
            assert row["seed"] == (5 if suffix else 3)


def test_the_curves_are_those_of_the_journal(place, rows, study):
    lines = [json.loads(line) for line in (place / "made" / "journal.jsonl").read_text().splitlines()]
    for name, seed in (("trained", 3), ("trained seed 5", 5)):
        told = [e for e in lines if e["event"] == "epoch" and e["model"] == "trained" and e["seed"] == seed]
        curve = rows[name]["epochs"]
        assert [row["epoch"] for row in curve] == [1, 2]
        for key in ("loss", "validation_loss", "validation_accuracy", "seconds"):
            assert [row[key] for row in curve] == [row[key] for row in told]
        assert {row["stage"] for row in curve} == {0}
    assert rows["trained"]["epochs"] != rows["trained seed 5"]["epochs"]
    assert rows["rounded"]["epochs"] == []
    assert study.curves(place / "made", 3, "teacher")


def test_bytes_that_were_evaluated_are_not_evaluated_again(place, study):
    path = place / "made" / "trained.attar"
    before = {"accuracy_percent": 12.5, "examples": 7, "first": {"accuracy_percent": 0.0, "examples": 1}}
    found = study.measured(path, None, {attar.open_artifact(path).sha256: before})
    assert {key: found[key] for key in before} == before
    assert found["file_bytes"] == path.stat().st_size


def earlier(study, rows, recipe):
    return sorted(name for name, row in study.ordered(rows, recipe).items() if "earlier" in row)


def test_rows_come_in_the_order_of_the_recipe_and_with_its_seeds(place, rows, study):
    recipe = read_recipe(place / "r.yaml")
    assert list(study.ordered(dict(reversed(rows.items())), recipe)) == [
        *("rounded seed 5", "rounded", "trained seed 5", "trained"),
    ]
    assert list(study.ordered(rows, read_recipe(place / "r.yaml", ["seeds=[5]"]))) == [
        "rounded seed 5",
        "trained seed 5",
    ]
    assert list(study.ordered(rows, recipe.only("trained"))) == ["trained", "trained seed 5"]


def test_a_row_an_earlier_recipe_made_is_marked_until_it_is_made_anew(place, rows, study):
    both = ["trained", "trained seed 5"]
    assert earlier(study, rows, read_recipe(place / "r.yaml")) == []
    assert earlier(study, rows, read_recipe(place / "r.yaml", ["seeds=[3, 5, 7]", "precision=bf16-mixed"])) == []
    longer = read_recipe(place / "r.yaml", ["models.trained.stages.0.epochs=3"])
    assert earlier(study, rows, longer) == both
    assert earlier(study, study.ordered(rows, longer), read_recipe(place / "r.yaml")) == []
    assert earlier(study, rows, read_recipe(place / "r.yaml", ["models.trained.source=nets.py:other"])) == both
    assert earlier(study, {name: {"seed": row["seed"]} for name, row in rows.items()}, longer) == sorted(rows)


def test_a_run_whose_recipe_is_none_any_more_is_an_earlier_one(place, test_split, study, tmp_path):
    folder = tmp_path / "made"
    shutil.copytree(place / "made", folder)
    was = json.loads((folder / "run.json").read_text())
    was["recipe"]["models"]["trained"]["stages"][0]["gone"] = 1
    (folder / "run.json").write_text(json.dumps(was))
    recipe = read_recipe(place / "r.yaml")
    assert earlier(study, study.run_rows(folder, recipe, test_split, {}), recipe) == ["trained", "trained seed 5"]


def test_weights_to_begin_with_are_known_by_their_bytes(place, rows, study, tmp_path):
    shutil.copy(place / "nets.py", tmp_path / "nets.py")
    (tmp_path / "r.yaml").write_text(RECIPE.replace("begun.attar", "renamed.attar"))
    recipe = read_recipe(tmp_path / "r.yaml")
    assert earlier(study, rows, recipe) == []
    shutil.copy(place / "begun.attar", tmp_path / "renamed.attar")
    assert earlier(study, rows, recipe) == []
    shutil.copy(place / "made" / "trained.attar", tmp_path / "renamed.attar")
    assert earlier(study, rows, recipe) == ["rounded", "rounded seed 5"]


def entry(seed, accuracy, sha256, held=0.5, **more):
    return {
        "seed": seed,
        "accuracy_percent": accuracy,
        "sha256": sha256,
        "bits_per_weight": 2.0 + seed,
        "file_bytes": 1000 + seed,
        "paper_bytes": 500.0,
        "paper_ratio": 14.217,
        "epochs": [{"epoch": 1, "validation_accuracy": held}],
        **more,
    }


def results(**runs):
    return {"files": {}, "runs": {name.replace("_", "-"): rows for name, rows in runs.items()}}


def test_a_row_of_several_seeds_has_its_mean_and_its_standard_deviation(study):
    several = {
        "s3-qd-2 seed 2": entry(2, 72.0, "c"),
        "s3-qd-2": entry(0, 70.0, "a"),
        "s3-qd-2 seed 1": entry(1, 71.0, "b"),
        "s3-pm-2": entry(0, 10.0, "d"),
        "s3-pm-2 seed 1": entry(1, 10.0, "d"),
    }
    heads, *table = study.TABLES["paper"](results(s3_paper=several))
    assert heads == [
        *("", "test accuracy %", "standard deviation", "seeds", "published %", "bits per weight", "file, bytes"),
        *("paper's account, bytes", "ratio by the paper's account"),
    ]
    assert table[0] == ["s3-qd-2", "71.00", "1.00", "70.00, 71.00, 72.00", "67.02", "3.000", "1,001", "500", "14.22"]
    # Not trained: the seed changes nothing.
    assert table[1][:4] == ["s3-pm-2", "10.00", "", ""]


def test_a_table_with_one_seed_says_nothing_of_seeds(study):
    one = {"learned-steps": entry(0, 70.0, "a"), "rate": entry(0, 71.0, "b", earlier=True)}
    assert study.TABLES["parts"](results(s3_parts=one)) == [
        ["", "test accuracy %", "bits per weight", "file, bytes"],
        ["learned-steps", "70.00", "2.000", "1,000"],
        ["rate (earlier recipe)", "71.00", "2.000", "1,000"],
    ]
    assert study.TABLES["losses"](results(s3_losses={"kl": entry(0, 70.0, "a", held=0.625)}))[1] == [
        "kl",
        "70.00",
        "62.50",
    ]


def test_every_table_and_figure_is_made_of_nothing_of_a_part_and_of_several_seeds(study, tmp_path):
    rows = {
        "s3-qd-2": entry(0, 70.0, "a"),
        "s3-qd-2 seed 1": entry(1, 72.0, "b", held=0.75),
        "s3-qd-2 seed 2": entry(2, 71.0, "c") | {"epochs": 2 * entry(2, 71.0, "c")["epochs"]},
    }
    for name, found in {
        "nothing": {"files": {}, "runs": {}},
        "one": results(s3_paper={"s3-qd-2": rows["s3-qd-2"]}, s3_start={"s3-4bit": rows["s3-qd-2"]}),
        "several": results(s3_paper=rows, s3_parts=rows, s3={k.replace("qd-2", "2bit"): e for k, e in rows.items()}),
    }.items():
        assert all(make(found) for make in study.TABLES.values())
        (tmp_path / name).mkdir()
        study.draw(found, tmp_path / name)
        assert len(list((tmp_path / name).glob("*.svg"))) == 7
    text = {name: (tmp_path / name / "epochs.svg").read_text() for name in ("nothing", "one", "several")}
    assert [">start<" in text[name] for name in text] == [False, True, False]
    assert [">2 bits<" in text[name] for name in text] == [False, False, True]
    assert not np.array_equal(*((tmp_path / name / "bits.svg").read_bytes() for name in ("one", "several")))
