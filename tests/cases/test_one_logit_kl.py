"""Distillation of outputs that mean yes or no: the softmax of one number is 1, that of several labels compares them."""

import pytest
import torch
from tests.cases.training import loaders, trained
from torch import nn

from attar import AttarError

ADAM = {"name": "adam", "lr": 0.02}
EPOCHS = {"epochs": 15, "optimizer": ADAM}


def mlp(hidden, outputs):
    return nn.Sequential(nn.Linear(12, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def recipe(outputs, targets, *more, **stage):
    """A teacher and a student ``s``; ``more`` are stages of further students of the same teacher."""
    torch.manual_seed(0)
    x = torch.randn(400, 12)
    y = targets(x @ torch.randn(12, outputs))
    teacher = {"stage": "train", "loss": "binary_cross_entropy", **EPOCHS}
    student = {"stage": "distill", "teacher": "t", **EPOCHS, **stage}
    models = {
        "t": {"source": mlp(64, outputs), "stages": [teacher]},
        "s": {"source": mlp(16, outputs), "stages": [student]},
    }
    others = [{"stage": "distill", "teacher": "t", **EPOCHS, **each} for each in more]
    models |= {f"s{i}": {"source": mlp(16, outputs), "stages": [each]} for i, each in enumerate(others)}
    return {"data": loaders(x, y), "models": models, "metric": "binary_accuracy" if outputs == 1 else "f1"}


def yes(scores):
    return (scores > 0).float()


@pytest.mark.parametrize(
    ("outputs", "targets", "stages"),
    [
        (1, yes, [{"beta": 0}]),
        (5, yes, [{"beta": 0}, {}]),
        (1, lambda scores: (scores[:, 0] > 0).long(), [{}]),
        (5, lambda scores: (scores > 0).long(), [{"loss": "binary_kl", "temperature": 2}]),
    ],
)
def test_a_student_of_sigmoid_outputs_comes_near_its_teacher(tmp_path, outputs, targets, stages):
    first, *more = stages
    _, found = trained(tmp_path / "run", **recipe(outputs, targets, *more, **first))
    teacher = found.pop("t")
    assert teacher > 0.9
    assert len(found) == len(stages)
    assert min(found.values()) > teacher - 0.05, found


@pytest.mark.parametrize("loss", ["kl", "reverse_kl", "soft_cross_entropy", "dist", "dkd"])
def test_a_softmax_of_one_output_is_refused_before_training(tmp_path, loss):
    given = recipe(1, lambda scores: (scores[:, 0] > 0).long())
    given["models"]["s"]["stages"] = [{"stage": "finetune", "objective": {"name": loss, "teacher": "t"}, **EPOCHS}]
    with pytest.raises(AttarError, match=r"models.s.stages.0: loss .*: outputs|one class.*binary_kl"):
        trained(tmp_path / "run", **given)


@pytest.mark.parametrize(
    ("targets", "metric", "message"),
    [
        (
            lambda scores: torch.nn.functional.one_hot(scores.argmax(1), 5).float(),
            "f1",
            "sum to 1 may be one class each",
        ),
        (lambda scores: scores, "mean_squared_error", "neither classes nor yes and no.*mse_logits"),
    ],
)
def test_labels_that_may_mean_something_else_are_refused_before_training(tmp_path, targets, metric, message):
    given = recipe(5, targets, beta=0) | {"metric": metric}
    given["models"]["t"]["stages"] = []
    with pytest.raises(AttarError, match=message):
        trained(tmp_path / "run", **given)
    assert not (tmp_path / "run" / "s.attar").exists()


def test_accuracy_of_one_output_is_refused_with_the_metric_to_write(tmp_path):
    given = recipe(1, lambda scores: (scores[:, 0] > 0).long()) | {"metric": "accuracy"}
    with pytest.raises(
        AttarError, match=r"recipe.metric: accuracy .* one class is always the largest.*binary_accuracy"
    ):
        trained(tmp_path / "run", **given)
