"""The losses of presets follow from outputs and targets: those of classes, or those of yes and no."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tests.methods.toys import fresh

from attar._src.core.errors import SpecError
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.methods.loss_inputs import InputCollector, TeacherAnswers
from attar._src.methods.objectives.binary import BinaryCrossEntropy, BinaryKl
from attar._src.methods.objectives.by_outputs import HardLoss, SoftLoss
from attar._src.methods.objectives.cross_entropy import CrossEntropy
from attar._src.methods.objectives.kl import Kl
from attar._src.methods.stages import StageChoice
from attar._src.model.taps import LayerTaps
from attar._src.train.batch import Batch
from attar._src.work.objective import LossInputs

STAGE = TypeAdapter(StageChoice)


def given(outputs, targets, layout=FROM_SHAPES):
    make = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(outputs, generator=make) for _ in range(2))
    return LossInputs(student, (student,), Batch((student,), targets), {"t": teacher}, 0.0, layout=layout)


MULTI = (torch.arange(40).reshape(8, 5) % 3 == 0).float()
CASES = [
    ((8, 5), torch.arange(8) % 5, False),
    ((8, 3, 4, 5), torch.zeros(8, 4, 5, dtype=torch.long), False),
    ((8, 1), (torch.arange(8) % 2), True),
    ((8,), (torch.arange(8) % 2).float(), True),
    ((8, 5), MULTI, True),
    ((8, 5), MULTI.long(), True),
    ((8, 1, 4, 5), torch.ones(8, 4, 5, dtype=torch.long), True),
]


@pytest.mark.parametrize(("outputs", "targets", "binary"), CASES)
def test_one_output_or_a_target_for_each_is_binary(outputs, targets, binary):
    sources = given(outputs, targets)
    soft, hard = (BinaryKl, BinaryCrossEntropy()) if binary else (Kl, CrossEntropy())
    pairs = [(SoftLoss(teacher="t", temperature=2), soft(teacher="t", temperature=2)), (HardLoss(), hard)]
    for term, same in pairs:
        objective = term.build(None)
        objective.prepare(sources)
        assert torch.equal(objective(sources), same.build(None)(sources))


def test_labels_that_may_be_classes_are_refused_and_said_by_the_class_axis():
    one_hot = torch.nn.functional.one_hot(torch.arange(8) % 5, 5).float()
    objective = SoftLoss(teacher="t").build(None)
    with pytest.raises(SpecError, match=r"sum to 1 may be one class each.*loss: binary_kl"):
        objective.prepare(given((8, 5), one_hot))
    sources = given((8, 5), one_hot, ClassLayout(1))
    objective.prepare(sources)
    assert torch.equal(objective(sources), Kl(teacher="t").build(None)(sources))


def test_numbers_are_neither():
    with pytest.raises(SpecError, match=r"from -1 to 3 are neither classes nor yes and no.*mse_logits"):
        SoftLoss(teacher="t").build(None).prepare(given((8, 2), torch.tensor([[-1.0, 3.0]]).repeat(8, 1)))


def test_ignored_labels_do_not_count_in_that():
    labels = MULTI.clone()
    labels[0, 0] = 255
    SoftLoss(teacher="t").build(None).prepare(given((8, 5), labels, ClassLayout(ignore_index=255)))


@pytest.mark.parametrize(
    ("fields", "soft", "hard"),
    [
        ({}, SoftLoss, HardLoss),
        ({"loss": "kl"}, Kl, CrossEntropy),
        ({"loss": "binary_kl"}, BinaryKl, BinaryCrossEntropy),
        ({"loss": "binary_kl", "hard": "cross_entropy"}, BinaryKl, CrossEntropy),
        ({"hard": "binary_cross_entropy"}, SoftLoss, BinaryCrossEntropy),
    ],
)
def test_distill_takes_what_is_asked_for(fields, soft, hard):
    stage = STAGE.validate_python({"stage": "distill", "teacher": "t", "epochs": 1, **fields})
    assert [type(term) for term in stage.loss_terms()] == [soft, hard]
    with pytest.raises(ValidationError, match="binary_kl"):
        STAGE.validate_python({"stage": "distill", "teacher": "t", "epochs": 1, "loss": "dkd"})


def test_batches_settle_the_axis_if_they_have_targets():
    learner = fresh()
    collector, taps = InputCollector((), learner, {}, FROM_SHAPES), LayerTaps(learner.graph(train=False), ())

    def layout(outputs, targets):
        batch = Batch((outputs,), targets)
        return collector.collect(outputs, taps, batch, TeacherAnswers({}, {}, {}), 0.0).layout

    assert layout(torch.zeros(8, 5), None) == FROM_SHAPES
    assert layout(torch.zeros(8, 5), MULTI) == FROM_SHAPES
    assert layout(torch.zeros(8, 5, 30), torch.zeros(8, 30)) == ClassLayout(1)
    assert layout(torch.zeros(8, 5, 5), torch.zeros(8, 5)) == ClassLayout(1)
