"""Levels of a real network: solved once, put together, predicted, judged, packed."""

import numpy as np
import pytest
import torch
from tests.methods.toys import Net, data
from torch import nn

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.search.goal import Goal
from attar._src.search.layerwise.facts import layer_facts
from attar._src.search.layerwise.levels import SolvedLevels
from attar._src.search.layerwise.loop import try_points
from attar._src.search.layerwise.problem import LayerwiseTask
from attar._src.search.layerwise.quick import QuickTrials
from attar._src.search.layerwise.times import in_milliseconds
from attar._src.search.samplers.integer_program import IntegerProgram
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo

LABELLED = Labelled(given=True, classes=True)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net, (x, y) = Net(width=16), data(384)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[:256]), y[:256]).backward()
        optimizer.step()
    return net.eval(), x, y


@pytest.fixture(scope="module")
def model(trained):
    net, x, _ = trained
    return CompressedModel.of(trace(net, (x[:2],)))


@pytest.fixture(scope="module")
def solved(model, trained):
    _, x, _ = trained
    return SolvedLevels.solve(
        model,
        PostTrainingQuantize(scales="gptq"),
        CalibrationInputs(((x[:64],), (x[64:128],))),
        FileInfo(),
        bits=(2, 4, 8),
        sparsities=(0.0, 0.5, 0.97),
        measured=CalibrationInputs(((x[:64],),)),
    )


@pytest.fixture(scope="module")
def held(trained):
    _, x, y = trained
    return CalibrationInputs(tuple((part,) for part in x[256:].split(16)), targets=tuple(y[256:].split(16)))


def mixed(problem):
    return problem.point({each.name: problem.choices[(2 * i) % 9] for i, each in enumerate(problem.layers)})


def uniform(problem, choice):
    return problem.point({each.name: choice for each in problem.layers})


def test_zeros_and_bits_are_those_of_the_point(solved):
    problem = solved.problem
    tensors = open_artifact(solved.packed(mixed(problem)))
    for name, (bits, share) in problem.chosen(mixed(problem)).items():
        value = np.asarray(solved.candidates[name][solved.levels(mixed(problem))[name]].tensors[name].dense())
        assert np.array_equal(value, tensors.tensor(name).dense())
        # Rounding makes more zeros, never fewer.
        assert (value == 0).mean() >= round(share * value.size) / value.size
        assert len(np.unique(value.reshape(len(value), -1)[0])) <= 2**bits
    assert all(own[2, 0.5] > own[8, 0.0] for own in problem.errors.values())
    assert all(own[2, 0.5] < own[8, 0.0] for own in problem.costs.values())


def test_predicted_bytes_are_near_those_of_the_file(solved):
    for point in (mixed(solved.problem), uniform(solved.problem, (4, 0.5)), uniform(solved.problem, (8, 0.0))):
        assert len(solved.packed(point)) == pytest.approx(solved.problem.cost(point), rel=0.03)


def test_a_quick_trial_loses_what_the_decoded_file_loses(solved, held, trained):
    net, x, y = trained
    trials = QuickTrials(solved, held, LABELLED)
    accuracy = float((net(x[256:]).argmax(1) == y[256:]).float().mean())
    for point in (mixed(solved.problem), uniform(solved.problem, (2, 0.5)), uniform(solved.problem, (8, 0.0))):
        found = trials.figures(point)
        session = attar.Session(open_artifact(solved.packed(point)))
        outputs = session.run({session.inputs[0].name: x[256:].numpy()})[session.main_output]
        lost = 100 * (accuracy - float((outputs.argmax(1) == y[256:].numpy()).mean()))
        assert found.drop == pytest.approx(lost, abs=1e-6)
        assert found.examples == 128
        # And the network is as it was for the next.
        assert trials.figures(point) == found


def test_a_trial_ends_where_the_bound_is_out_of_reach(solved, held):
    problem = solved.problem
    worst = uniform(problem, (2, 0.97))
    full, short = (QuickTrials(solved, held, LABELLED, goal).figures for goal in (None, Goal(max_drop=0.5)))
    assert full(worst).drop > 20
    assert short(worst).examples < 128
    assert short(worst).drop > 0.5
    assert short(uniform(problem, (8, 0.0))).examples == 128


def test_a_search_goes_on_with_known_trials(solved, held):
    problem, goal = solved.problem, Goal(max_drop=2)
    trials = QuickTrials(solved, held, LABELLED, goal)

    def start():
        return IntegerProgram().start(LayerwiseTask(problem.space, goal, 0, 8, problem=problem))

    first = uniform(problem, (8, 0.0))
    whole = [*try_points(start(), trials.figures, 8, first=[first])]
    assert whole[0].point == first
    assert [*try_points(start(), trials.figures, 8, first=[first], known=whole[:5])] == whole[5:]
    held_best = min(each.figures.file_bytes for each in whole if goal.holds(each.figures))
    assert held_best < 0.8 * whole[0].figures.file_bytes


def test_times_are_measured_layer_by_layer_and_predicted(solved, trained, held):
    _, x, _ = trained
    timed = in_milliseconds(solved.problem, solved.packed, (x[:1],), seconds=0.02)
    assert timed.unit == "ms"
    assert {name: {*own} for name, own in timed.costs.items()} == {n: {*own} for n, own in solved.problem.costs.items()}
    found = QuickTrials(solved, held, LABELLED, times=timed).figures(mixed(solved.problem))
    assert found.ms == timed.cost(mixed(solved.problem))
    assert found.ms > 0
    assert found.file_bytes == round(solved.problem.cost(mixed(solved.problem)))


def test_facts_of_layers(model):
    names = PostTrainingQuantize().chosen(model)
    facts = layer_facts(model, names)
    state = model.state()
    assert {each.name for each in facts} == set(names)
    for each in facts:
        shape = state[each.name].shape
        assert each.elements == state[each.name].numel()
        assert each.outputs == shape[0]
        assert each.kernel == (shape[-1] if len(shape) == 4 else 1)
        assert each.macs == each.elements * each.positions


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bits": (1, 4)}, "whole numbers from 2 to 8"), ({"sparsities": (0.5, 1.0)}, "shares from 0 to below 1")],
)
def test_levels_out_of_range_are_refused(model, trained, options, message):
    _, x, _ = trained
    with pytest.raises(SpecError, match=message):
        SolvedLevels.solve(model, PostTrainingQuantize(), CalibrationInputs(((x[:8],),)), FileInfo(), **options)
