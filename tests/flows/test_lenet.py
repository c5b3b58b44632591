"""The LeNet study's committed files are what its page says, on the real test images."""

import json
import os
from pathlib import Path

import pytest

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import evaluate_accuracy

STUDY = Path(__file__).parents[2] / "studies" / "lenet"
#: File -> largest error in per cent and largest size.
DEMANDS = {"lenet5": (0.80, 20_000), "lenet_300_100": (1.60, 20_000)}


@pytest.fixture(scope="module")
def results():
    return json.loads((STUDY / "results.json").read_text())


@pytest.mark.parametrize("name", DEMANDS)
def test_the_results_are_of_the_committed_file(name, results):
    artifact = attar.open_artifact(STUDY / f"{name}.attar")
    artifact.verify()
    entry, (error, size) = results[name], DEMANDS[name]
    assert artifact.sha256 == entry["sha256"]
    assert inspect_artifact(artifact)["file_bytes"] == entry["file_bytes"] <= size
    assert entry["examples"] == 10_000
    assert entry["error_percent"] <= error
    stages = [stage["stage"] for stage in artifact.manifest.recipe["stages"]]
    assert stages == ["distill", "finetune"]


@pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: no MNIST to judge by")
@pytest.mark.parametrize("name", DEMANDS)
def test_the_file_has_the_error_that_is_stated(name, results):
    test = load_dataset("mnist", "test")
    found = evaluate_accuracy(attar.Session(STUDY / f"{name}.attar"), test.x, test.y)
    assert 100 * (1 - found.accuracy) <= DEMANDS[name][0]
    # Another processor may tip a few predictions.
    assert abs(100 * (1 - found.accuracy) - results[name]["error_percent"]) < 0.1
