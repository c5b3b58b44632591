"""Whole stages under every rule and every term that has a state: cut and gone on with, and on two ranks."""

import hashlib
from dataclasses import replace

import pytest
import torch
from tests.contracts.test_constraints import FIELDS, GRIDS
from tests.contracts.test_objectives import REGULARISERS
from tests.methods.toys import ArrayFeed, context, data, fresh, same
from tests.two_ranks import said_by_both

from attar._src.methods.finetune import Finetune
from attar._src.methods.quantize.qat.freeze import FreezeConstraint
from attar._src.methods.rules import CONSTRAINTS
from attar._src.methods.teachers.teacher import live_teacher


class Stop(BaseException):
    """The plug is pulled."""


#: What a stage minimises and holds to, by what is looked at: all rules, and the terms that have a state.
STAGES = {
    # The second case of each grid: solvers, groups, stochastic rounding, points dealt anew.
    **{name: ("cross_entropy", [{"name": name, **FIELDS[name][1]}]) for name in GRIDS},
    "quantize activations": ("cross_entropy", [{"name": "quantize", "bits": 4, "activations": 8, "freeze": 1.0}]),
    "lsq offset": ("cross_entropy", [{"name": "lsq", "bits": 3, "offset": True}]),
    "lsq activations": ("cross_entropy", [{"name": "lsq", "bits": 2, "through": [4, 3], "activations": 4}]),
    "prune": ("cross_entropy", [{"name": "prune", "sparsity": 0.5, "every": 1}]),
    "prune movement": ("cross_entropy", [{"name": "prune", "sparsity": 0.5, "score": "movement", "unit": "2x1"}]),
    "prune taylor": ("cross_entropy", [{"name": "prune", "unit": "1:2", "score": "taylor", "shape": "linear"}]),
    "regrow": ("cross_entropy", [{"name": "prune", "sparsity": 0.7, "shape": "once", "regrow": 0.3, "every": 1}]),
    "rewind": ("cross_entropy", [{"name": "prune", "sparsity": 0.7, "shape": "steps", "rewind": 0.1, "end": 1.0}]),
    "dense sparse dense": (
        "cross_entropy",
        [{"name": "prune", "sparsity": 0.5, "shape": "dense_sparse_dense", "begin": 0.2, "end": 0.6}],
    ),
    "lasso": (["cross_entropy", {"name": "lasso", "unit": "row"}], []),
    "prune activations": ("cross_entropy", [{"name": "prune_activations", "sparsity": 0.3, "freeze": 1.0}]),
    "normalize": ("cross_entropy", [{"name": "normalize"}, {"name": "lsq", "bits": 3}]),
    "freeze": ("cross_entropy", [{"name": "lsq", "bits": 2}, {"name": "freeze", "threshold": 0.2, "momentum": 0.15}]),
    "low_precision": ("cross_entropy", [{"name": "lsq", "bits": 2}, {"name": "low_precision"}]),
    "rate": (["cross_entropy", {"name": "rate", "bits": 1.0}], [{"name": "lsq", "bits": 3}]),
    "rate of a file": (["cross_entropy", {"name": "rate", "file": 11.0}], [{"name": "lsq", "bits": 3}]),
    "damping": (["cross_entropy", {"name": "damping"}], [{"name": "lsq", "bits": 3}]),
    # Its projector is trained too.
    "hint": (["cross_entropy", {"name": "hint", "teacher": "big", "layers": {"norm1": "first"}}], []),
}


def stage_of(name, epochs):
    """A stage whose weights swing between codes enough for every rule to act."""
    objective, constraints = STAGES[name]
    optimizer = {"name": "sgd", "lr": 0.3 if name == "freeze" else 0.05}
    return Finetune(epochs=epochs, batch=8, objective=objective, constraints=constraints, optimizer=optimizer)


def taught(lent):
    """The same with a teacher."""
    return replace(lent, teachers={"big": live_teacher(fresh(2), lent.fabric)})


def test_every_rule_and_regulariser_is_here():
    objectives = [each for terms, _ in STAGES.values() for each in ([terms] if isinstance(terms, str) else terms)]
    terms = {each if isinstance(each, str) else each["name"] for each in objectives}
    rules = {each["name"] for _, rules in STAGES.values() for each in rules}
    assert rules == set(CONSTRAINTS)
    assert terms > REGULARISERS


@pytest.mark.parametrize("name", STAGES)
def test_going_on_in_the_middle_gives_the_same_bytes(name, tmp_path, one_thread):
    stage, rows = stage_of(name, 3), []

    def pull(row):
        rows.append(row)
        if len(rows) == 2:
            raise Stop

    lent, cut, again = (
        taught(context(tmp_path / place, count=64, log=log))
        for place, log in (("whole", None), ("again", pull), ("again", None))
    )
    whole = fresh()
    stage.run(whole, lent)
    with pytest.raises(Stop):
        stage.run(fresh(1), cut)
    torch.manual_seed(99)
    stage.run(fresh(1), again)
    # Weights, constraints, terms and optimizer.
    assert same(dict(lent.store.latest().tensors), dict(cut.store.latest().tensors))
    if name == "codebook":
        assert len({int(held.count) for held in whole.constraints[0].weights.values()}) > 1
    if name == "freeze":
        held = next(each for each in whole.constraints if isinstance(each, FreezeConstraint)).weights.values()
        assert 0.02 < sum(int(each.frozen.sum()) for each in held) / sum(each.frozen.numel() for each in held) < 0.9


def held_on_rank(fabric, folder):
    """By name of a stage digests of all that it leaves on a rank, and the points and norms of the codebook."""
    rank, said = fabric.global_rank, {}
    x, y = data(64)
    # The ranks see inputs of different sizes: ranges that are not brought together differ.
    x = x * torch.linspace(0.5, 3, 64)[:, None, None, None]
    mine = slice(32 * rank, 32 * rank + 32)
    lent = replace(context(folder / "alone"), fabric=fabric, feed=lambda batch: ArrayFeed(x[mine], y[mine], 16))
    lent = taught(lent)
    for name in STAGES:
        learner = fresh()
        stage_of(name, 2).run(learner, replace(lent, store=type(lent.store)(folder / name)))
        parts = [learner.module.state_dict(), *(constraint.state_dict() for constraint in learner.constraints)]
        found = {f"{at}.{key}": value for at, part in enumerate(parts) for key, value in part.items()}
        said[name] = {key: hashlib.blake2b(value.numpy().tobytes()).hexdigest() for key, value in found.items()}
        if name == "codebook":
            held = learner.constraints[0].weights.values()
            said["counts"] = [int(each.count) for each in held]
            said["norms"] = [float(each.norm) for each in held]
    return said


def test_two_ranks_end_alike(tmp_path):
    first, second = said_by_both("tests.contracts.test_stages:held_on_rank", tmp_path, first="tests.methods.toys:fresh")
    assert set(STAGES) < set(first)
    for name in first:
        assert first[name] == second[name], name
    assert len(set(first["counts"])) > 1
    assert all(norm > 0 for norm in first["norms"])
