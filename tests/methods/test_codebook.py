import numpy as np
import pytest
import torch

from attar._src.core.scheme import PerBucket, PerChannel, PerTensor
from attar._src.core.tensors import Codebook
from attar._src.methods.quantize.polino.codebook import MOST_POINTS, CodebookConstraint, CodebookWeight, deal_points
from attar._src.work.constraint import Progress
from attar._src.work.weight_view import WeightView


def weight_of(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def held_of(weight, count=4, granularity=None, **options):
    options = {"room": count, **options}
    return CodebookWeight(weight, count, granularity or PerBucket(size=20), **options)


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerBucket(size=7), PerBucket(size=500)])
@pytest.mark.parametrize("shape", [(6, 4), (4, 3, 3, 2), (5, 1), (0, 3), (3, 0)])
@pytest.mark.parametrize("count", [2, 5, 256])
@pytest.mark.parametrize("start", ["percentile", "uniform"])
def test_what_is_stored_is_what_is_read(granularity, shape, count, start):
    weight = weight_of(shape, count)
    held = held_of(weight, count, granularity, start=start).eval()
    with torch.no_grad():
        held.points += 0.01 * weight_of((count,), 1)  # and so in no order
    stored = held.to_compressed(weight)
    assert isinstance(stored, Codebook)
    assert stored.points.size == count
    assert (np.diff(stored.points) >= 0).all()
    assert stored.dense().tobytes() == held(weight).detach().numpy().tobytes()


def test_points_begin_at_percentiles_or_evenly():
    weight = weight_of((1000,))
    v = ((weight - weight.min()) / (weight.max() - weight.min())).numpy()
    held = held_of(weight, 5, PerTensor())
    np.testing.assert_allclose(held.points.detach(), np.percentile(v, [0, 25, 50, 75, 100]), rtol=1e-6)
    even = held_of(weight, 5, PerTensor(), start="uniform")
    assert even.points.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_weights_on_the_points_stay_to_the_bit():
    points = torch.tensor([0.0, 0.13, 0.4, 0.41, 1.0])
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, 5, (8, 20)))
    codes[:, 0], codes[:, 1] = 0, 4
    spread, low = torch.from_numpy(rng.uniform(0.1, 3, (2, 8, 1)).astype(np.float32))
    weight = points[codes] * spread - low
    held = held_of(weight, 5)
    with torch.no_grad():
        held.points.copy_(points)
    assert torch.equal(held(weight), weight)
    assert np.array_equal(held.to_compressed(weight).codes, codes)


def test_of_two_as_near_it_is_the_lower():
    weight = torch.tensor([0.0, 0.25, 0.75, 1.0])
    held = held_of(weight, 3, PerTensor(), start="uniform")
    assert held(weight).tolist() == [0, 0, 0.5, 1]


def test_a_point_that_no_weight_is_near_stays():
    weight = torch.tensor([[0.0, 0.1, 0.9, 1.0]])
    held = held_of(weight, 4, PerTensor())
    with torch.no_grad():
        held.points.copy_(torch.tensor([0.0, 0.4, 0.5, 1.0]))
    held(weight).sum().backward()
    assert held.points.grad.tolist() == [2, 0, 0, 2]


@pytest.mark.parametrize("lr_scale", [1.0, 0.01])
def test_frozen_weights_get_no_gradient_at_all(lr_scale):
    weight = weight_of((8, 20)).requires_grad_()
    held = held_of(weight)
    held.lr_scale = lr_scale
    held(weight).sum().backward()
    assert weight.grad is None
    spread = weight.detach().amax(1) - weight.detach().amin(1)
    assert float(held.points.grad.sum()) == pytest.approx(float(spread.sum()) * 20 * lr_scale, rel=1e-5)
    held.frozen = False
    held(weight).sum().backward()
    assert (weight.grad == 1).all()


def test_a_step_along_the_gradient_brings_what_is_read_nearer():
    weight, wanted = weight_of((30, 20)), weight_of((30, 20))
    held = held_of(weight, 4, PerTensor(), start="uniform")
    errors = []
    for _ in range(60):
        error = (held(weight) - wanted).square().mean()
        held.points.grad = None
        error.backward()
        errors.append(error.item())
        with torch.no_grad():
            held.points -= 0.02 * held.points.grad
    assert errors[-1] < 0.7 * errors[0]


def test_whatever_order_points_are_in_the_same_is_read_and_each_gets_its_gradient():
    weight, order = weight_of((4, 20)), torch.tensor([2, 0, 1])
    sets = [held_of(weight, 3), held_of(weight, 3)]
    points = torch.tensor([0.0, 0.6, 0.9])
    with torch.no_grad():
        for held, given in zip(sets, (points, points[order]), strict=True):
            held.points.copy_(given)
    upstream = weight_of((4, 20), 1)
    read = [held(weight) for held in sets]
    for each in read:
        (each * upstream).sum().backward()
    assert torch.equal(*read)
    assert len(sets[0].points.grad.unique()) == 3
    assert torch.equal(sets[0].points.grad[order], sets[1].points.grad)
    assert sets[1].to_compressed(weight).points.tolist() == points.tolist()


def test_points_that_cross_keep_their_momentum():
    """As two of speed .05 and -.05 do that meet: a step without gradient takes each further, not both to one place."""
    weight = torch.tensor([[0.0, 0.1, 0.9, 1.0]])
    held = held_of(weight, 2, PerTensor())
    rule = CodebookConstraint({"w": held}, deals=False)
    with torch.no_grad():
        held.points.copy_(torch.tensor([0.5, 0.51]))
    optimizer = torch.optim.SGD([held.points], lr=1.0, momentum=1.0)
    wanted = [[0.5, 0.51], [0.55, 0.46], [0.6, 0.41], [0.65, 0.36]]
    for step, points in enumerate(wanted):
        rule.update(Progress(step, 4), WeightView({"w": weight}))
        assert held.active().tolist() == pytest.approx(sorted(points))
        assert held(weight).unique().tolist() == pytest.approx(sorted(points))
        held.points.grad = torch.tensor([-0.05, 0.05]) if step == 0 else torch.zeros(2)
        optimizer.step()


def test_trained_with_momentum_each_point_is_a_walk_of_its_own():
    weight, wanted = weight_of((30, 20)), weight_of((30, 20), 1)
    held = held_of(weight, 4, PerTensor())
    rule = CodebookConstraint({"w": held}, deals=False)
    rate, momentum, crossed = 0.05, 0.9, 0
    optimizer = torch.optim.SGD([held.points], lr=rate, momentum=momentum)
    low, spread = weight.min().double(), (weight.max() - weight.min()).double()
    v = ((weight.double() - low) / spread).reshape(-1, 1)
    points, speed = held.points.detach().double().clone(), torch.zeros(4).double()
    for step in range(12):
        rule.update(Progress(step, 12), WeightView({"w": weight}))
        optimizer.zero_grad()
        ((held(weight) - wanted).square().mean() / 2).backward()
        optimizer.step()
        nearest = (v - points).abs().argmin(1)
        apart = (low + spread * points[nearest] - wanted.double().reshape(-1)) / wanted.numel()
        speed = momentum * speed + torch.zeros(4).double().index_add_(0, nearest, spread * apart)
        points = points - rate * speed
        crossed += bool((points.diff() < 0).any())
        np.testing.assert_allclose(held.points.detach(), points, atol=1e-4)
    assert crossed


@pytest.mark.parametrize(
    ("norms", "counts", "wanted"),
    [
        ([1, 1, 1, 1], [4] * 4, [4, 4, 4, 4]),
        ([0, 0, 0], [4] * 3, [4, 4, 4]),
        ([1, 2, 3], [8] * 3, [6, 8, 10]),
        ([0, 1, 1], [4] * 3, [2, 5, 5]),
        ([0, 0, 1], [4] * 3, [2, 2, 8]),
        ([1e-9, 1e9], [4, 4], [2, 6]),
        ([1, 3], [4, 16], [5, 15]),
        ([0, 1, 1e6], [200] * 3, [100, 244, 256]),
        ([5], [4], [4]),
        ([1, 7], [2, 2], [2, 2]),
        ([1, 2], [3, 3], [3, 3]),
        ([1, 4], [3, 3], [2, 4]),
        ([1, 2], [256, 256], [256, 256]),
    ],
)
def test_half_of_the_points_are_dealt_in_proportion_within_bounds(norms, counts, wanted):
    assert deal_points(norms, counts) == wanted


def dealing(seed=0):
    weights = {name: weight_of((8, 20), seed + index).requires_grad_() for index, name in enumerate("abc")}
    held = {name: held_of(w, 4, room=MOST_POINTS) for name, w in weights.items()}
    return weights, CodebookConstraint(held, deals=True)


def test_points_are_dealt_anew_after_the_first_epoch():
    weights, rule = dealing()
    factors = {"a": 1.0, "b": 2.0, "c": 5.0}
    for step in range(3):
        rule.update(Progress(step, 9), WeightView(weights))
        loss = sum((held(weights[name]) * factors[name]).sum() for name, held in rule.weights.items())
        loss.backward()
    before = {name: held.points.detach().clone() for name, held in rule.weights.items()}
    norms = [float(held.norm) for held in rule.weights.values()]
    assert norms == pytest.approx([3 * 160**0.5 * factor for factor in factors.values()], rel=1e-5)
    rule.sync(lambda value: value.clone())
    # Evaluation and the checkpoint still have the points of the first epoch.
    assert all(torch.equal(held.points, before[name]) for name, held in rule.weights.items())
    rule.update(Progress(3, 9), WeightView(weights))
    assert [int(held.count) for held in rule.weights.values()] == deal_points(norms, [4, 4, 4]) == [3, 3, 6]
    for name, held in rule.weights.items():
        alone = held_of(weights[name], int(held.count), room=MOST_POINTS)
        assert torch.equal(held.points, alone.points)
    # Once: what later epochs say changes nothing.
    for held in rule.weights.values():
        held(weights["a"]).sum().backward()
        assert float(held.norm) in norms
    rule.sync(lambda value: value * 100)
    rule.update(Progress(6, 9), WeightView(weights))
    assert [int(held.count) for held in rule.weights.values()] == [3, 3, 6]


def test_a_stage_that_ends_before_points_are_dealt_keeps_those_it_has_trained():
    weights, rule = dealing()
    rule.update(Progress(0, 3), WeightView(weights))
    sum((held(weights[name]) * 4**at).sum() for at, (name, held) in enumerate(rule.weights.items())).backward()
    with torch.no_grad():
        for held in rule.weights.values():
            held.points[1] += 0.03
    rule.sync(lambda value: value.clone())
    assert {int(held.wanted) for held in rule.weights.values()} != {4}
    trained = {name: held.active().detach().clone() for name, held in rule.weights.items()}
    rule.finalize(WeightView(weights))
    for step in range(2):  # of the next stage
        rule.update(Progress(step, 2), WeightView(weights))
        norms = [float(held.norm) for held in rule.weights.values()]
        sum(held(weights[name]).sum() for name, held in rule.weights.items()).backward()
        assert [float(held.norm) for held in rule.weights.values()] == norms
        rule.sync(lambda value: value.clone())
    assert all(torch.equal(held.active(), trained[name]) for name, held in rule.weights.items())


def test_what_is_dealt_the_same_number_keeps_its_points():
    weights, rule = dealing()
    rule.update(Progress(0, 9), WeightView(weights))
    sum(held(weights[name]).sum() for name, held in rule.weights.items()).backward()
    with torch.no_grad():
        for held in rule.weights.values():
            held.points[1] += 0.03
    moved = {name: held.active().detach().clone() for name, held in rule.weights.items()}
    rule.sync(lambda value: value.clone())
    rule.update(Progress(3, 9), WeightView(weights))
    assert all(torch.equal(held.active(), moved[name]) for name, held in rule.weights.items())


def test_ranks_deal_alike():
    rules = [dealing()[1], dealing()[1]]
    weights = dealing()[0]
    for rank, rule in enumerate(rules):
        rule.update(Progress(0, 9), WeightView(weights))
        for factor, (name, held) in enumerate(rule.weights.items()):
            (held(weights[name]) * (factor + 1) ** (2 * rank)).sum().backward()
    norms = [[held.norm.clone() for held in rule.weights.values()] for rule in rules]
    means = [(one + other) / 2 for one, other in zip(*norms, strict=True)]
    for rule in rules:
        given = iter(means)
        rule.sync(lambda value, given=given: next(given).clone())
        rule.update(Progress(1, 9), WeightView(weights))
    counts = [[int(held.count) for held in rule.weights.values()] for rule in rules]
    assert counts[0] == counts[1]
    assert len(set(counts[0])) > 1


def test_in_evaluation_nothing_is_watched():
    weights, rule = dealing()
    rule.update(Progress(0, 9), WeightView(weights))
    rule.eval()
    for name, held in rule.weights.items():
        held(weights[name]).sum().backward()
        assert float(held.norm) == 0
