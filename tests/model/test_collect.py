import pytest
import torch
from torch import nn

from attar._src.core import progress
from attar._src.core.errors import ModelError, UnknownName
from attar._src.model import collect as collecting
from attar._src.model.collect import Clip, Request, collect
from attar._src.model.statistics import ChannelMean, Histogram, InputHessian, Range, Statistic
from attar._src.model.trace import trace
from attar._src.model.weights import Window


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.two(torch.relu(self.one(torch.log(x))))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return trace(Net(), (torch.rand(2, 4),)).graph


@pytest.fixture(scope="module")
def batches():
    torch.manual_seed(1)
    return [(torch.rand(size, 4) + 0.1,) for size in (8, 8, 3)]


def hidden(graph, batches):
    """The values of ``relu``."""
    x = torch.log(torch.cat([x for (x,) in batches]))
    return torch.relu(nn.functional.linear(x, graph.one.weight, graph.one.bias)).detach()


@pytest.fixture
def passes(monkeypatch):
    """The number of times that each batch was run."""
    runs = []
    run = collecting._Recorder.run_all

    def counted(self, batches, ticks):
        runs.extend(len(batch[0]) for batch in batches)
        return run(self, batches, ticks)

    monkeypatch.setattr(collecting._Recorder, "run_all", counted)
    return runs


RANGE, SPREAD = Request(("relu",), Range), Request(("relu",), Histogram)
MEAN = Request(("log",), ChannelMean, (-1, 4))
FIRST, SECOND = Request(("log",), InputHessian, (Window(1, 4),)), Request(("relu",), InputHessian, (Window(1, 6),))


def gathered(graph, wanted, batches, **options):
    return dict(collect(graph, wanted, batches, "looking", **options))


def test_what_depends_on_nothing_takes_one_pass(graph, batches, passes):
    found = gathered(graph, {"a": [RANGE, MEAN], "b": [FIRST, SECOND]}, batches)
    assert passes == [8, 8, 3]
    assert [type(each) for each in found["a"]] == [Range, ChannelMean]
    x, seen = torch.log(torch.cat([x for (x,) in batches])), hidden(graph, batches)
    assert found["a"][0].high == seen.max()
    assert torch.allclose(torch.from_numpy(found["a"][1].mean).float(), x.mean(0))
    expected = 2 / 19 * seen.T @ seen
    assert torch.allclose(torch.from_numpy(found["b"][1].matrix[0]).float(), expected, rtol=1e-4)


def test_a_histogram_follows_its_range_while_all_batches_run_in_step(graph, batches, passes):
    found = gathered(graph, {"a": [SPREAD], "b": [FIRST, RANGE]}, batches)
    assert passes == [8, 8, 3]
    assert found["a"][0].counts.sum() == 19 * 6
    assert found["a"][0].high == found["b"][1].high


@pytest.mark.parametrize("limit", [0, 4 * 19 * 6, 4 * 19 * 10 - 1])
def test_a_histogram_takes_a_second_pass_where_the_values_of_all_batches_do_not_fit(
    limit, graph, batches, passes, monkeypatch
):
    wanted = {"a": [SPREAD], "b": [FIRST, RANGE, MEAN]}
    clips = {"log": Clip(-0.5, 0.5)}
    in_step, tried = dict(collect(graph, wanted, batches, "looking", clips=clips)), len(passes)
    outside = clips["log"].outside
    monkeypatch.setattr(collecting, "STEP_BYTES", limit)
    found = dict(collect(graph, wanted, batches, "looking", clips=clips))
    assert passes[tried:] == [8, 8, 3] * 3
    assert (found["a"][0].counts == in_step["a"][0].counts).all()
    assert (found["b"][0].matrix == in_step["b"][0].matrix).all()
    assert (found["b"][2].mean == in_step["b"][2].mean).all()
    assert clips["log"].outside == outside > 0


def test_values_of_several_sources_and_views_fit_in_step(graph, batches, passes, monkeypatch):
    # log and relu wait together; the input and the weights do not count.
    monkeypatch.setattr(collecting, "STEP_BYTES", 4 * 19 * 12)
    gathered(graph, {"a": [SPREAD]}, batches)
    assert passes == [8, 8, 3]


def test_a_range_over_two_values_is_complete_before_their_histogram(graph, batches, passes):
    gathered(graph, {"a": [Request(("log", "relu"), Histogram)], "b": [SPREAD]}, batches)
    assert passes == [8, 8, 3] * 2


def test_equal_requests_share_one_statistic(graph, batches):
    found = gathered(graph, {"a": [SPREAD, RANGE], "b": [Request(("relu",), Range)]}, batches)
    assert found["a"][1] is found["b"][0]
    assert (found["a"][0].low, found["a"][0].high) == (found["a"][1].low, found["a"][1].high)


def test_several_values_are_taken_as_one(graph, batches):
    (found,) = gathered(graph, {"a": [Request(("log", "relu"), Histogram)]}, batches)["a"]
    log, relu = gathered(graph, {"a": [Request(("log",), Range), RANGE]}, batches)["a"]
    assert (found.low, found.high) == (min(log.low, relu.low), max(log.high, relu.high))
    assert found.counts.sum() == 19 * 10


def test_a_pass_for_each_block_where_memory_is_short(graph, batches, passes):
    wanted = {"first": [FIRST], "second": [SECOND], "again": [SECOND], "none": []}
    order = [(key, len(passes)) for key, _ in collect(graph, wanted, batches, "looking", memory=8 * 36)]
    # Without requests before any pass; each matrix as soon as it is complete; what is there already in no block more.
    assert order == [("none", 0), ("first", 3), ("second", 6), ("again", 6)]


def test_the_blocks_do_not_change_what_is_found(graph, batches):
    wanted = {"a": [FIRST, SPREAD], "b": [SECOND, MEAN], "c": [SPREAD]}
    one, many = (gathered(graph, wanted, batches, memory=memory) for memory in (1 << 30, 1))
    for key in wanted:
        for a, b in zip(one[key], many[key], strict=True):
            assert a is not b
    assert (one["a"][0].matrix == many["a"][0].matrix).all()
    assert (one["a"][1].counts == many["c"][0].counts).all()
    assert (one["b"][1].mean == many["b"][1].mean).all()


def test_a_value_that_is_not_finite_is_named(graph):
    with pytest.raises(ModelError, match=r"'log' was not finite.*: 8 of 8 elements are NaN or infinite") as caught:
        gathered(graph, {"a": [Request(("log",), Range)]}, [(torch.zeros(2, 4),)])
    assert "While executing" not in str(caught.value)


def test_elements_that_are_not_finite_are_left_out(graph):
    (found,) = gathered(graph, {"a": [Request(("log",), Range)]}, [(torch.tensor([[0.0] * 4, [1.0] * 4]),)])["a"]
    assert (found.low, found.high, found.left_out) == (0, 0, 4)


def test_clips_hold_for_the_value_and_what_follows(graph, batches):
    clip = Clip(-0.25, 0.0)
    found = dict(
        collect(graph, {"a": [SECOND], "b": [Request(("log",), Range)]}, batches, "looking", clips={"log": clip})
    )
    values = torch.log(torch.cat([x for (x,) in batches]))
    assert (found["b"][0].low, found["b"][0].high) == (-0.25, 0)
    outside = (values < -0.25) | (values > 0)
    assert (clip.elements, clip.outside) == (values.numel(), int(outside.sum()))
    assert clip.furthest == float(values[values.abs() == values.abs().max()])
    hidden = torch.relu(nn.functional.linear(values.clamp(-0.25, 0), graph.one.weight, graph.one.bias))
    expected = 2 * hidden.T.double() @ hidden.double() / len(hidden)
    torch.testing.assert_close(torch.from_numpy(found["a"][0].matrix[0]), expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_value_that_is_not_there_is_refused(graph, batches):
    with pytest.raises(UnknownName, match=r"no value of the graph named 'rleu'.*relu"):
        gathered(graph, {"a": [Request(("rleu",), Range)]}, batches)


def test_gradients_are_as_they_were_between_what_is_yielded(graph, batches):
    for _ in collect(graph, {"a": [RANGE], "b": [MEAN]}, batches, "looking"):
        assert torch.is_grad_enabled()


def test_a_statistic_of_ones_own(graph, batches):
    class Peak(Statistic):
        after = (Range,)

        def __init__(self, extremes, share):
            self.limit, self.count, self.extremes = share, 0, extremes

        def add(self, x):
            self.count += int((x > self.limit * self.extremes.high).sum())

    (found,) = gathered(graph, {"a": [Request(("relu",), Peak, (0.5,))]}, batches)["a"]
    values = hidden(graph, batches)
    assert found.count == (values > values.max() / 2).sum() > 0


def test_work_on_a_key_is_progress(graph, batches, monkeypatch, capsys):
    """Guards against minutes of solving weights in silence, once all inputs have run."""
    monkeypatch.setattr(progress, "_LINE_EVERY", -1.0)
    lines = []
    for _ in collect(graph, {"a": [FIRST], "b": [SECOND], "c": [MEAN]}, batches, "calibrating"):
        lines.append(capsys.readouterr().err)
    lines.append(capsys.readouterr().err)
    # Three batches and three keys; a step counts when the next begins.
    assert [each.count("calibrating: ") for each in lines] == [2, 1, 1, 2]
    assert "calibrating: 6 of 6" in lines[-1]
