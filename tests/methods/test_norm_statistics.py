"""The running statistics of batch-norms, anew at the end of a stage."""

import copy
import itertools

import pytest
import torch
from lightning_fabric import Fabric
from tests.methods.test_finetune import ADAMW, ALL, Stop, Two, results
from tests.methods.toys import ModuleTeacher, context, data, fresh, same
from tests.two_ranks import said_by_both
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.methods.finetune import Finetune
from attar._src.methods.norm_statistics import reestimate_norms
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.train.feed import ArrayFeed
from attar._src.work.learner import Learner

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher():
    return ModuleTeacher(copy.deepcopy(fresh(width=12).module))


def averages(module, batches):
    """What every batch-norm sees in training, in float64, batch by batch: the plain means of means and variances."""
    module, seen = copy.deepcopy(module).double().train(), {}
    for name, norm in module.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            keep = lambda _, given, name=name: seen.setdefault(name, []).append(given[0])  # noqa: E731
            norm.register_forward_pre_hook(keep)
    with torch.no_grad():
        for batch in batches:
            module(batch.inputs[0].double())
    return {
        name: [
            torch.stack([f(x.transpose(0, 1).flatten(1), 1) for x in values]).mean(0) for f in (torch.mean, torch.var)
        ]
        for name, values in seen.items()
    }


def as_stored(learner):
    """The module with its weights as the file has them."""
    stored = copy.deepcopy(learner.module)
    with torch.no_grad():
        for name, tensor in learner.compressed_weights().items():
            stored.get_parameter(name).copy_(torch.from_numpy(tensor.dense()))
    return stored


def judged(learner, lent, rows, expected):
    """The running statistics are those expected, and the last row is that of these; what they make of the examples."""
    for name, (mean, variance) in expected.items():
        norm = learner.module.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        outputs = torch.cat([learner.graph(train=False)(*batch.inputs) for batch in lent.validation.once()])
    assert rows[-1]["validation_accuracy"] == float((outputs.argmax(-1) == lent.validation.y).float().mean())
    return outputs


@pytest.mark.parametrize("count", [5, 11])  # an epoch has 8
def test_running_statistics_are_taken_anew_for_the_weights_that_are_stored(tmp_path, count):
    learner, rows = fresh(), []
    stage = Finetune(epochs=2, norm_batches=count, constraints=[{"name": "quantize", "bits": 2}], **ADAMW)
    lent = context(tmp_path, log=rows.append)
    stage.run(learner, lent)
    feed = lent.feed(32)
    expected = averages(as_stored(learner), itertools.islice(itertools.chain(feed.epoch(2), feed.epoch(3)), count))
    assert set(expected) == {"norm1", "norm2"}
    outputs = judged(learner, lent, rows, expected)
    loss = nn.functional.cross_entropy(outputs, lent.validation.y)
    assert rows[-1]["validation_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_taking_statistics_anew_moves_nothing_else_and_goes_on_to_the_same_bytes(teacher, tmp_path):
    found = {}
    for count in (0, 3):
        found[count] = learner = fresh()
        Finetune(epochs=2, norm_batches=count, **ALL).run(
            learner, context(tmp_path / str(count), teachers={"big": teacher})
        )
        found[count] = results(learner)
    moved = {name for name in found[0] if not same({name: found[0][name]}, {name: found[3][name]})}
    assert moved == {f"norm{index}.running_{what}" for index in (1, 2) for what in ("mean", "var")}
    stage = Finetune(epochs=2, norm_batches=3, **ALL)

    def pull(row):
        if row["epoch"] == after:
            raise Stop

    for after in (1, 2):
        with pytest.raises(Stop):
            stage.run(fresh(), context(tmp_path / f"cut{after}", teachers={"big": teacher}, log=pull))
        torch.manual_seed(after)
        again = fresh()
        stage.run(again, context(tmp_path / f"cut{after}", teachers={"big": teacher}))
        assert same(found[3], results(again))
    # Done: what was taken is in the checkpoint.
    lent = context(tmp_path / "3", teachers={"big": teacher})
    object.__setattr__(lent, "feed", pytest.fail)
    done = fresh()
    stage.run(done, lent)
    assert same(found[3], results(done))


class Twice(nn.Module):
    """One batch-norm called twice, through the functional so that it can be captured; dropout."""

    def __init__(self):
        super().__init__()
        self.net, self.norm, self.drop = nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x):
        y = self.net(x.mean((2, 3)))
        for scale in (1.0, 3.0):
            n = self.norm
            y = nn.functional.batch_norm(y * scale, n.running_mean, n.running_var, n.weight, n.bias, self.training)
        return self.drop(y)


def test_a_shared_batch_norm_averages_its_calls_and_dropout_stays_off(tmp_path):
    torch.manual_seed(0)
    module = Twice()
    captured = capture(module, (torch.randn(2, 2, 8, 8),))
    learner, lent = Learner(module, captured, deploy_graph(module, captured)), context(tmp_path)
    Finetune(epochs=1, norm_batches=4, **ADAMW).run(learner, lent)
    means = []
    with torch.no_grad():
        for batch in itertools.islice(lent.feed(32).epoch(1), 4):
            y = module.net(batch.inputs[0].mean((2, 3)))
            for scale in (1.0, 3.0):
                y, n = y * scale, module.norm
                means.append(y.mean(0))
                y = nn.functional.batch_norm(y, None, None, n.weight, n.bias, True)
    torch.testing.assert_close(module.norm.running_mean, torch.stack(means).mean(0), rtol=1e-5, atol=1e-6)


def test_statistics_are_taken_anew_where_nothing_is_validated_and_where_there_is_no_norm(tmp_path):
    learner, lent = fresh(), context(tmp_path / "0")
    object.__setattr__(lent, "validation", None)
    before = learner.module.norm1.running_mean.clone()
    Finetune(epochs=1, norm_batches=2, optimizer={"name": "sgd", "lr": 1e-9}, batch=256).run(learner, lent)
    (mean, _) = averages(learner.module, itertools.islice(lent.feed(256).epoch(1), 1))["norm1"]
    assert not torch.allclose(before, learner.module.norm1.running_mean)
    torch.testing.assert_close(learner.module.norm1.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    module = Two("tuple")
    captured = capture(module, (torch.randn(2, 2, 8, 8),))
    plain = Learner(module, captured, deploy_graph(module, captured))
    Finetune(epochs=1, norm_batches=2, **ADAMW).run(plain, context(tmp_path / "1"))


def retaken_on_rank(fabric, _):
    return retaken(fresh(), fabric, rank=fabric.global_rank)


def retaken(learner, fabric, rank):
    """The running statistics of one of two ranks."""
    feed = ArrayFeed((data()[0],), batch=64, rank=rank, world=2, seed=1)
    reestimate_norms(learner, feed, fabric, batches=3, epoch=1, seed=2)
    return {name: value.tolist() for name, value in learner.module.named_buffers() if "running" in name}


def test_ranks_agree_on_the_mean_of_what_each_sees(tmp_path):
    first, second = said_by_both(
        "tests.methods.test_norm_statistics:retaken_on_rank", tmp_path, first="tests.methods.toys:fresh"
    )
    assert first == second
    assert len(first) == 4
    # What the two see, one after the other, where there is no other rank.
    fabric = Fabric(accelerator="cpu", devices=1)
    alone = [retaken(fresh(), fabric, rank) for rank in range(2)]
    for name, values in first.items():
        assert alone[0][name] != alone[1][name]
        mean = (torch.tensor(alone[0][name]) + torch.tensor(alone[1][name])) / 2
        torch.testing.assert_close(torch.tensor(values), mean, rtol=1e-5, atol=1e-6)


def test_averaged_weights_need_statistics_of_their_own(tmp_path):
    message = r"average: batch-norms keep running statistics .* norm_batches, for example 50"
    with pytest.raises(SpecError, match=message):
        Finetune(epochs=1, average=0.5, **ADAMW).attach(fresh())
    learner, rows = fresh(), []
    lent = context(tmp_path, log=rows.append)
    stage = Finetune(epochs=2, average=0.5, norm_batches=5, constraints=[{"name": "lsq", "bits": 4}], **ADAMW)
    stage.run(learner, lent)
    judged(learner, lent, rows, averages(as_stored(learner), itertools.islice(lent.feed(32).epoch(2), 5)))
