"""The study of Polino et al. 2018: its files are what its page says, and its methods work on a few real images."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.flows.right_predictions import WHOLE, check

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.core.registry import load_object
from attar._src.data.registry import load_dataset
from attar._src.pipeline.run import run
from attar._src.recipe.recipe import ModelSpec, read_recipe
from attar._src.recipe.yaml_text import parse_yaml

STUDY = Path(__file__).parents[2] / "studies" / "polino2018"
#: File -> test accuracy in per cent it shall have, and bits per weight it may have.
DEMANDS = {
    "s1-1bit": (88.3, 1.0),
    "s1-2bit": (90.0, 2.0),
    "s1-4bit": (91.0, 3.8),
    "s2-1bit": (83.5, 1.0),
    "s2-2bit": (86.0, 2.0),
    "s2-4bit": (87.0, 3.8),
    "s3-1bit": (75.0, 1.0),
    "s3-2bit": (79.0, 2.0),
    "s3-4bit": (81.0, 3.8),
}
#: Those whose accuracy is not there yet. One that gets there is to be taken out of these.
MISSED = {"s1-2bit", "s1-4bit"}
#: What others start from.
STARTS = ["s1-mix", "s1-start", "s2-fp", "s2-start", "s3-fp", "s3-start"]
FILES = sorted([*DEMANDS, *STARTS])
#: Rules as the files record them -> as they are called since.
RENAMED = {"narrow": "low_precision"}
needs_data = pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: no CIFAR-10 to judge by")


@pytest.fixture(scope="module")
def results():
    return json.loads((STUDY / "results.json").read_text())


def test_the_files_there_shall_be_are_there_and_no_others(results):
    assert sorted(path.stem for path in (STUDY / "files").glob("*.attar")) == FILES
    assert sorted(results["files"]) == FILES


@pytest.mark.parametrize("name", FILES)
def test_the_results_are_of_the_committed_file(name, results):
    artifact = attar.open_artifact(STUDY / "files" / f"{name}.attar")
    artifact.verify()
    entry, size = results["files"][name], inspect_artifact(artifact)
    assert entry["examples"] == 10_000
    found = {key: size[key] for key in ("sha256", "file_bytes", "graph_bytes", "parameters", "bits_per_weight")}
    assert found == {key: entry[key] for key in found}


@pytest.mark.parametrize("name", DEMANDS)
def test_what_is_demanded_is_there_or_known_to_be_missed(name, results):
    accuracy, bits = DEMANDS[name]
    assert inspect_artifact(attar.open_artifact(STUDY / "files" / f"{name}.attar"))["bits_per_weight"] <= bits
    found = results["files"][name]["accuracy_percent"]
    assert (found < accuracy) == (name in MISSED), f"{name} has {found} %, demanded are {accuracy} %"


@pytest.mark.parametrize("name", FILES)
def test_the_file_was_made_by_the_recipe_there_is(name):
    recipe = name if (STUDY / f"{name}.yaml").exists() else name.partition("-")[0]
    row = "s3-4bit" if name == "s3-start" else name
    model = read_recipe(STUDY / f"{recipe}.yaml").models[row]
    recorded = attar.open_artifact(STUDY / "files" / f"{name}.attar").manifest.recipe["stages"]
    # A stage that only rounds adds what it saw.
    stages = [{key: value for key, value in stage.items() if key != "calibration_examples"} for stage in recorded]
    for constraint in (each for stage in stages for each in stage.get("constraints", ())):
        constraint["name"] = RENAMED.get(constraint["name"], constraint["name"])
    assert ModelSpec(source=model.source, stages=stages).stages == model.stages


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
    load_object(f"{STUDY / 'figures.py'}:draw")(results, tmp_path / "figures")
    made = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert len(made) > 5
    for name, found in made.items():
        assert found == (STUDY / name).read_bytes(), f"{name}: run measure.py --draw"


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_the_file_has_the_accuracy_that_is_stated(name, results):
    examples = 500 if name.startswith("s1") else 1000
    entry, right = results["files"][name], check(STUDY / "files" / f"{name}.attar", examples)
    stated = entry if name in WHOLE else entry["first"]
    assert (len(right), stated["examples"]) == ((10_000, 10_000) if name in WHOLE else (2_000, 2_000))
    assert right.sum() == round(stated["accuracy_percent"] * len(right) / 100)


@pytest.mark.parametrize("recipe", sorted(path.name for path in STUDY.glob("*.yaml")))
def test_the_recipes_are_recipes(recipe):
    models = read_recipe(STUDY / recipe).models
    assert all((STUDY / str(each.source.factory).partition(":")[0]).is_file() for each in models.values())


def first_images(split):
    """The first 400 training or 250 test images of CIFAR-10."""
    return load_dataset("cifar10", split).take(np.arange(400 if split == "train" else 250))


def smaller():
    """``small.yaml`` on fewer images, taught by a file of ResNet-20; students but ``fp`` begin as ``s3-start``.

    Batches are smaller instead of steps fewer.
    """
    tree = parse_yaml(STUDY / "small.yaml")
    tree["root"] = str(STUDY)
    tree["data"] |= {"source": f"{__file__}:first_images", "calibration": 32}
    models = tree["models"]
    models["teacher"]["source"] = {"file": "../resnet20/w8a8.attar"}
    for name in ("pm", "qd", "dq", "budget", "parts"):
        first, *models[name]["stages"] = models[name]["stages"]
        assert first == models["fp"]["stages"][0]
        models[name]["source"]["weights"] = "files/s3-start.attar"
    models["fp"]["stages"][0]["batch"] = 20
    for name in ("qd", "dq", "parts"):
        models[name]["stages"][0]["batch"] = 40
    models["budget"]["stages"][0] |= {"size": 3.6, "epochs": 3, "batch": 5}
    models["parts"]["stages"][0]["epochs"] = 2
    return tree


@needs_data
def test_the_study_in_small(tmp_path):
    (tmp_path / "small.yaml").write_text(json.dumps(smaller()))
    done = run(read_recipe(tmp_path / "small.yaml"), tmp_path / "small")
    models = {model["name"]: model for model in done.report["models"]}
    assert set(models) == {"teacher", "fp", "pm", "qd", "dq", "budget", "parts"}
    accuracy = {name: model["metric_mean"] for name, model in models.items()}
    # The standard error of 250 images is 2 to 3 points; these had 0.92, 0.33, 0.55, and 0.75 to 0.81 when written.
    assert accuracy.pop("teacher") > 0.85
    assert accuracy.pop("fp") > 0.2, accuracy
    assert accuracy.pop("parts") > 0.4, accuracy
    assert min(accuracy.values()) > 0.65, accuracy
    # Going on through the grid is not to lose what rounding keeps.
    assert accuracy["qd"] > accuracy["pm"] - 0.05, accuracy
    sizes = {name: inspect_artifact(attar.open_artifact(tmp_path / "small" / f"{name}.attar")) for name in models}
    assert sizes["budget"]["bits_per_weight"] <= 3.6
    for name in ("pm", "qd", "dq", "parts"):
        kinds = {
            each["kind"]
            for each in sizes[name]["tensors"]
            if each["name"].endswith("weight") and len(each["shape"]) > 1
        }
        assert kinds == {"codebook"}
