import numpy as np
import pytest
import torch
from tests.methods.toys import ModuleTeacher, context, data, fresh

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.methods.finetune import Finetune
from attar._src.methods.presets import Compress
from attar._src.methods.quantize.low_precision import LowPrecision
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.rate import Rate
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.train.batch import Batch
from attar._src.work.compressed_model import FileInfo
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs
from attar._src.work.size_budget import SizeBudget

WIDTH = 48
PLAN = {"epochs": 8, "batch": 16, "optimizer": {"name": "sgd", "lr": 0.02, "weight_decay": 0.0}}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    learner = fresh(width=WIDTH)
    plan = {"epochs": 3, "batch": 32, "optimizer": {"name": "sgd", "lr": 0.05}}
    Finetune(**plan).run(learner, context(tmp_path_factory.mktemp("trained")))
    return {name: value.clone() for name, value in learner.module.state_dict().items()}


def begun(trained):
    learner = fresh(width=WIDTH)
    learner.module.load_state_dict(trained)
    return learner


def bits_per_weight(learner):
    return inspect_artifact(open_artifact(pack(learner.deployed().contents(FileInfo()))))["bits_per_weight"]


def accuracy(learner):
    x, y = data(400, seed=7)
    with torch.no_grad():
        return float((learner.graph(train=False)(x).argmax(-1) == y).float().mean())


def compressed(trained, folder, **fields):
    learner = begun(trained)
    teachers = {"big": ModuleTeacher(fresh(slot=1, width=12).module)}
    stage = Compress(teacher="big", alpha=0.0, beta=1.0, granularity="tensor", **fields, **PLAN)
    stage.run(learner, context(folder, teachers=teachers))
    return learner


def test_the_file_ends_within_its_budget(trained, tmp_path):
    loose = bits_per_weight(compressed(trained, tmp_path / "loose", size=8.0, bits=4))
    assert loose > 1.5, "what this network takes where nothing presses"
    tight = compressed(trained, tmp_path / "tight", size=1.0, bits=4)
    assert bits_per_weight(tight) <= 1.0
    assert accuracy(tight) > 0.9


def test_a_budget_of_bytes_is_that_of_the_whole_file(trained, tmp_path):
    tight = compressed(trained, tmp_path / "tight", max_bytes=1500, bits=4)
    # Without a budget 1,900. 128 bytes are for the recipe, which is not in this one, and few steps leave the rate a
    # little below.
    assert 1500 * 0.95 <= len(pack(shorten_numbers(tight.deployed()).contents(FileInfo()))) + 128 <= 1500
    assert accuracy(tight) > 0.9
    with pytest.raises(ValueError, match="one of the two: size"):
        Compress(teacher="big", size=2.0, max_bytes=1500, epochs=1)
    assert Compress(teacher="big", max_bytes=1500, activations=8, keep=["a"], epochs=1)._grid().activations == 8


def sources(learner, progress):
    batch = Batch((torch.zeros(1),), None)
    return LossInputs(torch.zeros(1, 2), (), batch, {}, progress, weights=learner.weight_view())


def test_without_a_budget_the_rate_is_the_loss_and_falls_along_its_gradient(trained):
    learner = begun(trained)
    learner.attach(Lsq(bits=4).attach(learner))
    rate, weight = Rate().build(learner), learner.tensor("second.weight")
    before = rate(sources(learner, 0.0))
    before.backward()
    with torch.no_grad():
        for parameter in learner.module.parameters():
            if parameter.grad is not None:
                parameter -= 5 * parameter.grad.sign() * 1e-3
    assert weight.grad.abs().max() > 0
    with torch.no_grad():
        after = float(rate(sources(learner, 0.0)))
    assert after < 0.97 * float(before.detach())


@pytest.mark.parametrize(("excess", "share"), [(-0.02, 0.0), (0.0, 0.5), (0.005, 0.75), (0.02, 1.0)])
def test_the_push_grows_about_the_budget(trained, excess, share):
    """Guards against a push that throws a small network far below its budget, from which nothing brings it back."""
    learner = begun(trained)
    learner.attach(Lsq(bits=4).attach(learner))
    weight, seen = learner.tensor("second.weight"), sources(learner, 1.0)
    free = Rate().build(learner)(seen)
    (whole,) = torch.autograd.grad(free, weight)
    learner.module.train()
    budget = float(Rate().build(learner).begun[0]) / (1 + excess)
    pushed = Rate(bits=budget, reach=0.5).build(learner)
    pushed.eval()
    (found,) = torch.autograd.grad(pushed(sources(learner, 1.0)), weight)
    assert float(found.norm() / whole.norm()) == pytest.approx(share, abs=1e-3)


def test_the_rate_is_what_the_coder_takes(trained):
    learner = begun(trained)
    learner.attach(Lsq(bits=4, granularity="tensor").attach(learner))
    spent = float(Rate().build(learner).begun[0])
    artifact = open_artifact(pack(learner.deployed().contents(FileInfo())))
    coded = [each for each in inspect_artifact(artifact)["tensors"] if each["kind"] == "quantized"]
    stored = sum(8 * each["payload_bytes"] for each in coded) / sum(int(np.prod(each["shape"])) for each in coded)
    assert spent < stored < 1.08 * spent, "small tensors pay for their scales and the coder's end"


def test_a_budget_presses_until_it_is_met_and_then_lets_go(trained):
    learner = begun(trained)
    learner.attach(Lsq(bits=4).attach(learner))
    rate = Rate(bits=8.0).build(learner).train()
    start = float(rate.mu)
    for _ in range(10):
        rate(sources(learner, 1.0))
    assert float(rate.mu) < start
    rate = Rate(bits=0.5, reach=0.5).build(learner).train()
    begin = [float(rate._budget(progress)) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert begin[0] > begin[1] > begin[2] == begin[3] == 0.5
    for _ in range(10):
        rate(sources(learner, 1.0))
    assert float(rate.mu) > 0.5
    known = float(rate.mu)
    rate.eval()(sources(learner, 1.0))
    assert float(rate.mu) == known, "judging does not move it"


def test_a_budget_counts_what_the_coder_saves_beyond_the_shares_of_codes(trained):
    """Guards against files above their budget, or far below, as the coder's contexts save more at some rates."""
    learner = begun(trained)
    learner.attach(Lsq(bits=4, granularity="tensor").attach(learner))
    rate = Rate(file=2.0, reach=0.5).build(learner).train()
    assert 0.9 < float(rate.measured[0]) < 1.1, "nothing to foretell by"
    most = float(rate.begun[1])
    with torch.no_grad():
        for name in ("first.weight", "second.weight"):  # half the rows have zeros alone: contexts know
            learner.tensor(name)[::2] = 0
    rate(sources(learner, 0.35))
    assert float(rate.measured[0]) > 0.9, "not before the budget is about to be reached"
    rate(sources(learner, 0.4))
    known = float(rate.measured[0])
    assert known < 0.8
    assert rate._budget(1.0) == pytest.approx(most / known)
    resumed = Rate(file=2.0, reach=0.5).build(learner).train()
    resumed.load_state_dict(rate.state_dict())
    assert resumed._budget(1.0) == rate._budget(1.0)


@pytest.mark.parametrize("coder", ["huffman", "raw"])
def test_a_coder_with_a_least_length_does_not_empty_the_weights(trained, coder):
    """Guards against a budget of the rate that falls with it, as codes of a bit or more do not follow."""
    learner = begun(trained)
    learner.coder = coder
    learner.attach(Lsq(bits=4, granularity="tensor").attach(learner))
    rate = Rate(file=3.0, reach=0.5).build(learner).train()
    with torch.no_grad():
        for name in ("first.weight", "second.weight"):
            learner.tensor(name)[torch.rand(learner.tensor(name).shape) < 0.97] = 0
    rate(sources(learner, 0.6))
    assert float(rate.measured[0]) == pytest.approx(1.1)


def test_a_budget_that_leaves_nothing_for_codes_is_refused(trained):
    learner = begun(trained)
    learner.attach(Lsq(bits=4).attach(learner))
    with pytest.raises(
        SpecError, match=r"^a file of 0.1 bits per weight .* has [\d,]+ bytes beside its graph, and everything"
    ):
        Rate(file=0.1).build(learner)


def test_the_rate_needs_codes(trained):
    with pytest.raises(SpecError, match="no weight is on an evenly spaced grid"):
        Rate().build(begun(trained))
    with pytest.raises(ValueError, match="both budgets"):
        Rate(bits=1.0, file=2.0)


def test_what_needs_a_grid_follows_it_and_what_changes_weights_comes_before():
    stage = Compress(teacher="big", size=2.0, constraints=[{"name": "freeze"}, {"name": "normalize"}], epochs=1)
    assert [rule.name for rule in stage.attached_rules()] == ["normalize", "lsq", "freeze", "low_precision"]
    assert stage.attached_rules()[-1].merge
    assert not stage.model_copy(update={"merge": False}).attached_rules()[-1].merge
    assert stage.size_budget() == SizeBudget(2.0)
    assert Finetune(epochs=1, objective=[{"name": "rate", "file": 1.5}]).size_budget() == SizeBudget(1.5)
    assert Finetune(epochs=1).size_budget() is None


def test_weights_that_are_not_numbers_end_in_a_loss_that_is_none(trained):
    learner = begun(trained)
    learner.attach(Lsq(bits=4).attach(learner))
    rate = Rate().build(learner)
    with torch.no_grad():
        learner.tensor("head.weight")[0, 0] = torch.nan
    assert not torch.isfinite(rate(sources(learner, 0.0)))


def test_a_module_that_begins_untrained_leaves_room_for_what_its_vectors_will_take(trained):
    budgets = []
    for state in (trained, None):
        learner = fresh(width=WIDTH) if state is None else begun(trained)
        if state is None:
            for name, parameter in learner.module.named_parameters():
                if parameter.dim() == 1:
                    torch.nn.init.constant_(parameter, float("weight" in name))
        for rule in (Lsq(bits=4), LowPrecision()):
            learner.attach(rule.attach(learner))
        budgets.append(float(Rate(file=2.0).build(learner).begun[1]))
    assert budgets[1] == pytest.approx(budgets[0], rel=0.05)


def test_a_budget_counts_scales_as_they_will_be_stored(trained):
    begun_with = {}
    for bits in (32, 16):
        learner = begun(trained)
        for rule in (Lsq(bits=4), LowPrecision(scale_bits=bits)):
            learner.attach(rule.attach(learner))
        begun_with[bits] = float(Rate(file=3.0).build(learner).begun[1])
        held = learner.constraints[0].weights
        counts = [each.count for each in held.values()]
        codes = sum(learner.tensor(name).numel() for name in held)
    saved = (begun_with[16] - begun_with[32]) * codes / 8
    assert counts == [WIDTH, WIDTH, 4]
    # In both cases as numbers of few digits, which take less than two bytes each.
    assert abs(saved) <= 24
    artifact = open_artifact(pack(shorten_numbers(learner.deployed()).contents(FileInfo())))
    scales = [record.value.scale for record in artifact.manifest.tensors if record.value.kind == "quantized"]
    assert sum(each.length for each in scales if each.integers) < 2 * sum(counts)


def test_the_whole_preset_ends_within_its_budget(trained, tmp_path):
    learner = begun(trained)
    teachers = {"big": ModuleTeacher(fresh(slot=1, width=12).module)}
    fields = {"scale_bits": 16, "through": [6, 5], "offset": True, "terms": ["damping"], "floats": 8}
    stage = Compress(teacher="big", alpha=0.0, beta=1.0, size=1.6, bits=4, **fields, **PLAN)
    stage.run(learner, context(tmp_path, teachers=teachers))
    artifact = open_artifact(pack(learner.deployed().contents(FileInfo())))
    assert artifact.version == "1.4"
    assert artifact.tensor("second.weight").scale_dtype == "f16"
    assert inspect_artifact(artifact)["bits_per_weight"] <= 1.6
    assert accuracy(learner) > 0.9


class Plain(torch.nn.Module):
    """No batch-norms anywhere."""

    def __init__(self):
        super().__init__()
        self.first, self.head = torch.nn.Conv2d(2, WIDTH, 3), torch.nn.Linear(WIDTH, 4)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


def test_a_module_without_batch_norms_is_compressed(tmp_path):
    torch.manual_seed(0)
    module = Plain()
    captured = capture(module, (torch.randn(2, 2, 8, 8),))
    learner = Learner(module, captured, deploy_graph(module, captured))
    stage = Compress(teacher="big", alpha=0.0, beta=1.0, size=8.0, **{**PLAN, "epochs": 1})
    assert stage.norm_batches == 50
    stage.run(learner, context(tmp_path, teachers={"big": ModuleTeacher(fresh(slot=1, width=12).module)}))
    assert learner.record[0]["norm_batches"] == 50
