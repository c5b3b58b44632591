"""The committed files of the studies are what their pages say, on the real test images."""

import json
import os
from pathlib import Path

import pytest
from tests.flows.right_predictions import check

import attar
from attar._src.artifact.inspect import inspect_artifact

STUDY = Path(__file__).parents[2] / "studies" / "resnet20"
#: File -> smallest accuracy and largest size.
DEMANDS = {"w8a8": (0.916, 255_000), "w4": (0.904, 130_000), "w4a8": (0.902, 135_000)}


@pytest.fixture(scope="module")
def results():
    return json.loads((STUDY / "results.json").read_text())


@pytest.mark.parametrize("name", DEMANDS)
def test_the_results_are_of_the_committed_file(name, results):
    artifact = attar.open_artifact(STUDY / f"{name}.attar")
    artifact.verify()
    entry, (accuracy, size) = results["files"][name], DEMANDS[name]
    assert artifact.sha256 == entry["sha256"]
    assert inspect_artifact(artifact)["file_bytes"] == entry["file_bytes"] <= size
    assert entry["examples"] == 10_000
    assert entry["accuracy"] >= accuracy
    assert entry["parity"]["equal_predictions"] >= 0.998
    assert artifact.sha256 in json.loads((STUDY / "report.json").read_text())


def test_integers_are_no_slower_than_the_peers(results):
    for run in results["latency"]:
        if run["threads"] == 1:
            assert run["models"]["w8a8.attar"]["ratio"] <= 1.05


@pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: no CIFAR-10 to judge by")
@pytest.mark.parametrize("name", DEMANDS)
def test_the_file_has_the_accuracy_that_is_stated(name, results):
    right = check(STUDY / f"{name}.attar", examples=1000)
    assert right.mean() == pytest.approx(results["files"][name]["accuracy"], abs=1e-6)
    assert right.mean() >= DEMANDS[name][0]
    assert len(attar.Session(STUDY / f"{name}.attar").integer_layers()) == (0 if name == "w4" else 20)
