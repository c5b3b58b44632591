"""What every registered constraint must do."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tests.methods.toys import data, fresh, same

from attar._src.artifact.writer import pack
from attar._src.core.errors import UnknownName
from attar._src.core.tensors import Codebook
from attar._src.methods.prune.shapes import SHAPES
from attar._src.methods.rules import CONSTRAINTS, ConstraintChoice
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import FileInfo
from attar._src.work.constraint import Progress

FIELDS = {
    "prune": (
        {"sparsity": 0.6},
        {"threshold": 0.1, "shape": "once"},
        {"sparsity": 0.4, "scope": "global"},
        {"unit": "1:2", "shape": "steps", "steps": 2},
        {"unit": "4x1", "sparsity": 0.5, "scope": "lamp", "shape": "linear", "every": 1},
        {"sparsity": 0.5, "score": "movement", "shape": "exponential", "every": 1},
        {"sparsity": 0.5, "score": "taylor", "scope": "row", "every": 2},
        {"sparsity": 0.5, "score": "random", "scope": "erdos_renyi", "shape": "once"},
        {"sparsity": 0.6, "shape": "once", "regrow": 0.3, "every": 1},
        {"sparsity": 0.5, "shape": "steps", "steps": 3, "rewind": 0.2},
        {"sparsity": 0.5, "shape": "dense_sparse_dense", "end": 0.9, "layers": ["second"]},
    ),
    "prune_activations": ({"sparsity": 0.3}, {"threshold": 0.2}),
    "quantize": (
        {"bits": 3, "activations": 8},
        {"bits": 2, "scales": "mse", "granularity": {"kind": "group", "size": 5}},
        {"bits": 8, "activations": 4, "granularity": {"kind": "tensor"}},
        {"bits": 4, "granularity": {"kind": "bucket", "size": 32}},
        {"bits": 5, "granularity": "group:16", "activations": 7},
    ),
    "lsq": (
        {"bits": 2},
        {"bits": 4, "granularity": "group:16"},
        {"bits": 3, "granularity": "tensor", "narrow_range": False},
        {"bits": 2, "activations": 4, "through": [4, 3]},
        {"bits": 3, "offset": True},
        {"bits": 4, "granularity": "group:16", "narrow_range": False, "offset": True},
    ),
    "uniform": (
        {"bits": 2},
        {"bits": 4, "granularity": "bucket:50", "rounding": "stochastic"},
        {"bits": 1, "granularity": "channel"},
        {"bits": 8, "granularity": "group:20"},
    ),
    "codebook": (
        {"bits": 2},
        {"bits": 3, "granularity": "bucket:50", "share": "gradient", "weights": "trained"},
        {"bits": 4, "granularity": "tensor", "start": "uniform", "share": "gradient"},
        {"bits": 2, "granularity": "channel", "weights": "trained", "start": "uniform"},
    ),
    "normalize": ({}, {"keep": ["head"]}),
    "freeze": ({}, {"threshold": 0.005, "momentum": 0.05}),
    "low_precision": ({}, {"bits": 8}),
}
CASES = [(name, fields) for name in CONSTRAINTS for fields in FIELDS[name]]
STEPS = 6
#: The rules that hold weights to a grid.
GRIDS = ("quantize", "lsq", "uniform", "codebook")
#: The rules that hold no weight while a module is trained.
WEIGHTLESS = {"prune_activations", "low_precision"}
#: Rules that act on what another one holds -> that one.
BEHIND = {"freeze": "lsq"}
GRID_CASES = [case for case in CASES if case[0] in GRIDS]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{len(str(case[1]))}")
def rule(request):
    name, fields = request.param
    return CONSTRAINTS[name](**fields)


@pytest.fixture(params=GRID_CASES, ids=lambda case: f"{case[0]}-{len(str(case[1]))}")
def grid(request):
    name, fields = request.param
    return CONSTRAINTS[name](**fields)


def begun(name, slot=0):
    """A learner a rule can be attached to."""
    learner = fresh(slot)
    if name in BEHIND:
        learner.attach(CONSTRAINTS[BEHIND[name]](bits=2).attach(learner))
    return learner


def trained(rule, steps=STEPS, learner=None, begin=0):
    """A learner held to the rule after some steps of plain descent."""
    if learner is None:
        learner = begun(rule.name)
        learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    x, y = data(32)
    torch.manual_seed(begin)
    for step in range(begin, steps):
        learner.update(Progress(step, STEPS))
        torch.nn.functional.cross_entropy(graph(x), y).backward()
        with torch.no_grad():
            for parameter in graph.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None
    for constraint in learner.constraints:
        constraint.sync(lambda tensor: tensor.clone())
    return learner


def test_what_is_stored_is_what_was_read(rule):
    learner = trained(rule)
    learner.finalize()
    baked = learner.compressed_weights()
    assert set(baked) == {name for c in learner.constraints for name in c.weights}
    assert bool(baked) == (rule.name not in WEIGHTLESS)
    if not baked:
        pytest.skip(f"{rule.name} holds no weight; what it stores is judged by its file, below")
    for name, tensor in baked.items():
        value = learner.tensor(name).detach()
        for held in learner.parametrizations(name):
            value = held.eval()(value).detach()
        assert np.array_equal(tensor.dense(), value.numpy())


def test_the_file_computes_what_was_trained(rule):
    learner = trained(rule)
    learner.finalize()
    piece = learner.deployed()
    x = data(16, seed=2)[0]
    session = Session(pack(piece.contents(FileInfo())))
    got = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
        plain = learner.graph(train=False)(x).numpy()
    assert np.abs(got - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    # Rounding in a fused layer and rounding before the fusion may differ by a step here and there.
    step = max((grid.scale for grid in piece.main.activations.values()), default=1e-5)
    # What holds nothing while a module is trained changes the file alone, and not by much.
    holds = any(constraint.parametrizations for constraint in learner.constraints)
    assert np.abs(plain - wanted).max() <= (step * 3 if holds else 0.02 * np.abs(wanted).max())


def test_it_acts(rule):
    learner = trained(rule)
    held = {name: each for c in learner.constraints for name, each in {**c.weights, **c.values}.items()}
    if not held:
        piece = learner.deployed()
        trained_values = piece.main.traced.state()
        assert piece.tensors
        assert all(np.abs(t.dense() - trained_values[n].numpy()).max() for n, t in piece.tensors.items())
        return
    x = data(16)[0]
    with torch.no_grad():
        graph = learner.graph(train=False)
        learner.constraints.clear()
        # Masks of dense-sparse-dense are gone by the last step.
        gone = rule.name == "prune" and SHAPES[rule.shape].releases
        assert torch.equal(graph(x), learner.graph(train=False)(x)) == gone


def test_it_does_not_keep_its_learner(rule):
    learner = begun(rule.name)
    constraint = rule.attach(learner)
    learner.attach(constraint)
    learner.update(Progress(0, STEPS))
    gone = weakref.ref(learner)
    del learner
    gc.collect()
    assert constraint is not None
    assert gone() is None


def test_evaluation_changes_nothing(rule):
    learner = trained(rule)
    before = [{k: v.clone() for k, v in c.state_dict().items()} for c in learner.constraints]
    graph = learner.graph(train=False)
    with torch.no_grad():
        first, second = graph(data(16)[0]), graph(data(16, seed=4)[0] * 100)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert all(same(old, c.state_dict()) for old, c in zip(before, learner.constraints, strict=True))


def test_its_state_is_all_it_goes_on_from(rule):
    half = trained(rule, STEPS // 2)
    module = {k: v.clone() for k, v in half.module.state_dict().items()}
    states = [{k: v.clone() for k, v in c.state_dict().items()} for c in half.constraints]
    whole = trained(rule, STEPS, half, STEPS // 2)
    again = begun(rule.name, 1)
    again.attach(rule.attach(again))
    again.module.load_state_dict(module)
    for constraint, state in zip(again.constraints, states, strict=True):
        constraint.load_state_dict(state)
    again = trained(rule, STEPS, again, STEPS // 2)
    assert same(whole.module.state_dict(), again.module.state_dict())
    assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(whole.constraints, again.constraints, strict=True))


def test_settling_twice_is_settling_once(rule):
    learner = trained(rule)
    learner.finalize()
    before = {k: v.clone() for k, v in learner.module.state_dict().items()}
    learner.finalize()
    assert same(before, learner.module.state_dict())


def test_ranks_agree_after_sync(rule):
    both = [begun(rule.name, 0), begun(rule.name, 1)]
    for seed, learner in enumerate(both):
        learner.attach(rule.attach(learner))
        learner.update(Progress(0, STEPS))
        learner.graph(train=True)(data(32, seed)[0])
    # Each tensor that one rank has to average meets the same one of the other.
    seen: list[list[torch.Tensor]] = [[], []]
    for learner, tensors in zip(both, seen, strict=True):
        for constraint in learner.constraints:
            constraint.sync(lambda tensor, tensors=tensors: (tensors.append(tensor.clone()), tensor)[1])
    means = [(one + other) / 2 for one, other in zip(*seen, strict=True)]
    for learner in both:
        given = iter(means)
        for constraint in learner.constraints:
            constraint.sync(lambda tensor, given=given: next(given).clone())
    for one, other in zip(both[0].constraints, both[1].constraints, strict=True):
        assert same(one.state_dict(), other.state_dict())


def test_the_description_is_json_both_ways(rule):
    adapter = TypeAdapter(ConstraintChoice)
    assert adapter.validate_python(rule.model_dump(mode="json")) == rule
    assert adapter.validate_python(rule.describe()) == rule


@pytest.mark.parametrize("name", [n for n in CONSTRAINTS if {"layers", "keep"} & set(CONSTRAINTS[n].model_fields)])
def test_a_glob_that_matches_nothing_lists_near_names(name):
    rule = CONSTRAINTS[name](**FIELDS[name][0])
    field = "layers" if "layers" in type(rule).model_fields else "keep"
    with pytest.raises(UnknownName, match=r"no layer named 'secnd'; did you mean 'second'"):
        rule.model_copy(update={field: ("secnd",)}).attach(begun(name))


@pytest.mark.parametrize("name", list(CONSTRAINTS))
def test_every_entry_says_what_it_is(name):
    assert len(CONSTRAINTS[name].__doc__) > 100


@pytest.mark.parametrize("name", list(CONSTRAINTS))
def test_what_is_a_grid_is_looked_at_as_one(name):
    assert (CONSTRAINTS[name](**FIELDS[name][0]).attach(begun(name)).family == "grid") == (name in GRIDS)


def test_weights_on_a_grid_survive_exactly(grid):
    learner = fresh()
    for name, held in grid.attach(learner).weights.items():
        value = learner.tensor(name).detach()
        first = held.eval().to_compressed(value)
        read = torch.from_numpy(first.dense())
        again = held.to_compressed(read)
        assert np.array_equal(first.codes, again.codes)
        # Of quantize, too, which finds its scales anew: from what they have made they come back to the bit.
        assert torch.equal(held(read), read)


#: The rules that hold activations to a grid.
SITES = [case for case in GRID_CASES if "activations" in case[1]]


@pytest.mark.parametrize(("name", "fields"), SITES, ids=lambda each: each if isinstance(each, str) else len(str(each)))
def test_activations_on_a_grid_survive_exactly(name, fields):
    learner = trained(CONSTRAINTS[name](**fields))
    held = {id(each): each for constraint in learner.constraints for each in constraint.values.values()}
    # What is only added has 8 bits.
    assert {site.bits for site in held.values()} == {fields["activations"], 8}
    for site in held.values():
        x = 3 * torch.randn((4, 50), generator=torch.Generator().manual_seed(0))
        read = site.eval()(x).detach()
        assert 2 < len(read.unique()) <= 2**site.bits
        assert torch.equal(site(read), read)


def test_positions_are_where_the_codes_are(grid):
    learner = fresh()
    for name, held in grid.attach(learner).weights.items():
        weight = learner.tensor(name)
        positions, stored = held.eval().grid_positions(weight), held.to_compressed(weight)
        if grid.name == "codebook":
            assert positions is None
            continue
        codes = positions.codes()
        # Those of a codebook are counted from 0, whatever its lowest point.
        low = positions.low if isinstance(stored, Codebook) else 0
        assert np.array_equal(codes.numpy() - low, stored.codes)
        assert positions.low <= codes.min() <= codes.max() <= positions.high
        scale = positions.scale.expand(weight.shape)
        offset = stored.offset[stored.granularity.index(stored.shape)] if isinstance(stored, Codebook) else 0.0
        back = (positions.at * scale).detach().numpy() + offset
        np.testing.assert_allclose(back, weight.detach().numpy(), rtol=1e-4, atol=1e-6)
        (slope,) = torch.autograd.grad(positions.at.sum(), weight)
        torch.testing.assert_close(slope, 1 / scale, rtol=1e-5, atol=0)


def bucket(flat, shape, granularity):
    """The scale that one element has, by its place in the flat tensor; channels on the first axis."""
    channel, inside = divmod(flat, math.prod(shape[1:]))
    match granularity.kind:
        case "tensor":
            return 0
        case "channel":
            return channel
        case "group":
            return channel * math.ceil(math.prod(shape[1:]) / granularity.size) + inside // granularity.size
    return flat // granularity.size


def pulled(held, weight, seed):
    """A gradient of what is read, and all of it in double, element by element."""
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    weight.grad = None
    (held(weight) * upstream).sum().backward()
    return upstream, upstream.double().reshape(-1).tolist(), weight.detach().double().reshape(-1).tolist()


@pytest.mark.parametrize("fields", FIELDS["lsq"], ids=lambda fields: str(len(str(fields))))
def test_gradients_of_steps_are_those_of_the_paper(fields):
    learner = fresh()
    for name, held in CONSTRAINTS["lsq"](**fields).attach(learner).weights.items():
        weight, scheme = learner.tensor(name), held.scheme
        with torch.no_grad():
            held.step *= 0.3  # so that some are clipped
        upstream, grads, values = pulled(held, weight, 1)
        offsets = held.step.new_zeros(len(held.step)) if held.offset is None else held.offset.detach()
        top = 2 ** (scheme.bits - 1) - 1
        low = -top if scheme.narrow_range else -top - 1
        sums, moved, sizes = [0.0] * len(held.step), [0.0] * len(held.step), [0] * len(held.step)
        passed = []
        for flat, (g, w) in enumerate(zip(grads, values, strict=True)):
            place = bucket(flat, weight.shape, scheme.granularity)
            v = (w - float(offsets[place])) / float(held.step.detach()[place])
            slope = low if v < low else top if v > top else round(v) - v
            sums[place] += g * slope
            moved[place] += 0 if low <= v <= top else g
            sizes[place] += 1
            passed.append(low <= v <= top)
        assert not all(passed)
        # One factor for all groups of a weight: that of their mean size, where the last is shorter.
        factor = 1 / math.sqrt(sum(sizes) / len(sizes) * top)
        learned = {held.step: sums} if held.offset is None else {held.step: sums, held.offset: moved}
        for parameter, gradient in learned.items():
            wanted = torch.tensor(gradient) * factor
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
        assert torch.equal(weight.grad, upstream * torch.tensor(passed).view(weight.shape))


@pytest.mark.parametrize("fields", FIELDS["codebook"], ids=lambda fields: str(len(str(fields))))
def test_gradients_of_points_are_those_of_the_paper(fields):
    learner = fresh()
    rule = CONSTRAINTS["codebook"](**fields)
    for name, held in rule.attach(learner).weights.items():
        weight = learner.tensor(name)
        upstream, grads, values = pulled(held, weight, 2)
        places = [bucket(flat, weight.shape, held.granularity) for flat in range(len(values))]
        members = {place: [w for w, p in zip(values, places, strict=True) if p == place] for place in set(places)}
        points = held.points.detach().double().tolist()[: int(held.count)]
        wanted = [0.0] * len(held.points)
        for g, w, place in zip(grads, values, places, strict=True):
            b = min(members[place])
            a = max(members[place]) - b
            nearest = min(range(len(points)), key=lambda j, v=(w - b) / a: abs(points[j] - v))
            wanted[nearest] += a * g
        wanted = torch.tensor(wanted)
        torch.testing.assert_close(held.points.grad, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
        if rule.weights == "frozen":
            assert weight.grad is None
        else:
            assert torch.equal(weight.grad, upstream)


@pytest.mark.parametrize("later", GRIDS)
@pytest.mark.parametrize("earlier", GRIDS)
def test_a_later_grid_takes_a_weight_over(earlier, later):
    learner = fresh()
    learner.attach(CONSTRAINTS[earlier](bits=4, keep=("first",)).attach(learner))
    learner.attach(CONSTRAINTS[later](bits=2, keep=("head",)).attach(learner))
    one, other = (learner.parametrizations(name) for name in ("head.weight", "second.weight"))
    assert (len(one), len(other), len(learner.parametrizations("first.weight"))) == (1, 1, 1)
    assert [type(learner.constraints[0]), type(learner.constraints[1])] == [
        type(CONSTRAINTS[name]().attach(learner)) for name in (earlier, later)
    ]
    baked = learner.compressed_weights()
    assert len(np.unique(baked["head.weight"].codes)) > 4 >= len(np.unique(baked["second.weight"].codes))
