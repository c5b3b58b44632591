"""The study of Polino et al. 2018: its files are what its page says, and its methods work on a few real images."""

import json
import os
from pathlib import Path

import pytest

import attar
from attar.artifact.inspect import describe
from attar.core.registry import load_object
from attar.data import load
from attar.measure.accuracy import evaluate
from attar.recipe.recipe import read
from attar.recipe.run import run

STUDY = Path(__file__).parents[2] / "studies" / "polino2018"
FILES = sorted(path.stem for path in (STUDY / "files").glob("*.attar"))
BUDGETS = {"4bit": 3.8, "2bit": 2.0, "1bit": 1.0}
needs_data = pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: no CIFAR-10 to judge by")


@pytest.fixture(scope="module")
def results():
    return json.loads((STUDY / "results.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_the_results_are_of_the_committed_file(name, results):
    artifact = attar.open_artifact(STUDY / "files" / f"{name}.attar")
    artifact.verify()
    entry, size = results["files"][name], describe(artifact)
    assert artifact.sha256 == entry["sha256"]
    assert size["file_bytes"] == entry["file_bytes"]
    assert entry["examples"] == 10_000
    assert size["bits_per_weight"] <= BUDGETS.get(name.partition("-")[2], 32)


def test_the_pages_and_figures_are_those_of_the_results(results, tmp_path):
    tables = load_object(f"{STUDY / 'tables.py'}:TABLES")
    marks = [f"<!-- table: {name} -->" for name in tables]
    for page, wanted in ((STUDY, marks), (STUDY.parent.parent, ["<!-- table: studies/polino2018 -->"])):
        text = (page / "README.md").read_text()
        assert all(mark in text for mark in wanted)
        again = tmp_path / "README.md"
        again.write_text(text)
        load_object(f"{STUDY / 'tables.py'}:fill")(results, again)
        assert again.read_text() == text, f"{page / 'README.md'}: run measure.py --draw"
    (tmp_path / "figures").mkdir()
    load_object(f"{STUDY / 'tables.py'}:draw")(results, tmp_path / "figures")
    made = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert len(made) > 5
    for name, found in made.items():
        assert found == (STUDY / name).read_bytes(), f"{name}: run measure.py --draw"


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_the_file_has_the_accuracy_that_is_stated(name, results):
    entry, test = results["files"][name], load("cifar10", "test")
    first = entry["first"]["examples"]
    assert first == 2000
    found = evaluate(attar.Session(STUDY / "files" / f"{name}.attar"), test.x[:first], test.y[:first])
    # Two images may fall otherwise on another processor.
    assert abs(100 * found.accuracy - entry["first"]["accuracy_percent"]) <= 0.1
    # The standard error of a fifth of the images is 0.9 points at most.
    assert abs(entry["first"]["accuracy_percent"] - entry["accuracy_percent"]) < 3


@pytest.mark.parametrize("recipe", sorted(path.name for path in STUDY.glob("*.yaml")))
def test_the_recipes_are_recipes(recipe):
    models = read(STUDY / recipe).models
    assert all((STUDY / str(each.source.factory).partition(":")[0]).is_file() for each in models.values())


@needs_data
@pytest.mark.timeout(900)
def test_the_study_in_small(tmp_path):
    done = run(read(STUDY / "small.yaml"), tmp_path / "small")
    models = {model["name"]: model for model in done.report["models"]}
    assert set(models) == {"teacher", "fp", "pm", "qd", "dq", "budget"}
    accuracy = {name: model["metric_mean"] for name, model in models.items()}
    assert all(accuracy[name] > 0.13 for name in ("fp", "qd", "dq", "budget")), accuracy
    sizes = {name: describe(attar.open_artifact(tmp_path / "small" / f"{name}.attar")) for name in models}
    assert sizes["budget"]["bits_per_weight"] <= 1.0
    for name in ("pm", "qd", "dq"):
        kinds = {
            each["kind"]
            for each in sizes[name]["tensors"]
            if each["name"].endswith("weight") and len(each["shape"]) > 1
        }
        assert kinds == {"codebook"}
