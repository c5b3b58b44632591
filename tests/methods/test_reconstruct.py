import functools
import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.methods.toys import context
from torch import nn

import attar
from attar._src.core.errors import SpecError
from attar._src.core.float16 import to_half
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import Dense, Quantized
from attar._src.deploy.dry_run import example_of
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.ptq.reconstruct import rerounding
from attar._src.methods.quantize.ptq.reconstruct.blocks import find_blocks
from attar._src.methods.quantize.ptq.reconstruct.learned import LearnedWeight, Mode, set_mode
from attar._src.methods.quantize.ptq.reconstruct.network import LearnedNetwork
from attar._src.methods.quantize.ptq.reconstruct.rounding import (
    beta_at,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    rounding_regulariser,
)
from attar._src.methods.quantize.ptq.reconstruct.scores import ClassScores, class_scores
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.stages import STAGES
from attar._src.model.entry_points import EntryPoint, trace_methods
from attar._src.model.trace import trace
from attar._src.model.weights import Window
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        y = torch.relu(self.stem(x))
        y = torch.relu(self.two(torch.relu(self.one(y))) + y)
        # Its size is that of the batch, which the graph reads of the input.
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.table, self.rnn, self.head = nn.Embedding(9, 6), kind(6, 7, batch_first=True), nn.Linear(7, 9)

    def forward(self, tokens):
        return self.head(self.rnn(self.table(tokens))[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)).mean(1))


def images(count=96):
    return torch.randn(count, 3, 6, 6)


NETS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)), lambda: torch.randn(96, 6)),
    "normed": (
        lambda: nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 5)),
        lambda: torch.randn(96, 6),
    ),
    "residual": (Residual, images),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: torch.randint(0, 9, (96, 5))),
    "gru": (lambda: Recurrent(nn.GRU), lambda: torch.randint(0, 9, (96, 5))),
    "attention": (Attention, lambda: torch.randn(96, 4, 8)),
}


def inputs_of(x, batch=16):
    return CalibrationInputs(tuple((each,) for each in x.split(batch)))


def compressed(net, x):
    example, axes, _ = example_of(inputs_of(x), None)
    return CompressedModel.of(trace(net, example, dynamic=axes))


def traced_of(name):
    torch.manual_seed(0)
    make, draw = NETS[name]
    net, x = make().eval(), draw()
    return net, x, compressed(net, x)


@functools.cache
def quantized_of(name, **fields):
    net, x, model = traced_of(name)
    stage = PostTrainingQuantize(**{"bits": 3, "scales": "mse"} | fields)
    return net, x, stage.run(model, Context(inputs_of(x)))


def same(one, other):
    return all(np.array_equal(one.tensors[name].dense(), other.tensors[name].dense()) for name in one.tensors)


def test_the_relaxation_has_the_gradient_of_its_formula():
    torch.manual_seed(0)
    v = torch.randn(20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rectified_sigmoid, (v,), eps=1e-6, atol=1e-8)
    for beta in (20.0, 7.5, 2.0):
        assert torch.autograd.gradcheck(lambda v, beta=beta: rounding_regulariser(v, beta), (v,), eps=1e-6, atol=1e-7)


def test_the_relaxation_has_an_inverse_and_ends():
    share = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(rectified_sigmoid(inverse_rectified_sigmoid(share)), share)
    ends = inverse_rectified_sigmoid(torch.tensor([0.0, 0.5, 1.0]))
    assert rounding_regulariser(ends, 4.0).tolist() == pytest.approx([0, 1, 0], abs=1e-5)
    assert (beta_at(0), beta_at(1)) == (20, 2)


def test_a_relaxed_weight_starts_at_the_weight_and_ends_on_the_grid():
    _, _, model = quantized_of("linear", bits=4)
    network = LearnedNetwork.of(model, "main")
    weight = network.weights["0.weight"]
    weight.relax()
    set_mode([weight], Mode.RELAXED)
    start = model.tensors["0.weight"]
    inside = np.abs(start.codes) < start.scheme.qmax
    made = weight(weight.floating).detach().numpy()
    assert np.allclose(made[inside], weight.floating.numpy()[inside], atol=1e-6)
    weight.settle()
    assert isinstance(weight.tensor(), Quantized)
    assert np.abs(weight.tensor().codes.astype(int) - start.codes).max() <= 1


def test_rounding_is_near_the_best_of_all_choices_and_never_worse_than_the_nearest():
    """A layer with inputs that depend on each other: 2^6 choices of up or down, tried one by one."""
    gained = possible = 0.0
    for seed in range(8):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(6, 1, bias=False)).eval()
        x, values = torch.randn(64, 2) @ torch.randn(2, 6), net[0].weight.detach().numpy().astype(np.float64)
        given = Context(inputs_of(x, 64))
        nearest = PostTrainingQuantize(bits=3, scales="absmax").run(compressed(net, x), given)
        done = Reconstruct(steps=200, network_steps=0, batch=64, drop=0.0).run(nearest, given)

        def error(rounded, x=x, values=values):
            return float(np.square(x.double().numpy() @ (rounded - values).T).mean())

        tensor = nearest.tensors["0.weight"]
        floor = np.floor(values / tensor.scale[0])
        choices = itertools.product((0, 1), repeat=6)
        best = min(error(np.clip(floor + np.array([up]), -3, 3) * tensor.scale[0]) for up in choices)
        found, before = error(done.tensors["0.weight"].dense()), error(tensor.dense())
        assert found <= before
        gained, possible = gained + before - found, possible + before - best
    # Scales are trained too, so more than all is possible.
    assert gained > 0.9 * possible > 0


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_layer_improves_on_inputs_it_was_not_trained_on(name):
    net, x, model = quantized_of(name)
    done = Reconstruct(steps=50, network_steps=30, batch=16).run(model, Context(inputs_of(x)))
    before, after = done.record[-1]["errors"]["all"]
    assert after < before
    fresh = NETS[name][1]()
    with torch.no_grad():
        wanted = net(fresh)
        errors = [float((each.simulate()(fresh) - wanted).square().mean()) for each in (model, done)]
    assert errors[1] < errors[0]
    assert all(
        tensor.scheme == model.tensors[key].scheme
        for key, tensor in done.tensors.items()
        if isinstance(tensor, Quantized)
    )


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_the_network_is_trained_without_its_blocks(name):
    """The fault: blocks take the time, or the learning rate of the codes does not reach them."""
    _, x, model = quantized_of(name)
    moved = []
    for lr in (0.02, 1e-4):
        stage = Reconstruct(steps=0, network_steps=40, lr=lr, batch=16)
        done = stage.run(model, Context(inputs_of(x)))
        record = done.record[-1]
        assert record["errors"].keys() == {"network", "all"}
        assert record["errors"]["all"][1] < record["errors"]["all"][0]
        assert (record["steps"], record["network_steps"]) == (0, 40)
        codes = (
            (tensor.codes, model.tensors[k].codes) for k, tensor in done.tensors.items() if hasattr(tensor, "codes")
        )
        moved.append(sum(int((one != other).sum()) for one, other in codes))
    assert moved[0] > moved[1]


@pytest.mark.parametrize(
    ("name", "kept", "trained"),
    [
        ("gru", "head", {"rnn.bias_ih_l0", "rnn.bias_hh_l0"}),
        ("lstm", "head", {"rnn.bias_ih_l0", "rnn.bias_hh_l0"}),
        ("normed", "3", {"0.bias", "1.weight", "1.bias"}),
    ],
)
def test_biases_of_recurrent_layers_and_norms_are_trained(name, kept, trained):
    """The bias of a layer that stays in floating point stays, too."""
    _, x, model = quantized_of(name, keep=(kept,))
    assert LearnedNetwork.of(model, "main").vectors.keys() == trained
    done = Reconstruct(steps=0, network_steps=20, batch=16).run(model, Context(inputs_of(x)))
    state = model.state()
    assert all(not np.array_equal(done.tensors[key].dense(), state[key].numpy()) for key in trained)


def test_vectors_of_another_type_keep_it():
    """Guards against files that grow as numbers stored in half precision come back in single."""
    _, _, model = quantized_of("normed")
    half = Dense(to_half(model.state()["1.weight"].numpy(), "f16"), "f16")
    chosen = replace(model, tensors={**model.tensors, "1.weight": half})
    assert LearnedNetwork.of(model, "main").vectors.keys() - LearnedNetwork.of(chosen, "main").vectors.keys() == {
        "1.weight"
    }


def test_minutes_are_those_of_the_network_without_its_blocks():
    _, x, model = quantized_of("linear")
    stage = Reconstruct(steps=0, network_steps=60, minutes=0.01, batch=16)
    record = stage.run(model, Context(inputs_of(x))).record[-1]
    assert record["steps"] == 0
    assert record["network_steps"] not in (0, 60)
    with pytest.raises(ValueError, match="add network_steps"):
        Reconstruct(steps=0)


def test_blocks_are_rounded_again_for_what_they_read_by_then():
    """The fault: codes that make of what the quantized network reads something else than the floating one makes."""
    torch.manual_seed(0)
    layers = [nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 5)]
    net, basis = nn.Sequential(*layers).eval(), torch.randn(6, 8)
    x, fresh = torch.randn(1024, 6) @ basis, torch.randn(256, 6) @ basis
    given = Context(inputs_of(x, 64))
    model = PostTrainingQuantize(bits=3, scales="gptq").run(compressed(net, x), given)
    stage = Reconstruct(steps=0, network_steps=0, reround=True, batch=64)
    done, again = (stage.run(model, given) for _ in range(2))
    before, after = done.record[-1]["errors"]["all"]
    assert after < 0.9 * before
    assert same(done, again)
    with torch.no_grad():
        errors = [float((each.simulate()(fresh) - net(fresh)).square().mean()) for each in (model, done)]
    assert errors[1] < 0.9 * errors[0]


def test_rounding_again_is_least_squares():
    """The target of a layer whose input is half of what it was is twice its weight; zeros stay zero."""
    torch.manual_seed(0)
    x = torch.randn(400, 6)
    pairs = rerounding._Pairs(Window(1, 6))
    pairs.add(x, x / 2)
    floating = torch.randn(5, 6)
    floating[0, 1] = 0
    scheme = Scheme(bits=8, granularity=PerChannel())
    weight = LearnedWeight(floating, SOLVERS["absmax"].solve(2 * floating.numpy(), scheme))
    rerounding._round(weight, None, Window(1, 6), pairs)
    assert torch.allclose(weight(floating), 2 * floating, rtol=0.1, atol=0.05)
    assert weight(floating)[0, 1] == 0


def test_activation_grids_are_trained_and_the_file_computes_what_was_optimised(tmp_path):
    _, x, model = quantized_of("residual", bits=4, activations=4)
    done = Reconstruct(steps=100, network_steps=100, batch=16).run(model, Context(inputs_of(x)))
    grids = done.main.activations
    assert grids.keys() == model.main.activations.keys()
    assert any(grids[name].scale != model.main.activations[name].scale for name in grids)
    torch.manual_seed(0)
    fields = {"bits": 4, "activations": 4, "scales": "mse", "reconstruct": {"steps": 20, "network_steps": 20}}
    result = attar.quantize(NETS["residual"][0]().eval(), x, **fields)
    report = result.save(tmp_path / "m.attar")
    assert report["parity"]["largest_difference"] <= 1e-4 * report["parity"]["largest_output"]
    assert "examples that it was trained on" in report["notes"]["reconstruct"]


def test_what_is_worse_is_not_kept():
    _, x, model = quantized_of("residual", bits=7)
    done = Reconstruct(steps=1, network_steps=0, batch=16).run(model, Context(inputs_of(x)))
    before, after = done.record[-1]["errors"]["all"]
    assert after <= before
    grown = [name for name, (one, other) in done.record[-1]["errors"].items() if other > one]
    assert grown
    assert same(model, done)


def test_what_is_zero_stays_zero():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).eval(), torch.randn(96, 6)
    with torch.no_grad():
        net[0].weight[torch.rand(12, 6) < 0.5] = 0
    model = compressed(net, x)
    given = Context(inputs_of(x))
    for fields in ({}, {"symmetric": False}):
        rounded = PostTrainingQuantize(bits=3, scales="absmax", **fields).run(model, given)
        done = Reconstruct(steps=40, batch=16).run(rounded, given)
        assert not same(rounded, done)
        assert not done.tensors["0.weight"].dense()[net[0].weight.detach().numpy() == 0].any()


def test_what_a_stage_before_pruned_stays_zero():
    """The traced graph has the weights before that stage, in which they are not zero."""
    net, _, model = traced_of("linear")
    x, weight = torch.randn(512, 6), net[0].weight.detach().numpy()
    kept = np.where(np.random.default_rng(0).random(weight.shape) < 0.6, 0, weight).astype(np.float32)
    pruned = replace(model, tensors={"0.weight": Dense(kept)})
    given = Context(inputs_of(x))
    for stages in ([], [PostTrainingQuantize(bits=4, layers=("0",))]):
        done = pruned
        for stage in (*stages, PostTrainingQuantize(bits=3), Reconstruct(steps=100)):
            done = stage.run(done, given)
        assert not done.tensors["0.weight"].dense()[kept == 0].any()
        assert done.record[-1]["errors"]["all"][1] < done.record[-1]["errors"]["all"][0]


def test_what_cannot_be_reconstructed_is_refused():
    """Integers have no errors to descend."""
    net, x, _ = traced_of("linear")

    class Best(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x).argmax(1)

    with pytest.raises(SpecError, match="return the scores"):
        attar.quantize(Best(), x, bits=3, reconstruct={"steps": 2})


@pytest.mark.parametrize("granularity", ["tensor", "group:4", "bucket:16"])
def test_every_granularity_works(granularity):
    net, x, model = quantized_of("linear", granularity=granularity, symmetric=False)
    done = Reconstruct(steps=40, batch=16).run(model, Context(inputs_of(x)))
    fresh = torch.randn(512, 6)
    with torch.no_grad():
        before, after = (float((each.simulate()(fresh) - net(fresh)).square().mean()) for each in (model, done))
    assert after < before


def test_what_stays_as_it_is_has_a_reason():
    _, x, model = traced_of("linear")
    model = PostTrainingQuantize(bits=3, overrides={"0": 8}).run(model, Context(inputs_of(x)))
    done = Reconstruct(steps=5, batch=16).run(model, Context(inputs_of(x)))
    assert "8 bits" in done.record[-1]["left"]["0.weight"]
    assert np.array_equal(done.tensors["0.weight"].codes, model.tensors["0.weight"].codes)


def test_it_needs_something_to_improve():
    with pytest.raises(SpecError, match="put a stage quantize before it"):
        Reconstruct().check([])
    _, x, model = quantized_of("linear", bits=8)
    with pytest.raises(SpecError, match="no weight to improve"):
        Reconstruct().run(model, Context(inputs_of(x)))
    assert Reconstruct in STAGES


def test_blocks_are_found_on_the_graph():
    def outputs(name, **fields):
        _, _, model = quantized_of(name, **fields)
        graph = LearnedNetwork.of(model, "main").graph
        weights = {key for key, part in graph.named_modules() if isinstance(part, LearnedWeight)}
        return [len([key for key in block.modules if key in weights]) for block in find_blocks(graph, weights)]

    assert outputs("linear") == [1, 1]
    assert outputs("residual") == [1, 2, 1]
    assert outputs("residual", activations=4) == [1, 2, 1]
    # Twice the same layer: two projections in attention, two in the feed-forward part. The shortcut around the first
    # attention is the input, which is free, so there is a cut inside it.
    assert outputs("attention") == [1, 1, 2, 2, 2, 1]


def test_equal_seeds_give_equal_models():
    _, x, model = quantized_of("residual", activations=4)
    # A few steps may leave all codes as they were, whatever the seed.
    stage = Reconstruct(steps=40, network_steps=40, batch=16, augment=("flip",))
    one, two, other = (stage.run(model, Context(inputs_of(x), seed)) for seed in (0, 0, 1))
    assert same(one, two)
    assert one.main.activations == two.main.activations
    assert one.record == two.record
    assert not same(one, other)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.one, self.other = nn.Linear(6, 10), nn.Linear(10, 4), nn.Linear(10, 3)

    def first(self, x):
        return self.one(torch.relu(self.shared(x)))

    def second(self, x):
        return self.other(torch.relu(self.shared(x)))


def test_a_graph_is_trained_on_what_the_graphs_before_made_of_shared_weights():
    """Guards against training against codes that the file will not have."""
    torch.manual_seed(0)
    net, x = TwoHeads().eval(), torch.randn(96, 6)
    entries = {name: EntryPoint((x,), name) for name in ("first", "second")}
    start = CompressedModel.of(trace_methods(net, entries))
    given = Context(dict.fromkeys(entries, inputs_of(x, 96)))
    rounded = PostTrainingQuantize(bits=3, scales="absmax").run(start, given)
    done = Reconstruct(steps=60, batch=96, drop=0.0, loss="error").run(rounded, given)

    def error(model):
        with torch.no_grad():
            made, wanted = model.simulate(graph="second")(x), net.second(x)
        return float((made - wanted).square().sum() / (wanted - wanted.mean()).square().sum())

    own = {
        name: rounded.tensors.get(name, Dense(rounded.state()[name].numpy())) for name in ("other.weight", "other.bias")
    }
    between = replace(done, tensors={**done.tensors, **own})
    assert error(between) != pytest.approx(error(rounded), rel=1e-3)
    assert done.record[-1]["errors"]["second.all"] == pytest.approx([error(between), error(done)], rel=1e-4)


def test_the_loss_follows_the_task_and_the_names_of_outputs():
    """Guards against a divergence of embeddings, and against squared errors of scores."""
    x = torch.randn(96, 6)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, x):
            return {"embedding": torch.tanh(x), "logits": 0.01 * self.layer(x)}

    def scores(net, loss="auto", **labelled):
        return class_scores(compressed(net, x).main, inputs_of(x), loss, Labelled(**labelled))

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 5)).eval()
    assert scores(Named().eval()) == ClassScores("logits", 1)
    assert scores(Named().eval(), "error") is None
    assert scores(plain) is None
    for labelled in ({"task": "classification"}, {"classes": True}):
        assert scores(plain, **labelled).axis == 1
    confident = nn.Sequential(nn.Linear(6, 5), nn.Softmax(1)).eval()
    assert scores(confident).shares
    assert scores(confident, task="regression") is None
    assert scores(plain, "kl").axis == 1
    with pytest.raises(SpecError, match="use loss: error"):
        scores(nn.Sequential(nn.Linear(6, 1)).eval(), "kl")


def test_the_divergence_is_that_of_probabilities():
    made, wanted = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    for shares, of in ((True, lambda p: p), (False, torch.log)):
        found = ClassScores("y", 1, shares).divergence(of(made), of(wanted))
        assert float(found) == pytest.approx(0.1308, abs=1e-4)


class Stop(BaseException):
    """The plug is pulled."""


def test_it_resumes_at_the_block_with_the_same_result(tmp_path):
    _, x, model = quantized_of("residual", activations=4)
    stage, rows = Reconstruct(steps=10, network_steps=10, batch=16), []

    def pull(row):
        rows.append(row)
        if len(rows) == 2:
            raise Stop

    def lent(place, log=None):
        return context(tmp_path / place, log=log or (lambda _: None))

    def run(given, log=lambda _: None):
        return stage.improve(model, Context(inputs_of(x)), log, given.store)

    whole = run(lent("whole"))
    with pytest.raises(Stop):
        run(lent("again"), pull)
    again = []
    done = run(lent("again"), again.append)
    assert [row["epoch"] for row in again] == [3, 4]
    assert same(whole, done)
    assert whole.record == done.record
    assert len(os.listdir(tmp_path / "again")) >= 1


def test_minutes_choose_steps():
    _, x, model = quantized_of("linear")
    stage = Reconstruct(minutes=0.02, batch=16)
    done = stage.run(model, Context(inputs_of(x)))
    steps = done.record[-1]["steps"]
    assert steps >= 1
    assert steps != stage.steps
    assert same(done, Reconstruct(steps=steps, batch=16).run(model, Context(inputs_of(x))))
