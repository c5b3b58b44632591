"""Weights pruned without training: what is chosen, what the others become, and what later stages keep."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.methods.toys import context, data, fresh, net
from torch import nn
from torch.nn.utils import prune

from attar._src.core.errors import ModelError, SpecError, UnknownName
from attar._src.core.spec import build_spec
from attar._src.core.tensors import Quantized, Sparse
from attar._src.methods.finetune import Finetune
from attar._src.methods.prune.scopes import SCOPES
from attar._src.methods.prune.scores import SCORES
from attar._src.methods.prune.weights import in_step, row_pruning
from attar._src.methods.prune.weights.of_module import prune_weights_of
from attar._src.methods.prune.weights.pruning import WeightPruning
from attar._src.methods.prune.weights.stage import PruneWeights
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.capture import capture
from attar._src.pipeline.stage_sequence import StageSequence
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.context import Trial


class Mixed(nn.Module):
    """A table, a grouped convolution with a norm, LSTM, a tied linear layer that runs twice, and a transposed one."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.conv, self.norm = nn.Conv1d(8, 8, 3, padding=1, groups=2), nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.twice = nn.Linear(12, 12)
        self.up = nn.ConvTranspose1d(12, 4, 2, stride=2)

    def forward(self, tokens):
        x = self.norm(self.conv(self.table(tokens).transpose(1, 2))).relu().transpose(1, 2)
        x, _ = self.lstm(x)
        return self.up(self.twice(self.twice(x).relu()).transpose(1, 2)).mean(2)


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    module = Mixed().eval()
    nn.init.uniform_(module.norm.weight, 0.5, 1.5)
    nn.init.uniform_(module.norm.running_var, 0.5, 2)
    tokens = torch.randint(0, 20, (32, 6))
    captured = capture(module, (tokens[:2],), train=False)
    gradients = {name: torch.randn_like(each) for name, each in module.named_parameters()}
    return module, captured, CalibrationInputs(((tokens[:16],), (tokens[16:],))), gradients


WEIGHTS = {"table.weight", "conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "twice.weight", "up.weight"}


def pruned(given, seed=0, **fields):
    module, captured, inputs, gradients = given
    spec = build_spec(WeightPruning, where="prune", **fields)
    return prune_weights_of(module, captured, spec, inputs, lambda: [gradients], seed=seed)


@pytest.mark.parametrize("name", [name for name in SCORES if name != "movement"])
@pytest.mark.parametrize("update", ["none", "obs"])
def test_every_kind_of_weight_gets_its_share(mixed, name, update):
    one, other = (pruned(mixed, sparsity=0.4, score=name, update=update) for _ in range(2))
    assert one.pruned.keys() == WEIGHTS
    for key, mask in one.pruned.items():
        assert int(mask.sum()) == round(0.4 * mask.numel())
        assert torch.equal(one.values[key] == 0, mask)
        assert torch.equal(one.values[key], other.values[key])
    unseen = {"table.weight", "up.weight"} if update == "obs" or SCORES[name].needs == "inputs" else set()
    assert one.found.unseen.keys() == unseen
    own = dict(mixed[0].named_parameters())
    for key in WEIGHTS if update == "none" else ():
        torch.testing.assert_close(one.values[key], own[key].masked_fill(one.pruned[key], 0))


@pytest.mark.parametrize("scope", [*SCOPES])
def test_scopes_prune_the_share_of_all(mixed, scope):
    result = pruned(mixed, sparsity=0.5, scope=scope, score="l1", update="none")
    zeros, of = (sum(map(count, result.pruned.values())) for count in (torch.Tensor.sum, torch.Tensor.numel))
    assert abs(int(zeros) - 0.5 * of) <= 0.5 * (1 if SCOPES[scope].ranks else len(WEIGHTS))
    shares = {round(each, 2) for each in result.found.sparsity.values()}
    assert (len(shares) == 1) == (scope in ("layer", "row"))
    if scope == "row":
        assert (result.pruned["twice.weight"].sum(1) == 6).all()


def test_global_scores_are_those_of_the_inputs(mixed):
    result = pruned(mixed, sparsity=0.5, scope="global", score="wanda", update="none")
    assert sum(int(each.sum()) for each in result.pruned.values()) == round(
        0.5 * sum(each.numel() for each in result.pruned.values())
    )


def test_taylor_is_of_the_squares_over_parts(mixed):
    """Gradients of parts that cancel, as those of a trained network do, say no less."""
    module, captured, inputs, gradients = mixed
    spec = WeightPruning(sparsity=0.5, score="taylor", update="none")
    opposite = {name: -3 * each for name, each in gradients.items()}
    parts = [gradients, opposite, gradients, gradients]
    changes = prune_weights_of(module, captured, spec, inputs, lambda: iter(parts))
    own = dict(module.named_parameters())
    for name, mask in changes.pruned.items():
        scores = (own[name] * gradients[name]).square()
        assert scores[mask].max() <= scores[~mask].min()


def test_patterns_blocks_and_what_does_not_fit(mixed):
    result = pruned(mixed, unit="3:8")
    assert result.found.excluded == {
        "conv.weight": "its 4 input channels are no multiple of 8",
        "lstm.weight_hh_l0": "its 12 input channels are no multiple of 8",
        "twice.weight": "its 12 input channels are no multiple of 8",
        "up.weight": "its 12 input channels are no multiple of 8",
    }
    assert ((result.values["lstm.weight_ih_l0"] != 0).unflatten(1, (1, 8)).sum(-1) == 3).all()
    result = pruned(mixed, unit="4x1", sparsity=0.5)
    mask = result.pruned["twice.weight"].unflatten(0, (3, 4))
    assert (mask.all(1) | ~mask.any(1)).all()
    assert int(mask.sum()) == 72


def test_overrides_and_exceptions(mixed):
    result = pruned(mixed, sparsity=0.5, keep=("table", "up"), overrides={"twice": 0.25}, scope="global", score="l1")
    assert result.pruned.keys() == WEIGHTS - {"table.weight", "up.weight"}
    assert int(result.pruned["twice.weight"].sum()) == 36
    with pytest.raises(UnknownName, match="did you mean 'twice'"):
        pruned(mixed, sparsity=0.5, layers=("twise",))


def outputs(module, x):
    with torch.no_grad():
        return module(x)


@pytest.fixture(scope="module")
def residual():
    x, y = data(128)
    module = net(width=16).train()
    for _ in range(5):
        module(x)
    module.eval()
    captured = capture(module, (x[:2],), train=False)
    return module, captured, CalibrationInputs(((x[:64],), (x[64:],))), {}, x, y


def loss(given, **fields):
    module, captured, inputs, gradients, x, _ = given
    changes = pruned((module, captured, inputs, gradients), **fields)
    smaller = net(width=16)
    smaller.load_state_dict(module.state_dict())
    changes.put(smaller.eval())
    return float((outputs(smaller, x) - outputs(module, x)).square().mean()), changes


def test_making_up_loses_less_and_in_order_the_least(residual):
    keep = ("head",)
    none, _ = loss(residual, sparsity=0.6, score="l1", update="none", keep=keep)
    alone, _ = loss(residual, sparsity=0.6, sequential=False, keep=keep)
    together, changes = loss(residual, sparsity=0.6, keep=keep)
    assert together < alone < none
    assert {"norm1.bias", "norm2.bias"} <= changes.values.keys()
    assert "norm1.bias" not in loss(residual, sparsity=0.6, correct_bias=False, keep=keep)[1].values


def test_what_is_pruned_is_what_the_file_multiplies_by(residual):
    """Channels that a norm makes small go first, although their own weights are as large as others."""
    module, _, inputs, gradients, x, _ = residual
    scaled = net(width=16)
    scaled.load_state_dict(module.state_dict())
    with torch.no_grad():
        scaled.norm1.weight[:8] *= 1e-3
    captured = capture(scaled.eval(), (x[:2],), train=False)
    spec = WeightPruning(sparsity=0.5, score="wanda", update="none", layers=("first",))
    changes = prune_weights_of(scaled, captured, spec, inputs, lambda: [gradients])
    assert changes.pruned["first.weight"][:8].all()
    assert not changes.pruned["first.weight"][8:].any()
    # Sizes are those of the module's own weights, as torch.nn.utils.prune takes them.
    spec = WeightPruning(sparsity=0.5, score="l1", update="none")
    changes = prune_weights_of(scaled, captured, spec, inputs, lambda: [gradients])
    for name in ("first", "second", "head"):
        layer = copy.deepcopy(getattr(scaled, name))
        prune.l1_unstructured(layer, "weight", amount=0.5)
        assert torch.equal(changes.pruned[f"{name}.weight"], layer.weight_mask == 0)


def test_without_memory_for_all_batches_fewer_are_seen_or_layers_are_alone(residual, monkeypatch):
    monkeypatch.setattr(in_step, "HELD_BYTES", 64 * 16 * 64 * 4 * 7)
    some, _ = loss(residual, sparsity=0.6)
    monkeypatch.setattr(in_step, "HELD_BYTES", 1)
    none, changes = loss(residual, sparsity=0.6)
    assert changes.found.apart == [*changes.pruned]
    assert changes.pruned.keys() == {"first.weight", "second.weight", "head.weight"}
    assert 0 < some < 10 * none


def test_long_rows_are_swept(residual, monkeypatch):
    monkeypatch.setattr(row_pruning, "SWEEP_FROM", 1e5)
    _, changes = loss(residual, sparsity=0.5)
    assert changes.found.swept == ["second.weight"]


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_rows_lose_the_same_number_where_columns_are_swept(residual, monkeypatch, share):
    """Guards shares that are rounded in each block of columns: 0.5 of 7 is 3 or 4, and of a row half."""
    monkeypatch.setattr(row_pruning, "SWEEP_FROM", 1e5)
    monkeypatch.setattr(row_pruning, "BLOCK", 7)
    _, changes = loss(residual, sparsity=share, scope="row")
    assert changes.found.swept == ["second.weight"]
    rows = changes.pruned["second.weight"].flatten(1)
    assert rows.sum(1).tolist() == [round(share * rows.shape[1])] * len(rows)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "sparsity is missing; give the share"),
        ({"unit": "2:4", "sparsity": 0.5}, "unit 2:4 prunes 0.5 of every weight; leave sparsity and overrides out"),
        ({"unit": "2:4", "scope": "global"}, "leave scope out"),
        ({"unit": "2:5x", "sparsity": 0.5}, "write weight, N:M such as 2:4"),
        ({"sparsity": 0.5, "score": "movement"}, "score movement is that of a training"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": 50}, "sparsity: 50 is no share, which is less than 1; write 0.5 for 50 %$"),
    ],
)
def test_fields_that_do_not_fit_are_refused(mixed, fields, message):
    with pytest.raises(SpecError, match=message):
        pruned(mixed, **fields)


def test_rows_keep_something():
    """Guards weights that lose everything where each row loses the same number, rounded up."""
    x = torch.randn(32, 1)
    module = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    given = module, capture(module, (x[:2],), train=False), CalibrationInputs(((x,),)), {}
    with pytest.raises(SpecError, match=r"'0.weight': sparsity=0.6 of each row leaves 0 of its 1 .* <= 0 of"):
        pruned(given, sparsity=0.6, scope="row")
    assert 0 < pruned(given, sparsity=0.6, scope="row", keep=("0",)).found.sparsity["2.weight"] < 1


def test_a_weight_of_zeros_is_not_taken_for_pruned():
    """Guards layers that begin at zero: under a mask of zeros no training could move them."""
    x = torch.randn(32, 6)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    nn.init.zeros_(module[2].weight)
    given = module, capture(module, (x[:2],), train=False), CalibrationInputs(((x,),)), {}
    result = pruned(given, sparsity=0.5)
    assert result.found.excluded == {"2.weight": "all its elements are zero"}
    assert result.pruned.keys() == {"0.weight"}


@pytest.mark.parametrize("kind", ["own", "tied", "norm", "norm without shift"])
def test_later_layers_see_the_biases_that_the_module_has(kind):
    """Guards biases that only the graph has: later layers would make up for what the module does not do."""
    torch.manual_seed(0)
    norms = {"norm": nn.BatchNorm1d(6), "norm without shift": nn.BatchNorm1d(6, affine=False)}
    layers = [nn.Linear(6, 6), norms.get(kind, nn.Identity()), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)]
    module, x = nn.Sequential(*layers).eval(), torch.randn(64, 6)
    if kind == "tied":
        module[3].bias = module[0].bias
    given = module, capture(module, (x[:2],), train=False), CalibrationInputs(((x,),)), {}
    result = pruned(given, sparsity=0.7)
    moved = {"own": {"0.bias", "3.bias", "5.bias"}, "tied": {"5.bias"}, "norm": {"1.bias", "3.bias", "5.bias"}}
    assert {name for name in result.values if name.endswith("bias")} == moved.get(kind, {"3.bias", "5.bias"})
    assert len(result.found.biases) == len([name for name in result.values if name.endswith("bias")])


def test_a_score_of_ones_own_sees_what_there_is_after_a_training(mixed, tmp_path):
    """Guards scores that would read ones in place of what is not there."""
    path = tmp_path / "scores.py"
    path.write_text(
        "from attar.extend import WeightScore\n\n\nclass Moved(WeightScore):\n"
        "    name = 'moved'\n    needs = 'movement'\n\n"
        "    def score(self, scored):\n        return scored.known('movement')\n"
    )
    with pytest.raises(SpecError, match="Moved is that of a training; use the rule or stage prune"):
        pruned(mixed, sparsity=0.5, score=f"{path}:Moved")


def test_what_cannot_be_done_names_the_weight(mixed):
    with pytest.raises(SpecError, match="no pruning score named 'wander'; did you mean 'wanda'"):
        pruned(mixed, sparsity=0.5, score="wander")
    with pytest.raises(SpecError, match="no pruning scope named 'globl'; did you mean 'global'"):
        pruned(mixed, sparsity=0.5, scope="globl")
    with pytest.raises(SpecError, match=r"'up.weight': sparsity=0.999 leaves 0 of its 96 .* sparsity <= 0.989"):
        pruned(mixed, sparsity=0.5, overrides={"up": 0.999})
    module, captured, inputs, gradients = mixed
    broken = {**gradients, "twice.weight": torch.full((12, 12), torch.nan)}
    with pytest.raises(ModelError, match=r"'twice.weight'.*the score taylor is not finite"):
        pruned((module, captured, inputs, broken), sparsity=0.5, score="taylor", update="none")


def run(stages, folder, slot=0):
    """Run stages on a learner; return it and the compressed model."""
    learner = fresh(slot)
    lent = context(folder, count=64)
    sequence = StageSequence(learner, stages)
    for index in range(len(stages)):
        lent = replace(lent, store=type(lent.store)(folder / str(index)))
        sequence.apply(index, lambda stage, given, lent=lent: stage.run(given, lent))
    return learner, sequence.compressed()


TRAINED = Finetune(epochs=1, batch=32, objective="cross_entropy", optimizer={"name": "sgd", "lr": 0.1})
PRUNED = PruneWeights(sparsity=0.5, keep=("head",))
QUANTIZED = PostTrainingQuantize(bits=4, scales="gptq")
NAMES = ("first.weight", "second.weight")


def zeros_of(model):
    return {name: np.asarray(model.stored()[name].dense()) == 0 for name in NAMES}


def test_alone_its_file_is_sparse(tmp_path):
    _, model = run([PRUNED], tmp_path)
    assert all(isinstance(model.tensors[name], Sparse) for name in NAMES)
    assert {name: int(each.sum()) for name, each in zeros_of(model).items()} == {NAMES[0]: 72, NAMES[1]: 288}
    assert model.record[-1]["zeros"] == [360, 720]


@pytest.mark.parametrize(
    "behind",
    [
        [QUANTIZED],
        [QUANTIZED, Reconstruct(steps=2, network_steps=2)],
        [TRAINED],
        [QUANTIZED, TRAINED],
        [TRAINED, QUANTIZED],
    ],
)
def test_zeros_stay(behind, tmp_path):
    _, before = run([PRUNED], tmp_path / "alone")
    _, after = run([PRUNED, *behind], tmp_path / "behind")
    for name, zeros in zeros_of(before).items():
        assert zeros_of(after)[name][zeros].all()
    if QUANTIZED in behind:
        assert all(isinstance(after.tensors[name], Quantized) for name in NAMES)
    if TRAINED in behind:
        assert not np.array_equal(after.stored()[NAMES[0]].dense(), before.stored()[NAMES[0]].dense())


def test_after_quantization_codes_become_zero_on_the_same_grid(tmp_path):
    _, plain = run([PostTrainingQuantize(bits=8)], tmp_path / "plain")
    _, model = run([PostTrainingQuantize(bits=8), PRUNED], tmp_path / "pruned")
    for name in NAMES:
        assert isinstance(model.tensors[name], Quantized)
        assert (zeros_of(model)[name].sum()) >= 0.5 * zeros_of(model)[name].size
    assert isinstance(plain.tensors[NAMES[0]], Quantized)


def test_grids_without_zero_are_refused(tmp_path):
    uniform = Finetune(epochs=1, batch=32, objective="cross_entropy", constraints=[{"name": "uniform", "bits": 2}])
    with pytest.raises(SpecError, match="the grid that an earlier stage gave it has no zero; put"):
        run([uniform, PRUNED], tmp_path)


def test_it_is_tried_on_one_batch():
    x, y = data(8)
    learner = fresh()
    for score in ("obs", "taylor"):
        stage = PruneWeights(sparsity=0.5, score=score, keep=("head",))
        assert stage.required() == (frozenset({"labels"}) if score == "taylor" else frozenset())
        stage.try_on(learner, Trial(Batch((x,), y, None), {}))
        assert float((learner.tensor("second.weight") == 0).float().mean()) == 0.5
        learner = fresh()
    assert PruneWeights(sparsity=0.5).compresses()


def test_pruned_patterns_that_do_not_fit_are_told(tmp_path):
    learner, _ = run([PruneWeights(unit="2:4")], tmp_path)
    assert learner.warnings == [
        "prune_weights: 'first.weight' was not pruned: its 2 input channels are no multiple of 4"
    ]
