import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.toys import data, fresh

from attar._src.core.errors import SpecError
from attar._src.core.tensors import Dense, Sparse
from attar._src.methods.prune.masks import Mask, prune_below, prune_to_count, sparsity
from attar._src.methods.prune.prune import Prune
from attar._src.methods.prune.scores import SCORES
from attar._src.methods.prune.shapes import SHAPES
from attar._src.work.constraint import Progress


def attached(learner=None, **fields):
    learner = learner or fresh()
    learner.attach(Prune(**fields).attach(learner))
    return learner, learner.constraints[0]


def walk(learner, steps):
    reached = []
    for step in range(steps):
        learner.update(Progress(step, steps))
        reached.append(learner.constraints[0].report()["sparsity"])
    learner.finalize()
    return [*reached, learner.constraints[0].report()["sparsity"]]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, -1.0, 1.0, 2.0, 1e-40, 3.0]), min_size=1, max_size=40),
    share=st.floats(0, 1),
)
def test_exactly_as_many_as_asked_whatever_the_ties(values, share):
    weight = torch.tensor(values)
    mask = Mask(torch.ones_like(weight))
    count = round(share * len(values))
    prune_to_count({"w": mask}, {"w": weight.abs()}, count)
    assert mask.pruned == count
    pruned, left = weight[~mask.mask].abs(), weight[mask.mask].abs()
    assert not len(pruned) or not len(left) or pruned.max() <= left.min()
    ties = np.flatnonzero(weight.abs().numpy() == (pruned.max().item() if len(pruned) else -1))
    gone = ~mask.mask.numpy()[ties]
    assert list(gone) == sorted(gone, reverse=True)


def test_what_was_pruned_stays_pruned():
    mask, weight = Mask(torch.ones(6)), torch.tensor([1.0, 2, 3, 4, 5, 6])
    prune_to_count({"w": mask}, {"w": weight.abs()}, 2)
    weight[:2] = 100
    prune_to_count({"w": mask}, {"w": weight.abs()}, 3)
    assert mask.mask.tolist() == [False, False, False, True, True, True]
    weight[4] = 0.1
    prune_below({"w": mask}, {"w": weight.abs()}, 0.5)
    assert mask.mask.tolist() == [False, False, False, True, False, True]


def test_several_weights_together_share_one_threshold():
    masks = {"a": Mask(torch.ones(4)), "b": Mask(torch.ones(2, 3))}
    scores = {"a": torch.tensor([1.0, 9, 9, 9]), "b": torch.tensor([[1.0, 1, 1], [2, 9, 9]])}
    prune_to_count(masks, scores, 5)
    assert masks["a"].mask.tolist() == [False, True, True, True]
    assert masks["b"].mask.tolist() == [[False, False, False], [False, True, True]]
    assert sparsity(masks) == 0.5


def test_the_gradient_is_masked_like_the_weight():
    mask, weight = Mask(torch.ones(4)), torch.tensor([1.0, 2, 3, 4], requires_grad=True)
    prune_to_count({"w": mask}, {"w": weight.detach().abs()}, 2)
    (mask(weight) * torch.tensor([5.0, 6, 7, 8])).sum().backward()
    assert weight.grad.tolist() == [0, 0, 7, 8]
    assert mask(weight).tolist() == [0, 0, 3, 4]


@pytest.mark.parametrize(("zeros", "kind"), [(0, Dense), (3, Dense), (4, Sparse), (99, Sparse)])
def test_it_is_stored_as_mask_and_values_where_that_is_shorter(zeros, kind):
    weight = torch.randn(100) + 10
    weight[:zeros] = 0
    stored = Mask(weight).to_compressed(weight)
    assert type(stored) is kind
    assert np.array_equal(stored.dense(), weight.numpy())
    parts = [stored.mask.size / 8, stored.values.data.nbytes] if kind is Sparse else [stored.data.nbytes]
    assert sum(parts) <= weight.numel() * 4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"shape": "once"}, [0.8] * 9),
        ({"shape": "once", "begin": 0.5}, [0] * 4 + [0.8] * 5),
        ({"shape": "steps", "steps": 4, "end": 1.0}, [0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8, 0.8]),
        ({"shape": "steps", "steps": 2, "begin": 0.25, "end": 0.75}, [0, 0, 0.4, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8]),
        ({"shape": "cubic", "every": 1, "end": 0.5}, [0.8 * (1 - (1 - u / 4) ** 3) for u in range(4)] + [0.8] * 5),
        ({"shape": "cubic", "every": 1, "end": 1.0}, [0.8 * (1 - (1 - u / 8) ** 3) for u in range(9)]),
        ({"shape": "cubic", "every": 3, "end": 0.5}, [0, 0, 0, *[0.8 * (1 - 0.25**3)] * 1, *[0.8] * 5]),
        ({"shape": "linear", "every": 1, "end": 1.0}, [0.1 * u for u in range(9)]),
        ({"shape": "exponential", "every": 1, "end": 1.0}, [1 - 0.2 ** (u / 8) for u in range(9)]),
        ({"shape": "dense_sparse_dense", "begin": 0.25, "end": 0.75}, [0, 0, *[0.8] * 4, 0, 0, 0]),
    ],
)
def test_the_way_to_the_sparsity(fields, expected):
    learner, _ = attached(sparsity=0.8, layers=("second",), **fields)
    assert walk(learner, 8) == pytest.approx(expected, abs=1.5 / 576)


@pytest.mark.parametrize("goal", [0.5, 0.37, 0.99])
def test_each_weight_has_exactly_its_share_of_zeros_at_the_end(goal):
    learner, _ = attached(sparsity=goal, keep=("head",))
    walk(learner, 5)
    for name in ("first.weight", "second.weight"):
        weight = learner.tensor(name)
        assert int((weight == 0).sum()) == round(goal * weight.numel())
    assert (learner.tensor("head.weight") != 0).all()


def test_a_global_sparsity_is_that_of_all_together():
    learner, constraint = attached(sparsity=0.7, scope="global", shape="once")
    with torch.no_grad():
        learner.tensor("second.weight").mul_(0.5)
    walk(learner, 2)
    weights = [learner.tensor(name).detach() for name in learner.weights]
    assert sum(int((w == 0).sum()) for w in weights) == round(0.7 * sum(w.numel() for w in weights))
    pruned = [float((w == 0).float().mean()) for w in weights]
    assert pruned[1] > pruned[0]
    assert constraint.report() == {"sparsity": pytest.approx(0.7, abs=1e-3)}


def test_overrides_have_a_sparsity_of_their_own():
    learner, constraint = attached(sparsity=0.5, scope="global", shape="once", overrides={"head": 0.25, "first": 0})
    walk(learner, 2)
    assert int((learner.tensor("head.weight") == 0).sum()) == 8
    assert (learner.tensor("first.weight") != 0).all()
    assert int((learner.tensor("second.weight") == 0).sum()) == 288
    kept = attached(sparsity=0.5, keep=("head",))[1]
    assert set(kept.weights) == set(constraint.weights) - {"head.weight"}


def test_a_threshold_cuts_what_is_below_it():
    learner, _ = attached(threshold=0.1, shape="once", layers=("second",))
    before = learner.tensor("second.weight").detach().clone()
    walk(learner, 3)
    after = learner.tensor("second.weight").detach()
    assert torch.equal(after == 0, before.abs() < 0.1)
    assert torch.equal(after[after != 0], before[before.abs() >= 0.1])


def test_a_later_stage_goes_on_from_the_sparsity_that_is_there():
    learner, first = attached(sparsity=0.5, shape="once", layers=("second",))
    walk(learner, 2)
    zeros = learner.tensor("second.weight").detach() == 0
    learner.attach(Prune(sparsity=0.75, every=1, end=1.0, layers=("second",)).attach(learner))
    assert first not in learner.constraints
    reached = walk(learner, 4)
    assert reached[0] == pytest.approx(0.5, abs=0.01)
    assert reached == sorted(reached)
    assert reached[-1] == pytest.approx(0.75)
    assert (learner.tensor("second.weight").detach()[zeros] == 0).all()


def test_masks_of_an_earlier_stage_hold_in_the_next():
    learner, _ = attached(sparsity=0.5, layers=("second",))
    walk(learner, 4)
    assert walk(learner, 4) == [0.5] * 5


def test_what_falls_below_a_threshold_later_is_left():
    learner, _ = attached(threshold=0.1, shape="once", layers=("second",))
    walk(learner, 3)
    weight = learner.tensor("second.weight")
    zeros = int((weight == 0).sum())
    with torch.no_grad():
        weight *= 0.5
    walk(learner, 3)
    assert 0 < zeros == int((weight == 0).sum())


def test_a_weight_of_zeros_is_not_taken_for_pruned():
    learner = fresh()
    with torch.no_grad():
        learner.tensor("head.weight").zero_()
    _, constraint = attached(learner, sparsity=0.5)
    assert constraint.weights["head.weight"].mask.all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 0.99, "layers": ("head",)}, r"'head.weight': sparsity=0.99 leaves 0 of its 32 .* <= 0.968"),
        ({"threshold": 1e6, "shape": "once"}, r"'first.weight': threshold=1e\+06 leaves 0 of its 144 weights"),
        ({"sparsity": 0.9, "scope": "global", "shape": "once"}, r"'head.weight': sparsity=0.9 leaves 0 of its 32"),
    ],
)
def test_a_weight_that_would_lose_everything_is_refused(fields, message):
    learner = fresh()
    with torch.no_grad():
        learner.tensor("head.weight").mul_(1e-3)
    with pytest.raises(SpecError, match=message):
        walk(attached(learner, **fields)[0], 2)


def descend(learner, steps, lr=0.1):
    """Train by plain descent, as a stage does: constraints before each step."""
    graph, (x, y) = learner.graph(train=True), data(32)
    masks = []
    for step in range(steps):
        learner.update(Progress(step, steps))
        masks.append({name: mask.mask.clone() for name, mask in learner.constraints[0].weights.items()})
        torch.nn.functional.cross_entropy(graph(x), y).backward()
        with torch.no_grad():
            for parameter in learner.module.parameters():
                if parameter.grad is not None:
                    parameter -= lr * parameter.grad
                    parameter.grad = None
    return masks


@pytest.mark.parametrize("shape", [*SHAPES])
def test_every_shape_begins_and_ends_where_it_should(shape):
    fields = {"begin": 0.25, "end": 0.75, "every": 1, "layers": ("second",), "shape": shape}
    learner, constraint = attached(sparsity=0.7, **fields)
    shares = [constraint.rule.share(step / 100) for step in range(101)]
    assert shares[24] == 0
    assert shares[75:] == [1] * 26
    assert shares == sorted(shares)
    reached = walk(learner, 8)
    weight = learner.tensor("second.weight").detach()
    wanted = 0 if SHAPES[shape].releases else round(0.7 * 576)
    assert int((weight == 0).sum()) == round(0.7 * 576)
    assert round(reached[-1] * 576) == wanted


@pytest.mark.parametrize("unit", ["weight", "2:4", "1:4", "4x1", "2x2"])
@pytest.mark.parametrize("score", [name for name in SCORES if SCORES[name].needs != "inputs"])
def test_every_score_and_unit_prunes_exactly_while_training(score, unit):
    fields = {"sparsity": 0.5} if ":" not in unit else {}
    learner, _ = attached(unit=unit, score=score, every=2, layers=("second",), **fields)
    masks = descend(learner, 8)
    learner.finalize()
    zero = learner.tensor("second.weight").detach() == 0
    assert int(zero.sum()) == round((0.75 if unit == "1:4" else 0.5) * 576)
    for before, after in pairwise(masks):
        assert not (after["second.weight"] & ~before["second.weight"]).any()
    if ":" in unit:
        assert ((~zero).movedim(1, -1).unflatten(-1, (2, 4)).sum(-1) == int(unit[0])).all()


def test_patterns_that_do_not_fit_are_left_out_and_told():
    learner, constraint = attached(unit="2:4")
    assert set(constraint.weights) == {"second.weight", "head.weight"}
    assert learner.warnings == ["prune: 'first.weight' is not pruned: its 2 input channels are no multiple of 4"]


def test_movement_keeps_what_moves_away_from_zero():
    learner, constraint = attached(
        sparsity=0.5, score="movement", shape="once", begin=0.9, end=0.95, layers=("second",)
    )
    mask = constraint.weights["second.weight"]
    weight, graph, (x, y) = learner.tensor("second.weight"), learner.graph(train=True), data(32)
    wanted = torch.zeros_like(weight)
    for step in range(4):
        learner.update(Progress(step, 5))
        torch.nn.functional.cross_entropy(graph(x), y).backward()
        wanted -= weight.detach() * weight.grad
        with torch.no_grad():
            weight -= 0.1 * weight.grad
            weight.grad = None
    torch.testing.assert_close(mask.movement, wanted)
    learner.finalize()
    assert wanted[~mask.mask].max() <= wanted[mask.mask].min()


def test_taylor_prunes_by_squares_of_the_gradients_of_steps():
    """Gradients of steps that cancel say no less."""
    learner, constraint = attached(sparsity=0.5, score="taylor", shape="once", begin=0.9, end=0.95, layers=("second",))
    mask = constraint.weights["second.weight"]
    weight, graph, (x, y) = learner.tensor("second.weight"), learner.graph(train=True), data(32)
    seen = torch.zeros_like(weight)
    for step in range(4):
        learner.update(Progress(step, 5))
        (torch.nn.functional.cross_entropy(graph(x), y) * (-1) ** step).backward()
        seen += weight.grad.square()
        weight.grad = None
    assert mask.gradient.abs().max() < 1e-5
    scores = weight.detach().square() * seen
    learner.finalize()
    assert scores[~mask.mask].max() <= scores[mask.mask].min()


def test_regrowth_keeps_the_sparsity_and_takes_the_largest_gradients():
    fields = {"shape": "once", "regrow": 0.4, "every": 4, "end": 1.0, "layers": ("second",)}
    learner, constraint = attached(sparsity=0.8, **fields)
    masks = [each["second.weight"] for each in descend(learner, 12, lr=0.01)]
    assert {int((~mask).sum()) for mask in masks[1:]} == {round(0.8 * 576)}
    changes = [int((after & ~before).sum()) for before, after in pairwise(masks[1:])]
    assert [place + 1 for place, count in enumerate(changes, 1) if count] == [4, 8]
    left = 576 - round(0.8 * 576)
    u = [4 / 12, 8 / 12]
    # Those dropped just now may come back, as their gradients are known, too.
    assert all(
        0.3 * wanted <= count <= wanted
        for count, wanted in zip(
            (changes[2], changes[6]), (round(0.2 * (1 + math.cos(math.pi * each)) * left) for each in u), strict=True
        )
    )
    assert constraint.report()["sparsity"] == pytest.approx(0.8, abs=1e-3)


def test_regrowth_ends_with_its_stage():
    """Guards what is trained later: masks of an earlier stage hold, whatever its rule did to them."""
    learner, constraint = attached(sparsity=0.5, shape="once", regrow=0.4, every=2, end=1.0, layers=("second",))
    masks = [each["second.weight"] for each in descend(learner, 6)]
    assert any(not torch.equal(before, after) for before, after in pairwise(masks[1:]))
    learner.finalize()
    held = constraint.weights["second.weight"].mask.clone()
    assert all(torch.equal(each["second.weight"], held) for each in descend(learner, 6))


def test_ranks_exchange_by_their_mean_gradient(monkeypatch):
    """Guards ranks that drift apart: each sees other examples."""
    learner, constraint = attached(sparsity=0.5, shape="once", regrow=0.5, every=1, end=1.0, layers=("second",))
    mask = constraint.weights["second.weight"]
    learner.update(Progress(0, 10))
    before, mean = mask.mask.clone(), torch.rand(mask.mask.shape)
    mask.gradient.copy_(torch.rand(mask.mask.shape))
    mask.steps.fill_(1)
    monkeypatch.setattr("attar._src.methods.prune.masks._over_ranks", lambda _: mean)
    learner.update(Progress(1, 10))
    assert mean[mask.mask & ~before].min() >= mean[~mask.mask & ~before].max()


def test_what_grows_again_starts_from_zero():
    learner, constraint = attached(sparsity=0.5, shape="once", regrow=0.5, every=1, end=1.0, layers=("second",))
    mask = constraint.weights["second.weight"]
    learner.update(Progress(0, 10))
    before = mask.mask.clone()
    mask.gradient.copy_(torch.rand(mask.mask.shape))
    mask.steps.fill_(1)
    expected = mask.gradient.clone()
    learner.update(Progress(1, 10))
    grown = mask.mask & ~before
    assert grown.any()
    assert (learner.tensor("second.weight").detach()[grown] == 0).all()
    assert expected[grown].min() >= expected[~mask.mask & ~before].max()


def test_rewinding_goes_back_to_early_values_after_each_step():
    learner, constraint = attached(sparsity=0.6, shape="steps", steps=2, begin=0.5, end=1.0, rewind=0.2)
    early, seen = {}, []
    graph, (x, y) = learner.graph(train=True), data(32)
    for step in range(10):
        masks = {name: mask.pruned for name, mask in constraint.weights.items()}
        learner.update(Progress(step, 10))
        values = {name: each.detach().clone() for name, each in learner.module.named_parameters()}
        if step == 2:
            early = values
        if {name: mask.pruned for name, mask in constraint.weights.items()} != masks:
            seen.append(step)
            assert all(torch.equal(values[name], early[name]) for name in values)
        torch.nn.functional.cross_entropy(graph(x), y).backward()
        with torch.no_grad():
            for parameter in learner.module.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    assert seen == [5, 8]


def test_masks_end_in_dense_sparse_dense_and_weights_grow_from_zero():
    learner, _ = attached(sparsity=0.5, shape="dense_sparse_dense", end=0.5, layers=("second",))
    masks = [each["second.weight"] for each in descend(learner, 8)]
    learner.finalize()
    assert [int((~mask).sum()) for mask in masks] == [288] * 4 + [0] * 4
    gone = ~masks[0]
    assert (learner.tensor("second.weight").detach()[gone] != 0).any()


@pytest.mark.parametrize("end", [0.5, 0.99])
def test_dense_sparse_dense_ends_without_masks_wherever_it_lets_go(end):
    """Guards an ``end`` behind the last step, after which the stage would end with zeros."""
    learner, constraint = attached(sparsity=0.5, shape="dense_sparse_dense", end=end, layers=("second",))
    masks = [each["second.weight"] for each in descend(learner, 8)]
    learner.finalize()
    assert int((~masks[3]).sum()) == 288
    assert masks[-1].all()
    assert constraint.report()["sparsity"] == 0
    assert (learner.tensor("second.weight").detach()[~masks[3]] != 0).any()


@pytest.mark.parametrize("fields", [{"threshold": 0.1}, {"sparsity": 0.5}, {"sparsity": 0.5, "scope": "global"}])
def test_weights_that_are_no_numbers_are_refused(fields):
    """Guards comparisons with NaN, which are false: it would be pruned as if it were small."""
    learner, _ = attached(**fields)
    with torch.no_grad():
        learner.tensor("second.weight")[0, 0, 0, 0] = torch.nan
    with pytest.raises(SpecError, match=r"prune at 'second.weight': the score l1 is not finite; look at its weights"):
        walk(learner, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 50}, "50 is no share, which is less than 1; write 0.5 for 50 %"),
        ({"sparsity": 0.5, "overrides": {"head": 1.5}}, "write 0.5 for half"),
        ({"sparsity": -0.5}, "-0.5 is no share, which is not below 0"),
        ({}, "one of the two: sparsity or threshold"),
        ({"unit": "2:4", "sparsity": 0.5}, "unit 2:4 prunes 0.5 of every weight; leave out sparsity"),
        ({"sparsity": 0.5, "score": "obs"}, "score obs sees what weights multiply, which a training does not collect"),
        ({"sparsity": 0.5, "rewind": 0.1}, "rewind goes back after each of several steps; write shape: steps"),
        ({"sparsity": 0.5, "shape": "dense_sparse_dense", "end": 1.0}, "set end below 1"),
        ({"unit": "2:4", "regrow": 0.3}, "regrow exchanges units of a whole weight"),
        ({"threshold": 0.5, "unit": "4x1"}, "threshold is for single weights"),
        ({"sparsity": 0.5, "threshold": 0.1}, "one of the two: sparsity or threshold"),
        ({"sparsity": 0.5, "begin": 0.8, "end": 0.5}, "ends at 0.5 of the stage, before it begins at 0.8"),
        ({"sparsity": 1.0}, "less than 1"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Prune(**fields)


def test_a_score_of_ones_own(tmp_path):
    path = tmp_path / "scores.py"
    path.write_text(
        "from attar.extend import WeightScore\n\n\nclass Most(WeightScore):\n    name = 'most'\n\n"
        "    def score(self, scored):\n        return -scored.value.abs()\n"
    )
    learner, _ = attached(sparsity=0.5, shape="once", score=f"{path}:Most", layers=("second",))
    before = learner.tensor("second.weight").detach().clone()
    walk(learner, 1)
    zero = learner.tensor("second.weight").detach() == 0
    assert before[zero].abs().min() >= before[~zero].abs().max()


def test_a_score_of_ones_own_sees_what_a_training_collects(tmp_path):
    """Guards scores that would read ones in place of what is not there."""
    path = tmp_path / "scores.py"
    path.write_text(
        "from attar.extend import WeightScore\n\n\nclass Seen(WeightScore):\n"
        "    name = 'seen'\n    needs = 'inputs'\n\n"
        "    def score(self, scored):\n        return scored.value.abs() * scored.known('squares')\n"
    )
    with pytest.raises(SpecError, match="Seen sees what weights multiply, which a training does not collect"):
        attached(sparsity=0.5, score=f"{path}:Seen")
