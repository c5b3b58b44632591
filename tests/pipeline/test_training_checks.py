"""Signs of a failed training: in the curves of its stages, and in the test of its file."""

import math

import pytest

from attar._src.measure.chance import share_of
from attar._src.measure.metric import Scored
from attar._src.pipeline.training_checks import failed_trainings
from attar._src.recipe.parts import ModelSpec

TRAIN = {"stage": "train", "epochs": 3}
CHANCE = share_of("class 7", 0.1, 900)
GOOD = Scored(0.95, 900, {}, CHANCE)


def signs(losses, *, stages=(TRAIN,), tested=GOOD, weights=None, accuracies=None):
    """The warnings of a model whose stages had ``losses``, a list for each stage."""
    accuracies = accuracies or [[None] * len(each) for each in losses]
    rows = [
        {"index": index, "epoch": epoch + 1, "loss": loss, "validation_accuracy": accuracies[index][epoch]}
        for index, stage in enumerate(losses)
        for epoch, loss in enumerate(stage)
    ]
    model = ModelSpec(source={"factory": "net.py:build", "weights": weights}, stages=stages)
    return failed_trainings(model, "accuracy", rows, tested)


def test_a_training_that_succeeds_has_no_sign():
    assert signs([[2.3, 1.0, 0.4]]) == []
    assert signs([[2.3]]) == []
    assert signs([], stages=()) == []


@pytest.mark.parametrize("share", [0.0975, 0.1, 0.12])
def test_a_model_no_better_than_one_answer_is_at_chance(share):
    (found,) = signs([[2.3, 1.0, 0.4]], tested=Scored(share, 900, {}, CHANCE))
    assert f"test accuracy of {share:.4g} is no better than chance: class 7 for every example reaches 0.1" in found
    assert "lower optimizer.lr" in found


def test_a_metric_that_is_no_number_is_said():
    (found,) = signs([[2.3, 1.0]], tested=Scored(math.nan, 900, {}, CHANCE))
    assert "its test accuracy is nan" in found


def test_a_metric_without_a_constant_answer_says_nothing():
    assert signs([[2.3, 1.0]], tested=Scored(0.0, 900, {})) == []


@pytest.mark.parametrize("losses", [[2.303, 2.301, 2.299], [2.303, 2.31, 2.302]])
def test_a_loss_that_hardly_falls_is_a_sign_unless_the_model_was_trained_before(losses):
    (found,) = signs([losses])
    assert found.startswith(f"stages.0 (train): the loss hardly fell, from 2.303 in epoch 1 to {losses[-1]} in epoch 3")
    assert signs([losses], weights="net.safetensors") == []
    assert signs([[2.3, 0.5, 0.1], losses], stages=(TRAIN, TRAIN)) == []


def test_a_loss_that_rises_is_a_sign_also_for_a_trained_model():
    for more in ({}, {"weights": "net.safetensors"}):
        (found,) = signs([[0.2, 0.5, 0.7]], **more)
        assert "the loss rose from 0.2 in epoch 1 to 0.7 in epoch 3" in found


@pytest.mark.parametrize(
    "stage",
    [
        {"stage": "prune", "sparsity": 0.5, "epochs": 3},
        {"stage": "compress", "teacher": "t", "size": 2.0, "epochs": 3},
        {"stage": "distill", "teacher": "t", "alpha": {"start": 0.1, "stop": 1.0}, "epochs": 3},
        {"stage": "distill", "teacher": "t", "temperature": {"start": 8, "stop": 1}, "epochs": 3},
    ],
)
def test_a_loss_that_changes_its_meaning_tells_nothing(stage):
    assert signs([[0.2, 0.5, 0.7]], stages=(stage,)) == []


def test_a_stage_that_ruins_what_the_one_before_reached_is_a_sign():
    stages = TRAIN, {"stage": "prune", "sparsity": 0.99, "epochs": 2}
    (found,) = signs([[2, 1, 0.3], [0.4, 1.9]], stages=stages, accuracies=[[0.5, 0.8, 0.96], [0.9, 0.6]])
    assert found.startswith("stages.1 (prune): validation accuracy fell from 0.96 after stages.0 to 0.6")
    assert signs([[2, 1, 0.3], [0.4, 0.4]], stages=stages, accuracies=[[0.5, 0.8, 0.96], [0.9, 0.9]]) == []
