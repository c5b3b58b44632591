import pytest
import torch
from pydantic import ValidationError

from attar._src.core.spec import Spec
from attar._src.train.optimizer import AdamW, Sgd
from attar._src.train.plan import TrainingPlan

STEPS = 50


def factors(**fields):
    plan = TrainingPlan(epochs=1, **fields)
    return [plan.factor(step, STEPS) for step in range(STEPS)]


def test_one_cycle_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # Torch's rise ends at pct_start * steps - 1, ours at a whole step.
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=STEPS + 1, pct_start=(15 + 1) / (STEPS + 1), cycle_momentum=False
    )
    found = []
    for _ in range(STEPS):
        found.append(torchs.get_last_lr()[0])
        optimizer.step()
        torchs.step()
    assert factors() == pytest.approx(found, rel=1e-9)
    assert factors()[15] == 1


def test_values_by_hand():
    assert factors(schedule="constant") == [1.0] * STEPS
    assert factors(schedule="linear")[:2] == [1, 0.98]
    assert factors(schedule="linear")[-1] == pytest.approx(0.02)
    assert factors(schedule="cosine")[25] == pytest.approx(0.5)
    assert factors(schedule="constant", warmup=0.1)[:6] == [0.2, 0.4, 0.6, 0.8, 1, 1]
    assert factors(schedule="linear", warmup=0.2)[10:12] == [1, 0.975]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [None, 0.0, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_factors_are_within_their_range(schedule, warmup, steps):
    plan = TrainingPlan(epochs=1, schedule=schedule, warmup=warmup)
    assert all(0 < plan.factor(step, steps) <= 1 for step in range(steps))


def test_a_stage_has_the_fields_as_its_own():
    class Stage(Spec):
        stage: str

    class Training(Stage, TrainingPlan):
        epochs: int = 3

    given = {"stage": "x", "optimizer": {"name": "adamw", "lr": 0.01, "betas": [0.8, 0.9]}, "clip": 1}
    made = Training.model_validate(given)
    assert made.optimizer == AdamW(lr=0.01, betas=(0.8, 0.9))
    assert Training.model_validate(made.model_dump(mode="json")) == made
    assert Training(stage="x").optimizer == Sgd()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"clip": 0.0}, {"warmup": 1.0}, {"schedule": "step"}])
def test_what_cannot_work_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainingPlan.model_validate({"epochs": 1, **wrong})
