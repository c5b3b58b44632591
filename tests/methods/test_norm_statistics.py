"""The running statistics of batch-norms, anew at the end of a stage."""

import copy
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from tests.house.repository import ROOT
from tests.methods.test_finetune import ADAMW, ALL, Stop, Two, results
from tests.methods.toys import ModuleTeacher, context, fresh, same
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.methods.finetune import Finetune
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
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


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from lightning_fabric import Fabric
from tests.methods.toys import data, fresh
from attar._src.methods.norm_statistics import reestimate_norms
from attar._src.train.feed import ArrayFeed

torch.set_num_threads(1)
ranks = int(sys.argv[2])
options = {"strategy": "ddp_find_unused_parameters_true"} if ranks > 1 else {}
fabric = Fabric(accelerator="cpu", devices=ranks, **options)
fabric.launch()
learner = fresh()
feed = ArrayFeed((data()[0],), batch=32 * ranks, rank=fabric.global_rank, world=ranks, seed=1)
reestimate_norms(learner, feed, fabric, batches=3, epoch=1, seed=2)
said = {name: value.tolist() for name, value in learner.module.named_buffers() if "running" in name}
if ranks == 1:  # what the two see, one after the other, with batches of half the size
    said = {}
    for index in range(2):
        half = ArrayFeed((data()[0],), batch=64, rank=index, world=2, seed=1)
        reestimate_norms(learner, half, fabric, batches=3, epoch=1, seed=2)
        for name, value in learner.module.named_buffers():
            if "running" in name:
                said[name] = (torch.tensor(said.get(name, 0.0)) + value / 2).tolist()
Path(sys.argv[1], f"of{ranks}rank{fabric.global_rank}.json").write_text(json.dumps(said))
"""


def test_ranks_agree_on_the_mean_of_what_each_sees(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PYTHONWARNINGS": "ignore"}
    for ranks in ("2", "1"):
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), ranks]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    first, second, alone = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("of2rank0", "of2rank1", "of1rank0")
    )
    assert first == second
    assert len(first) == 4
    for name, values in first.items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(alone[name]), rtol=1e-5, atol=1e-6)


def test_averaged_weights_need_statistics_of_their_own(tmp_path):
    message = r"average: batch-norms keep running statistics .* norm_batches, for example 50"
    with pytest.raises(SpecError, match=message):
        Finetune(epochs=1, average=0.5, **ADAMW).attach(fresh())
    learner, rows = fresh(), []
    lent = context(tmp_path, log=rows.append)
    stage = Finetune(epochs=2, average=0.5, norm_batches=5, constraints=[{"name": "lsq", "bits": 4}], **ADAMW)
    stage.run(learner, lent)
    judged(learner, lent, rows, averages(as_stored(learner), itertools.islice(lent.feed(32).epoch(2), 5)))
