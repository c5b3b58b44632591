import numpy as np
import pytest
import torch
from tests.methods.toys import data, fresh

from attar._src.artifact.writer import pack
from attar._src.core.errors import ModelError
from attar._src.methods.prune.activations import ActivationThreshold, PruneActivations
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.rate import Rate
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import FileInfo
from attar._src.work.constraint import Progress


def held(**fields):
    return ActivationThreshold(PruneActivations(**fields), "x").train()


def test_what_is_no_larger_than_the_threshold_is_zero():
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.999, 1.0, 1.001], requires_grad=True)
    y = held(threshold=1.0)(x)
    assert torch.equal(y.detach(), torch.nn.functional.hardshrink(x.detach(), 1.0))
    y.sum().backward()
    assert x.grad.tolist() == [1, 0, 0, 0, 0, 0, 1]


def test_the_threshold_is_the_quantile():
    each = held(sparsity=0.25)
    x = torch.arange(1.0, 101.0) * torch.tensor([1.0, -1.0]).repeat(50)
    assert torch.equal(each(x), x)
    each.advance()
    assert float(each.threshold) == 25
    assert int((each(x) == 0).sum()) == 25
    each(x * 3)
    each.advance()
    assert float(each.threshold) == pytest.approx(25 + 0.05 * 50)
    each.advance()
    assert float(each.threshold) == pytest.approx(27.5)


def test_it_is_fixed_after_its_share_of_the_stage():
    learner = fresh()
    learner.attach(PruneActivations(sparsity=0.5, freeze=0.5).attach(learner))
    graph, seen = learner.graph(train=True), []
    for step in range(8):
        learner.update(Progress(step, 8))
        graph(data(16, seed=step)[0] * (step + 1))
        seen.append(learner.constraints[0].report()["threshold"])
    learner.update(Progress(7, 8))
    assert np.isnan(seen[0])
    assert len(set(seen[1:5])) == 4
    assert len(set(seen[4:])) == 1


def test_layers_say_which_values():
    learner = fresh()
    rule = PruneActivations(threshold=1.0, layers=("head",)).attach(learner)
    # The mean feeds the layer, and a mean is read from what it averages.
    assert set(rule.values) == {"mean", "relu_1", "batch_norm_1", "relu"}


def test_untrained_it_has_no_threshold_to_ship():
    learner = fresh()
    learner.attach(PruneActivations(sparsity=0.5).attach(learner))
    with pytest.raises(ModelError, match="no finite threshold"):
        learner.deployed()


def test_a_budget_is_measured_before_the_thresholds_are_known():
    learner = fresh()
    for rule in (Lsq(bits=4), PruneActivations(sparsity=0.5)):
        learner.attach(rule.attach(learner))
    learner.graph(train=True)(data(64)[0])
    for constraint in learner.constraints[1:]:
        assert all(bool(each.threshold.isnan()) for each in constraint.parametrizations)
    assert Rate(file=12).build(learner).begun.isfinite().all()
    with pytest.raises(ModelError, match="no finite threshold"):
        learner.deployed()


def test_rounded_and_pruned_values_are_the_same_in_the_file():
    learner = fresh()
    learner.attach(PruneActivations(sparsity=0.5).attach(learner))
    learner.attach(StraightThrough(activations=4).attach(learner))
    # Rounded first, whatever was attached first: what is left is on its grid, as in the file.
    assert [type(each).__name__ for each in learner.parametrizations("relu")] == [
        "ActivationGrid",
        "ActivationThreshold",
    ]
    graph = learner.graph(train=True)
    for step in range(4):
        learner.update(Progress(step, 4))
        graph(data(32, seed=step)[0])
    learner.finalize()
    piece = learner.deployed()
    places = {name for place in learner.places() for name in place.sources}
    assert {piece.main.traced.origins[name] for name in piece.main.rounded} == places
    x = data(32, seed=9)[0]
    session = Session(pack(piece.contents(FileInfo())))
    got = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
    assert np.abs(got - wanted).max() < 1e-5


@pytest.mark.parametrize("fields", [{}, {"sparsity": 0.5, "threshold": 1.0}])
def test_one_of_sparsity_and_threshold(fields):
    with pytest.raises(ValueError, match="one of the two"):
        PruneActivations(**fields)


def test_many_elements_are_looked_at_in_part():
    x = torch.rand(1 << 20, generator=torch.Generator().manual_seed(0))
    each = held(sparsity=0.3)
    each(x)
    each.advance()
    assert float(each.threshold) == pytest.approx(0.3, abs=0.01)
