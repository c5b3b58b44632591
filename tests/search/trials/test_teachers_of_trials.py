"""Trials of a student: its teacher is trained once, trainings go up rungs, and other models are left out."""

import hashlib
import json

import pytest
from tests.search.trials.small import NETS

import attar
from attar._src.search.trials.halving import Halving, goes_on, with_epochs

TREE = {
    "data": {"source": "nets.py:sets", "validation": 0.25},
    "threads": 1,
    "models": {
        "teacher": {
            "source": {"factory": "nets.py:net", "arguments": {"width": 24}},
            "stages": [{"stage": "train", "epochs": 4, "batch": 32, "optimizer": {"name": "adam", "lr": 0.02}}],
        },
        "apart": {"source": "nets.py:net"},
        "student": {
            "source": {"factory": "nets.py:net", "arguments": {"width": {"choose": [2, 6]}}},
            "stages": [
                {
                    "stage": "distill",
                    "teacher": "teacher",
                    "epochs": 4,
                    "batch": 32,
                    "optimizer": {"name": "adam", "lr": {"between": [1.0e-5, 0.05], "log": True}},
                },
                {"stage": "quantize", "bits": 8},
            ],
        },
    },
    "search": {
        "max_drop": 10,
        "minimise": "bytes",
        "sampler": "random",
        "trials": 4,
        "halving": {"rungs": 2, "factor": 2},
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    (folder / "nets.py").write_text(NETS)
    return attar.run_search(TREE | {"root": str(folder)}, folder / "out")


def epochs(folder, model):
    rows = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return [row["epoch"] for row in rows if row["event"] == "epoch" and row["model"] == model]


def test_a_teacher_without_holes_is_trained_once_and_is_the_reference(found):
    assert found.files[0].name == "teacher, the baseline"
    teacher = (found.folder / "reference" / "teacher.attar").read_bytes()
    for trial in sorted((found.folder / "trials").glob("*-rung-*")):
        assert (trial / "teacher.attar").read_bytes() == teacher
        # Taken over with its checkpoints: it was not trained in the second that a student takes.
        assert json.loads((trial / "run.json").read_text())["recipe"]["models"].keys() == {"teacher", "student"}


def test_few_trials_have_all_epochs(found):
    half = [epochs(each, "student") for each in (found.folder / "trials").glob("*-rung-0")]
    whole = [epochs(each, "student") for each in (found.folder / "trials").glob("*-rung-1")]
    assert [len(each) for each in half] == [2] * 4
    assert 0 < len(whole) < 4
    assert all(len(each) == 4 for each in whole)


def test_a_trial_goes_up_no_rung_that_would_not_end_in_time(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    tree = TREE | {"root": str(tmp_path), "search": TREE["search"] | {"minutes": 1e-4}}
    found = attar.run_search(tree, tmp_path / "out")
    assert found.ended == "the time was up"
    assert [path.name for path in (tmp_path / "out" / "trials").glob("*-rung-*")] == ["0000-rung-0"]


def test_the_recipe_of_a_student_makes_it_again_with_its_teacher(found, tmp_path):
    name, recipe = next((name, each) for name, each in found.recipes.items())
    again = attar.run(found.folder / recipe, tmp_path / "again")
    wanted = next(each for each in found.files if each.name == name)
    assert hashlib.sha256(again.files["student"].read_bytes()).hexdigest() == wanted.sha256


def test_the_best_of_a_rung_go_on():
    halving = Halving(rungs=3, factor=3)
    assert [str(each) for each in halving.shares] == ["1/9", "1/3", "1"]
    others = [[float(score)] for score in range(1, 9)]
    assert [goes_on(halving, others, [score]) for score in (0.5, 2.5, 3.5, 9.0)] == [True, True, False, False]
    # From the last rung none goes on.
    assert not goes_on(halving, [], [0.1, 0.1, 0.1])


def test_epochs_are_scaled_wherever_they_stand():
    tree = {"models": {"a": {"stages": [{"epochs": 20}, {"epochs": 1}, {"stage": "quantize", "bits": 4}]}}}
    share = Halving(rungs=2, factor=3).shares[0]
    assert with_epochs(tree, share)["models"]["a"]["stages"] == [
        {"epochs": 7},
        {"epochs": 1},
        {"stage": "quantize", "bits": 4},
    ]
