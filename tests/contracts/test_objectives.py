"""What every registered objective must do. Terms that look at weights alone have their own: test_regularisers.py."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tests.contracts import formulas
from tests.methods.toys import fresh

from attar._src.core.errors import SpecError
from attar._src.measure.class_layout import ClassLayout
from attar._src.methods.objectives.registry import OBJECTIVES, ObjectiveChoice
from attar._src.train.batch import Batch
from attar._src.train.schedule import Schedule
from attar._src.work.objective import LossInputs

#: Terms that look neither at outputs nor at labels nor at teachers.
REGULARISERS = {"rate", "damping", "lasso"}
#: Terms that compare layers; here the layers are the outputs, so that all else holds for them too.
LAYERS = {"hint", "attention"}
LAYERED = {"teacher": "big", "layers": {"ours": "theirs"}}
FIELDS = {
    "cross_entropy": {},
    "kl": {"teacher": "big"},
    "reverse_kl": {"teacher": "big"},
    "soft_cross_entropy": {"teacher": "big"},
    "mse_logits": {"teacher": "big"},
    "dkd": {"teacher": "big"},
    "dist": {"teacher": "big"},
    "binary_cross_entropy": {},
    "binary_kl": {"teacher": "big"},
    "hint": LAYERED,
    "attention": LAYERED,
    "other_outputs": {"teacher": "big"},
}
#: Terms whose targets are 0 or 1 for each output.
BINARY = {"binary_cross_entropy"}
#: Terms whose softmax compares classes.
CLASSES = {"cross_entropy", "kl", "reverse_kl", "soft_cross_entropy", "dkd", "dist"}
NAMES = [name for name in OBJECTIVES if name not in REGULARISERS]
SOFT = [name for name in NAMES if "temperature" in OBJECTIVES[name].model_fields]
#: Every term that has a teacher, and at which temperature, where it has one.
TAUGHT = [(name, {}) for name in NAMES if FIELDS[name]]
TAUGHT += [(name, {"temperature": temperature}) for name in SOFT for temperature in (0.5, 1.0, 20.0)]
SHAPES = [(6, 5), (3, 4, 5), (2, 1), (2, 3, 4, 5)]


def made(name, **more):
    return OBJECTIVES[name](**FIELDS[name], **more)


@pytest.fixture(scope="module")
def learner():
    return fresh()


@pytest.fixture(params=NAMES)
def term(request):
    return made(request.param)


def fits(name, shape):
    return len(shape) > 2 if name == "attention" else shape[-1] > 1 or name not in CLASSES


def built(term, given, learner=None):
    torch.manual_seed(0)
    objective = term.build(learner)
    if term.features() or term.teacher_features():
        objective.prepare(given)
        objective.to(given.features["ours"].dtype)
    return objective


def shown(outputs, targets, teacher, progress=0.5):
    """Sources in which the values of layers, and a second output, are the outputs; layers in float32, as taps give."""
    ours, theirs = (each.float() if each.dtype == torch.bfloat16 else each for each in (outputs, teacher))
    batch = Batch((outputs.detach(),), targets)
    every, known = (outputs, outputs.view_as(outputs)), {"big": {"logits": teacher, "other": teacher}}
    layers = {"ours": ours}, {"big": {"theirs": theirs}}
    names = ("logits", "other")
    return LossInputs(outputs, every, batch, {"big": teacher}, progress, *layers, known, names=names)


def sources(shape=(6, 5), seed=0, targets=True, dtype=torch.float32, name=""):
    make = torch.Generator().manual_seed(seed)
    outputs, teacher = (torch.randn(shape, generator=make, dtype=dtype) for _ in range(2))
    kinds = (2, shape) if name in BINARY else (shape[-1], shape[:-1])
    wanted = torch.randint(0, *kinds, generator=make) if targets else None
    return shown(outputs.requires_grad_(), wanted, teacher.requires_grad_())


def size(term):
    """Attention is over positions: its layers have some."""
    return (3, 4, 5) if term.name == "attention" else (6, 5)


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n in NAMES for s in SHAPES if fits(n, s)])
def test_one_finite_number_with_a_gradient_for_the_student_alone(name, shape, learner):
    term = made(name)
    given = sources(shape, name=name)
    loss = built(term, given, learner)(given)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    assert given.outputs.grad.shape == shape
    assert torch.isfinite(given.outputs.grad).all()
    assert given.teachers["big"].grad is None


@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_does_not_become_one(term, whose, value):
    """A loss that hides it would let a training go on with weights that are none."""
    if whose == "teacher" and not FIELDS[term.name]:
        pytest.skip("it has no teacher")
    given = sources(size(term), name=term.name)
    with torch.no_grad():
        (given.outputs if whose == "student" else given.teachers["big"]).view(-1)[0] = value
    assert not torch.isfinite(built(term, given)(given))


def test_it_is_the_mean_over_the_batch(term):
    given = sources(size(term), name=term.name)
    loss, again = built(term, given), (3,) + (1,) * (len(size(term)) - 1)
    teacher, targets = (
        given.teachers["big"].repeat(again),
        given.batch.targets.repeat(again[: given.batch.targets.dim()]),
    )
    torch.testing.assert_close(loss(shown(given.outputs.repeat(again), targets, teacher)), loss(given))


@pytest.mark.parametrize("padding", [-100, 255])
def test_padding_does_not_count(term, padding):
    given = sources((3, 4, 5), name=term.name)
    padded = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]], dtype=torch.bool)
    given.batch.targets[padded] = padding
    loss = built(term.model_copy(update={"ignore_index": padding}), given)
    first = loss(given)
    (gradient,) = torch.autograd.grad(first, given.outputs)
    assert (gradient[padded] == 0).all()
    assert (gradient[~padded] != 0).any()
    every = given.outputs, given.batch.targets, given.teachers["big"]
    if term.name == "attention":  # a map is an example's, so that each stands alone
        alone = [[each[row : row + 1, ~padded[row]] for each in every] for row in range(3)]
        expected = torch.stack([loss(shown(*each)) for each in alone]).mean()
    else:
        expected = loss(shown(*(each[~padded] for each in every)))
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("each", ["position", "example"])
def test_padding_does_not_count_in_maps(name, each):
    make = torch.Generator().manual_seed(0)
    outputs, teacher = (torch.randn((6, 4, 3, 5), generator=make) for _ in range(2))
    shape = (6, 3, 5) if each == "position" else (6,)
    padded = torch.rand(shape, generator=make) < 0.4
    assert 0 < padded.sum() < padded.numel()
    targets = torch.zeros(shape, dtype=torch.long).masked_fill(padded, -100)
    maps = shown(outputs.requires_grad_(), targets, teacher)
    loss = built(made(name), maps)
    first = loss(maps)
    (gradient,) = torch.autograd.grad(first, outputs)
    assert (gradient.movedim(1, -1)[padded] == 0).all()
    # The same as sequences, for which the test above says what it is; without the examples, where these are padding.
    one, other = (values.detach().flatten(2).movedim(1, 2) for values in (outputs, teacher))
    if each == "position":
        sequences = shown(one, targets.flatten(1), other)
    else:
        sequences = shown(one[~padded], None, other[~padded])
    torch.testing.assert_close(first, loss(sequences))


def test_nothing_but_padding_is_zero(term):
    given = sources(size(term), name=term.name)
    given.batch.targets.fill_(-100)
    found = built(term, given)(given)
    found.backward()
    assert float(found.detach()) == 0
    assert (given.outputs.grad == 0).all()


def test_an_example_of_padding_alone_does_not_count(term):
    given = sources((3, 4, 5), name=term.name)
    given.batch.targets[1] = -100
    kept = [each[::2] for each in (given.outputs, given.batch.targets, given.teachers["big"])]
    loss = built(term, given)
    torch.testing.assert_close(loss(given), loss(shown(*kept)))


def test_a_step_against_the_gradient_helps(term):
    given = sources(size(term), name=term.name)
    loss = built(term, given)
    before = loss(given)
    before.backward()
    moved = given.outputs.detach() - 0.1 * given.outputs.grad
    assert loss(shown(moved, given.batch.targets, given.teachers["big"])) < before


def test_sums_are_not_for_bfloat16(term):
    given = sources(size(term), dtype=torch.bfloat16, name=term.name)
    assert built(term, given)(given).dtype == torch.float32


#: How far ahead the labels' logits are, the type, and what is as good as 0. In float32 most probabilities of a sure
#: answer are next to nothing, or nothing at all.
SURE = [(0, torch.float64, 1e-12), *((ahead, torch.float32, 1e-5) for ahead in (10, 30, 60, 100, 200, 3e4))]


@pytest.mark.parametrize(("ahead", "dtype", "nothing"), SURE)
@pytest.mark.parametrize(("name", "more"), TAUGHT)
def test_where_student_and_teacher_agree_it_is_zero_and_flat(name, more, ahead, dtype, nothing):
    term = made(name, **more)
    given = sources((2, 3, 4, 5), dtype=dtype)
    given.batch.targets.remainder_(3)  # no label is one of the last two classes
    with torch.no_grad():
        given.outputs.add_(torch.nn.functional.one_hot(given.batch.targets, 5), alpha=ahead)
    equal = shown(given.outputs, given.batch.targets, given.outputs.detach().clone())
    loss = built(term, equal)
    if name == "hint":
        torch.nn.init.eye_(loss.projectors[0].weight)
        torch.nn.init.zeros_(loss.projectors[0].bias)
    found = loss(equal)
    (gradient,) = torch.autograd.grad(found, given.outputs)
    assert gradient.abs().max() < nothing
    wanted = 0.0
    if name == "soft_cross_entropy":  # it is the entropy of the soft targets there
        p = formulas.probabilities(given.outputs.detach().double().numpy(), term.temperature)
        wanted = -(term.temperature**2) * np.mean(np.sum(p * np.log(p, where=p > 0, out=np.zeros_like(p)), -1))
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-5, abs=nothing)


def centred(values, axis=-1):
    return values - values.mean(axis, keepdim=True)


def unrelated(one, other, axis):
    """The mean of 1 - r."""
    return (1 - torch.cosine_similarity(centred(one, axis), centred(other, axis), axis)).mean()


def others(logits, y):
    """Logits without that of the label."""
    return logits[torch.ones_like(logits, dtype=torch.bool).scatter(-1, y[:, None], False)].view(len(logits), -1)


def warm(name, z, t, y, term):
    """What a loss tends to for large T, and the power of T that it grows with.

    With K classes and centred logits, softmax(z / T) = (1 + z / T) / K + O(T^-2), and KL(p || q) = sum (p - q)^2 / 2 p.
    Of a cross-entropy that is what is left beyond T^2 log K; of dkd, b = (1 + z_y / T) / K with the label y.
    """
    if name == "binary_kl":  # s(z / T) = 1 / 2 + z / (4 T) + O(T^-3)
        return (z - t).square().mean() / 8, 0
    z, t = centred(z), centred(t)
    (n, k), apart = z.shape, (z - t).square().sum()
    match name:
        case "kl" | "reverse_kl":
            return apart / (2 * k * n), 0
        case "soft_cross_entropy":
            return (apart - t.square().sum()) / (2 * k * n), 0
        case "dkd":
            label = (z - t).gather(-1, y[:, None]).square().sum()
            rest = centred(others(z, y) - others(t, y)).square().sum()
            return (term.alpha * label + term.beta * rest) / (2 * (k - 1) * n), 0
        case "dist":
            return term.beta * unrelated(z, t, 1) + term.gamma * unrelated(z, t, 0), 2
    raise AssertionError(f"derive the limits of {name}")


def cold(name, z, t, y, term):
    """What a loss tends to for small T, and the power of T that it falls with.

    softmax(t / T) is 1 at the largest logit there and -T log softmax(z / T) = max z - z, so that a divergence falls
    with T^2 / T: by how much the student's answer is above the one that its teacher gives. The entropy of soft targets
    falls faster. Of the columns of dist a factor does not count, so each is 1 where it is nearest to its row's largest.
    """
    most = z.amax(-1)
    match name:
        case "kl" | "soft_cross_entropy":
            return (most - z.gather(-1, t.argmax(-1, True))[:, 0]).mean(), 1
        case "reverse_kl":
            return (t.amax(-1) - t.gather(-1, z.argmax(-1, True))[:, 0]).mean(), 1
        case "binary_kl":  # by how much an output is on the other side of 0 than its teacher's
            return z.abs().masked_fill(z.sign() == t.sign(), 0).mean(), 1
        case "dkd":
            (rest, taught), right = (others(each, y) for each in (z, t)), t.argmax(-1) == y
            label = most - torch.where(right, z.gather(-1, y[:, None])[:, 0], rest.amax(-1))
            apart = rest.amax(-1) - rest.gather(-1, taught.argmax(-1, True))[:, 0]
            return (term.alpha * label + term.beta * apart).mean(), 1
        case "dist":
            z, t = (each - each.amax(-1, keepdim=True) for each in (z, t))
            rows = unrelated(*((each == 0).double() for each in (z, t)), 1)
            return term.beta * rows + term.gamma * unrelated(*((e == e.amax(0)).double() for e in (z, t)), 0), 2
    raise AssertionError(f"derive the limits of {name}")


@pytest.mark.parametrize(("limit", "temperature", "near"), [(warm, 1e4, 1e-3), (cold, 1e-4, 1e-9)])
@pytest.mark.parametrize("name", SOFT)
def test_at_the_ends_of_temperature_it_is_what_it_tends_to(name, limit, temperature, near):
    given, term = sources((12, 10), dtype=torch.float64), made(name, temperature=temperature)
    t, y = given.teachers["big"].detach(), given.batch.targets
    z = 2 * given.outputs.detach() + t  # so that they agree about some
    y[::2] = t.argmax(-1)[::2]  # as labels and teacher do
    assert 0 < (z.argmax(-1) == t.argmax(-1)).sum() < 12
    found = float(built(term, given)(shown(z, y, t)))
    if (name, limit) == ("soft_cross_entropy", warm):
        found -= temperature**2 * math.log(10)
    wanted, power = limit(name, z, t, y, term)
    assert wanted.abs() > 0.1
    assert found / temperature**power == pytest.approx(float(wanted), rel=near)


@pytest.mark.parametrize("name", SOFT)
def test_a_temperature_may_change(name):
    given, moving = sources((8, 10)), made(name, temperature=Schedule(start=8, stop=2)).build(None)
    for progress, temperature in ((0.0, 8.0), (0.5, 5.0), (1.0, 2.0)):
        at = shown(given.outputs, given.batch.targets, given.teachers["big"], progress)
        assert torch.equal(moving(at), made(name, temperature=temperature).build(None)(at))


FORMULAS = [
    (n, m, p)
    for n, m in [("cross_entropy", {}), ("binary_cross_entropy", {}), *TAUGHT]
    for p in (False, True)
    if not (p and n in LAYERS)
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "more", "padded"), FORMULAS)
def test_it_is_its_formula_in_float64(name, more, padded, seed):
    term = made(name, **more)
    shape = (4, 3, 5, 5) if term.name in LAYERS else (7, 3, 6)
    given = sources(shape, seed=seed, dtype=torch.float64, name=name)
    z, t = (3 * each.detach().numpy() for each in (given.outputs, given.teachers["big"]))
    given = shown(torch.from_numpy(z), given.batch.targets, torch.from_numpy(t))
    keep = torch.rand(shape[:-1], generator=torch.Generator().manual_seed(seed)) < (0.6 if padded else 2)
    if term.name not in LAYERS:
        given.batch.targets[~keep] = -100
    loss = built(term, given)
    if term.name in LAYERS:
        more = [each.detach().numpy() for each in loss.parameters()]
        expected = getattr(formulas, term.name)(z, t, *more)
    else:
        formula = getattr(formulas, term.name)
        more = {key: getattr(term, key) for key in inspect.signature(formula).parameters if key not in "zty"}
        expected = formula(z[keep], t[keep], given.batch.targets[keep].numpy(), **more)
    assert float(loss(given).detach()) == pytest.approx(expected, rel=1e-9)


def test_the_description_is_json_both_ways(term):
    adapter = TypeAdapter(ObjectiveChoice)
    assert adapter.validate_python(term.model_dump(mode="json")) == term
    assert adapter.validate_python(term.describe()) == term


def test_it_says_what_it_needs(term):
    assert term.needs <= {"labels"}
    assert term.teachers() == (("big",) if FIELDS[term.name] else ())
    assert term.features() == (("ours",) if term.name in LAYERS else ())
    looked = {"big": ("theirs",)} if term.name in LAYERS else {"big": ()} if term.name == "other_outputs" else {}
    assert term.teacher_features() == looked
    if "labels" not in term.needs:
        given = sources(size(term), targets=False)
        assert torch.isfinite(built(term, given)(given))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name in REGULARISERS])
def test_what_is_kept_apart_looks_at_weights_alone(name):
    term = OBJECTIVES[name]()
    assert (term.needs, term.teachers(), term.features(), term.teacher_features()) == (frozenset(), (), (), {})


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_entry_says_what_it_is(name):
    assert len(OBJECTIVES[name].__doc__) > 100


@pytest.mark.parametrize("kind", [kind for kind in OBJECTIVES.values() if "temperature" in kind.model_fields])
def test_a_temperature_stays_above_zero(kind):
    for moving in ({"start": 4, "stop": 0}, {"start": 0.0, "stop": 4.0}):
        with pytest.raises(ValidationError, match="start and stop must be above 0"):
            kind(teacher="big", temperature=moving)


@pytest.mark.parametrize("shape", [(6, 1), (3, 4, 1), (2, 1, 4, 4)])
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_are_more_than_one(name, shape):
    """The softmax of one number is 1, and a loss of it 0 for ever."""
    given = sources(shape)
    targets = torch.zeros(shape[:1] + shape[2:] if len(shape) == 4 else shape[:-1], dtype=torch.long)
    with pytest.raises(SpecError, match=f"{name} compares probabilities .* one class.* use binary_kl"):
        made(name).build(None)(shown(given.outputs, targets, given.teachers["big"]))


@pytest.mark.parametrize("axis", [None, 1, -3])
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_may_lie_on_axis_1(name, axis):
    last = sources((3, 4, 6, 5), dtype=torch.float64)
    first = shown(
        *(
            each.movedim(-1, 1) if each.dim() == 4 else each
            for each in (last.outputs, last.batch.targets, last.teachers["big"])
        )
    )
    first = replace(first, layout=ClassLayout(axis))
    torch.testing.assert_close(made(name).build(None)(first), made(name).build(None)(last))


@pytest.mark.parametrize("name", sorted(CLASSES - {"cross_entropy", "dkd"}))
def test_a_class_axis_that_could_be_another_is_asked_for(name):
    for shape, targets, choice in [
        ((2, 5, 5), torch.zeros(2, 5, dtype=torch.long), "class_axis to 1 or 2"),
        ((2, 3, 4, 5), None, "class_axis to 1 or 2 or 3"),
        ((6, 5), torch.zeros(6, 5), "a target for each output.*class_axis"),
    ]:
        given = sources(shape)
        given = shown(given.outputs, targets, given.teachers["big"])
        with pytest.raises(SpecError, match=choice):
            made(name).build(None)(given)
        assert torch.isfinite(made(name).build(None)(replace(given, layout=ClassLayout(1))))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LAYERS])
def test_padding_is_that_of_the_recipe(name):
    given = sources((3, 4, 5), name=name)
    padded = torch.arange(12).reshape(3, 4) % 3 == 0
    results = []
    for padding in (-100, 255):
        targets = given.batch.targets.clone()
        targets[padded] = padding
        layout = ClassLayout(ignore_index=padding)
        results.append(
            made(name).build(None)(replace(shown(given.outputs, targets, given.teachers["big"]), layout=layout))
        )
    assert torch.equal(*results)
