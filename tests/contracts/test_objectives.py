"""What every registered objective must do."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tests.methods.toys import fresh

from attar.methods.distill.registry import OBJECTIVES, ObjectiveChoice
from attar.train.batch import Batch
from attar.work.objective import Sources

FIELDS = {"kl": {"teacher": "big"}, "soft_cross_entropy": {"teacher": "big"}}


@pytest.fixture(scope="module")
def learner():
    return fresh()


@pytest.fixture(params=list(OBJECTIVES))
def term(request):
    return OBJECTIVES[request.param](**FIELDS.get(request.param, {}))


def sources(shape=(6, 5), seed=0, targets=True, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    outputs, teacher = (torch.randn(shape, generator=make, dtype=dtype) for _ in range(2))
    wanted = torch.randint(0, shape[-1], shape[:-1], generator=make) if targets else None
    outputs.requires_grad_()
    teacher.requires_grad_()
    return Sources(outputs, (outputs,), Batch((outputs.detach(),), wanted), {"big": teacher}, 0.5)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5), (2, 1), (2, 3, 4, 5)])
def test_one_finite_number_with_a_gradient_for_the_student_alone(term, learner, shape):
    given = sources(shape)
    loss = term.build(learner)(given)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    assert given.outputs.grad.shape == shape
    assert given.teachers["big"].grad is None


def test_it_is_the_mean_over_the_batch(term, learner):
    loss, given = term.build(learner), sources()
    outputs, teacher = given.outputs.repeat(3, 1), {"big": given.teachers["big"].repeat(3, 1)}
    thrice = Sources(outputs, (outputs,), Batch((outputs,), given.batch.targets.repeat(3)), teacher, 0.5)
    torch.testing.assert_close(loss(thrice), loss(given))


def test_padding_does_not_count(term, learner):
    loss, given = term.build(learner), sources((3, 4, 5))
    padded = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]], dtype=torch.bool)
    given.batch.targets[padded] = -100
    first = loss(given)
    (gradient,) = torch.autograd.grad(first, given.outputs)
    assert (gradient[padded] == 0).all()
    assert (gradient[~padded] != 0).any()
    kept = Sources(
        given.outputs[~padded],
        (),
        Batch((given.outputs[~padded],), given.batch.targets[~padded]),
        {"big": given.teachers["big"][~padded]},
        0.5,
    )
    torch.testing.assert_close(first, loss(kept))


def test_nothing_but_padding_is_zero(term, learner):
    given = sources()
    given.batch.targets.fill_(-100)
    assert float(term.build(learner)(given).detach()) == 0


def test_a_step_against_the_gradient_helps(term, learner):
    loss, given = term.build(learner), sources()
    before = loss(given)
    before.backward()
    moved = given.outputs.detach() - 0.1 * given.outputs.grad
    assert loss(Sources(moved, (moved,), given.batch, given.teachers, 0.5)) < before


def test_sums_are_not_for_bfloat16(term, learner):
    given = sources(dtype=torch.bfloat16)
    assert term.build(learner)(given).dtype == torch.float32


def test_the_description_is_json_both_ways(term):
    adapter = TypeAdapter(ObjectiveChoice)
    assert adapter.validate_python(term.model_dump(mode="json")) == term
    assert adapter.validate_python(term.describe()) == term


def test_it_says_what_it_needs(term):
    assert term.needs <= {"labels"}
    assert ("labels" in term.needs) or term.teachers() == ("big",)
    if "labels" not in term.needs:
        given = sources(targets=False)
        assert torch.isfinite(term.build(None)(given))


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_entry_says_what_it_is(name):
    assert len(OBJECTIVES[name].__doc__) > 100


@pytest.mark.parametrize("kind", [kind for kind in OBJECTIVES.values() if "temperature" in kind.model_fields])
def test_a_temperature_stays_above_zero(kind):
    for moving in ({"start": 4, "stop": 0}, {"start": 0.0, "stop": 4.0}):
        with pytest.raises(ValidationError, match="start and stop must be above 0"):
            kind(teacher="big", temperature=moving)
