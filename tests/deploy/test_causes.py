from dataclasses import replace

import pytest
import torch
from torch import nn

from attar._src.deploy import causes
from attar._src.deploy.causes import Cause, Causes, find_causes
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


def compressed(net, x, **options):
    model = CompressedModel.of(trace(net.eval(), (x[:2],)))
    return PostTrainingQuantize(**options).run(model, Context(CalibrationInputs(((x,),))))


def given(x):
    return CalibrationInputs(((x,),))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        made[2].weight[:, :3] = 0.0
        made[2].weight[:, 0] = 80.0
        made[0].weight[0], made[0].bias[0] = 0.0, 0.0
    return made


@pytest.fixture(scope="module")
def x():
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


def test_the_weight_that_few_bits_ruin_comes_first(net, x):
    model = compressed(net, x, bits=8)
    found = find_causes(model, "main", given(x[:32]), 0)
    assert (found.causes[0].name, found.causes[0].bits) == ("2.weight", 8)
    assert found.causes[0].share > 0.9
    assert sum(each.share for each in found.causes) == pytest.approx(1)
    assert "the weight 2.weight" in found.sentence()
    assert "keep=('2.weight',)" in found.sentence()
    # The graph is as it was.
    with torch.no_grad():
        torch.testing.assert_close(model.main.traced.graph(x), net(x))


def test_what_a_dynamic_layer_reads_can_be_the_cause(net, x):
    wide = x.clone()
    wide[0, 0] = 3000.0
    model = compressed(net, wide, bits=8, activations="dynamic", keep_activations=("2",))
    found = find_causes(model, "main", given(wide[:32]), 0)
    assert {each.name for each in found.causes if each.bits is None} == {"0", "4"}
    assert all(each.kind == "the input of" for each in found.causes if each.bits is None)


def test_what_a_layer_reads_can_be_the_cause(net, x):
    wide = x.clone()
    wide[0, 0] = 3000.0
    model = compressed(net, wide, bits=8, activations=8, observer="minmax", keep=("2", "4"))
    found = find_causes(model, "main", given(x), 0).main()
    assert [(each.kind, each.name) for each in found] == [("the input of", "0")]
    assert "keep_activations=('0',)" in find_causes(model, "main", given(x), 0).sentence()


def test_only_what_follows_a_change_runs_again(net, x, monkeypatch):
    model, runs = compressed(net, x, bits=8, activations=8), []
    run_node = causes._PartialRuns.run_node
    monkeypatch.setattr(causes._PartialRuns, "run_node", lambda self, n: (runs.append(n.op), run_node(self, n))[1])
    found = find_causes(model, "main", given(x), 0)
    assert len(found.causes) == 6
    linear, relu = 3, 2
    # The first run computes all; then each of three weights and of three inputs what follows.
    assert runs.count("call_function") == (linear + relu) + 2 * sum((5, 3, 1))
    whole = find_causes(model, "main", given(x), 0)
    assert whole == found


def test_a_large_model_is_rounded_on_fewer_examples(net, x, monkeypatch):
    model = compressed(net, x, bits=4)
    assert find_causes(model, "main", given(x), 0).examples == 32
    operations = 2 * (8 * 16 + 16 * 16 + 16 * 4)
    monkeypatch.setattr(causes, "PASS_OPERATIONS", 5 * operations * 3 / 2)
    assert find_causes(model, "main", given(x), 0).examples == 5
    monkeypatch.setattr(causes, "PASS_OPERATIONS", 1)
    found = find_causes(model, "main", given(x), 0)
    assert (found.examples, found.left_out, len(found.causes)) == (1, 0, 3)


def test_few_seconds_are_few_passes_and_a_model_without_grids_has_no_causes(net, x):
    found = find_causes(compressed(net, x, bits=8, activations=8), "main", given(x), 0, seconds=0.0)
    assert found.causes == ()
    assert found.left_out > 0
    assert find_causes(CompressedModel.of(trace(net, (x[:2],))), "main", given(x), 0).sentence() == ""


def test_an_error_that_is_spread_is_said_to_be():
    spread = Causes(tuple(Cause("the weight", f"w{i}", 0.05, 4) for i in range(20)), 32, 0)
    assert spread.main() == ()
    assert "spread over 20 weights and values" in spread.sentence()
    assert "give all more bits (bits=)" in spread.sentence()
    finest = Causes(tuple(Cause("the weight", f"w{i}", 0.05, 8) for i in range(20)), 32, 0)
    assert "granularity='group:32'" in finest.sentence()
    both = Causes((*finest.causes, *(Cause("the input of", f"w{i}", 0.05) for i in range(20))), 32, 0)
    # 8 bits are the most there are.
    assert "more bits" not in both.sentence()
    assert "leave activations in floating point" in both.sentence()
    two = Causes(
        (Cause("the weight", "a", 0.6, 4), Cause("the input of", "b", 0.3), Cause("the weight", "c", 0.1, 8)), 32, 0
    )
    assert [each.name for each in two.main()] == ["a", "b"]
    said = two.sentence()
    assert "the weight a (60%) and the input of b (30%) cause most of the error" in said
    assert "overrides={'a': 8} for 8 bits, or keep=('a',) and keep_activations=('b',) for floating point" in said
    # Of bits that follow from a target none can be set.
    assert "write a larger target (size=" in replace(two, targeted=True).sentence()
    assert "overrides" not in replace(two, targeted=True).sentence()
    coarse = replace(both, causes=(*both.causes, Cause("the weight", "w", 0.01, 4)), targeted=True)
    assert "give a larger target (size=" in coarse.sentence()
