from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.train.jobs import Work, cpu, feed
from torch import nn

from attar._src.core.errors import AttarError, DataError, SpecError
from attar._src.model.capture import capture
from attar._src.train.feed import LoaderFeed
from attar._src.train.fit import fit, parameter_groups
from attar._src.train.plan import TrainingPlan
from attar._src.train.store import CheckpointStore

pytestmark = pytest.mark.usefixtures("one_thread")


def train(work, folder, *, epochs=4, on=None, precision="32-true", rows=None, **plan):
    log = (lambda row: None) if rows is None else rows.append
    made = TrainingPlan.model_validate({"epochs": epochs, "batch": 32, **plan})
    return fit(
        *(work.job(), made, on or feed(), cpu(precision)),
        seed=5,
        store=CheckpointStore(folder),
        log=log,
        what="the student",
    )


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


PLANS = {
    "sgd": {"optimizer": "sgd", "clip": 1.0},
    "adamw": {"optimizer": "adamw", "schedule": "cosine", "warmup": 0.1},
    "adam": {"optimizer": {"name": "adam", "weight_decay": 0.01}},
    "averaged": {"optimizer": "sgd", "schedule": "constant", "average": 0.6},
    "own": {"optimizer": {"name": "torch.optim:RMSprop", "arguments": {"momentum": 0.9}, "lr": 0.01}},
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_going_on_from_a_checkpoint_gives_the_same_bytes(tmp_path, plan, precision):
    straight, stopped, resumed = Work(), Work(stop=3), Work(seed=8)
    run = partial(train, precision=precision, **PLANS[plan])
    history, rows = run(straight, tmp_path / "straight"), []
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "halves")
    torch.manual_seed(77)
    again = run(resumed, tmp_path / "halves", rows=rows)
    assert resumed.bytes() == straight.bytes() != Work().bytes()
    assert without_seconds(again) == without_seconds(history)
    assert [row["epoch"] for row in rows] == [3, 4]
    assert run(Work(), tmp_path / "halves") == again


def test_a_captured_module_is_trained_itself_and_goes_on_to_the_byte(tmp_path):
    def program(module):
        return capture(module, (torch.randn(4, 1, 8, 8),)).training

    before, straight, stopped, resumed = (Work(program=program, stop=stop) for stop in (None, None, 2, None))
    train(straight, tmp_path / "straight", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path / "halves", epochs=2)
    train(resumed, tmp_path / "halves", epochs=2)
    assert resumed.bytes() == straight.bytes()
    changed = {name for name, data in straight.bytes().items() if data != before.bytes()[name]}
    # The count of batches is not part of a program, and nothing reaches what is unused.
    assert changed == {n for n in straight.bytes() if "num_batches" not in n and "unused" not in n}


def test_a_shuffling_loader_goes_on_to_the_byte(tmp_path):
    x, y = feed().inputs[0].float() / 16, feed().targets
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64, shuffle=True)
    straight, stopped, resumed = Work(), Work(stop=2), Work()
    train(straight, tmp_path / "straight", on=LoaderFeed(data, seed=2))
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path / "halves", on=LoaderFeed(data, seed=2))
    train(resumed, tmp_path / "halves", on=LoaderFeed(data, seed=2))
    assert resumed.bytes() == straight.bytes()


def test_the_seed_matters(tmp_path):
    one, other = Work(), Work()
    train(one, tmp_path / "one", epochs=1, on=feed(seed=1))
    train(other, tmp_path / "other", epochs=1, on=feed(seed=2))
    assert one.bytes() != other.bytes()


def test_a_row_has_the_parts_the_figures_and_the_rate(tmp_path):
    work, rows = Work(), []
    history = train(work, tmp_path, epochs=2, rows=rows, schedule="linear")
    assert history == rows
    assert [list(row) for row in rows] == [["epoch", "loss", "hard", "figure", "lr", "seconds"]] * 2
    assert [row["lr"] for row in rows] == pytest.approx([0.1 * 7 / 12, 0.1 / 12])
    assert work.steps == [(step, 12) for step in range(12)]
    assert [progress for _, progress, _ in work.seen] == [step / 12 for step in range(12)]
    assert {dtype for *_, dtype in work.seen} == {torch.float32}
    assert 0 < rows[0]["hard"] < rows[0]["loss"]


def test_the_mean_is_over_examples_not_batches(tmp_path):
    class Constant(Work):
        def loss(self, outputs, batch, progress):
            return {"loss": outputs.sum() * 0 + len(batch)}

    sizes = LoaderFeed([(torch.rand(n, 1, 8, 8), torch.zeros(n).long()) for n in (30, 10)])
    assert train(Constant(), tmp_path, epochs=1, on=sizes)[0]["loss"] == 25


def test_training_teaches(tmp_path):
    x = torch.rand(256, 1, 8, 8)
    learnable = feed(augment=()).__class__((x,), (x.mean((1, 2, 3)) > 0.5).long(), batch=32)
    history = train(Work(), tmp_path, epochs=8, on=learnable, precision="bf16-mixed")
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]


@pytest.mark.parametrize(("step", "named"), [(3, "step 3 of epoch 1"), (6 + 2, "step 2 of epoch 2")])
def test_a_loss_that_is_not_finite_names_its_step_and_the_fix(tmp_path, step, named):
    with pytest.raises(AttarError, match=rf"the loss is nan in {named} \(lr .*lower optimizer\.lr, .* or set clip: 1,"):
        train(Work(poison=step), tmp_path)
    kept = CheckpointStore(tmp_path).latest()
    assert (kept.epoch if kept else 0) == (step - 1) // 6


def test_a_loss_is_looked_at_within_a_long_epoch(tmp_path):
    work = Work(poison=2)
    with pytest.raises(AttarError, match="step 2 of epoch 1"):
        train(work, tmp_path, on=feed(200, batch=2))
    assert len(work.seen) == 50


def test_frozen_parameters_stay_and_vectors_and_constraints_do_not_decay(tmp_path):
    whole = nn.Module()
    whole.program, whole.extra = nn.Module(), nn.Linear(2, 2)
    whole.program.layer, whole.program.attar_parametrization0_layer = nn.Linear(2, 2), nn.Linear(2, 2)
    whole.program.frozen = nn.Linear(2, 2).requires_grad_(False)
    names = {id(p): name for name, p in whole.named_parameters()}
    decayed, others = ({names[id(p)] for p in group} for group in parameter_groups(whole))
    assert decayed == {"program.layer.weight", "extra.weight"}
    held = {"program.attar_parametrization0_layer.weight", "program.attar_parametrization0_layer.bias"}
    assert others == {"program.layer.bias", "extra.bias"} | held
    work = Work()
    work.module[0].requires_grad_(False)
    before = work.module[0].weight.clone()
    train(work, tmp_path, epochs=1)
    assert torch.equal(work.module[0].weight, before)


def test_nothing_to_train_and_nothing_to_train_on(tmp_path):
    work = Work()
    work.all.requires_grad_(False)
    with pytest.raises(SpecError, match="nothing to train"):
        train(work, tmp_path)
    once = LoaderFeed([(torch.rand(4, 1, 8, 8), torch.zeros(4).long())])
    once.loader.clear()
    with pytest.raises(DataError, match="epoch 1 has no batches"):
        train(Work(), tmp_path, on=once)


def test_a_loader_may_give_more_batches_than_it_said(tmp_path):
    class Short(list):
        def __len__(self):
            return 1

    batches = Short([(torch.rand(4, 1, 8, 8), torch.zeros(4).long())] * 3)
    work = Work()
    train(work, tmp_path, epochs=2, on=LoaderFeed(batches))
    assert work.steps == [(0, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2)]


def test_fewer_epochs_than_are_done(tmp_path):
    train(Work(), tmp_path, epochs=2)
    with pytest.raises(AttarError, match="the student: the checkpoint has completed 2 epochs but the plan asks for 1"):
        train(Work(), tmp_path, epochs=1)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AttarError, match="cannot be written"):
        train(Work(), tmp_path / "file")


def test_clipping_bounds_the_step(tmp_path):
    work = Work()
    before = [p.detach().clone() for p in work.all.parameters()]
    one = LoaderFeed([(feed().inputs[0][:32].float(), feed().targets[:32])])
    plan = {"optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}, "schedule": "constant"}
    train(work, tmp_path, epochs=1, on=one, clip=1e-3, **plan)
    moved = torch.stack([(p.detach() - b).norm() for p, b in zip(work.all.parameters(), before, strict=True)]).norm()
    assert float(moved) == pytest.approx(1e-3, rel=1e-2)


class Watched(Work):
    """Keeps what the parameters are before each step."""

    def job(self):
        self.before = []
        return replace(super().job(), before_step=lambda step, steps: self.before.append(self.parameters()))

    def parameters(self):
        return {name: p.detach().double().clone() for name, p in self.all.named_parameters()}


@pytest.mark.parametrize(("average", "count"), [(0.5, 6), (0.05, 1), (0.26, 4), (1.0, 12)])
def test_training_ends_with_the_mean_of_the_last_steps(tmp_path, average, count):
    plain, averaged = Watched(), Watched()
    plan = {"epochs": 2, "schedule": "constant"}  # of 6 steps
    train(plain, tmp_path / "plain", **plan)
    history = train(averaged, tmp_path / "averaged", average=average, **plan)
    after = [*plain.before[1:], plain.parameters()][-count:]
    for name, found in averaged.parameters().items():
        torch.testing.assert_close(found, sum(each[name] for each in after) / count, rtol=1e-5, atol=1e-7)
    # It is looked at from beside: the steps are the same.
    assert [row["loss"] for row in history] == [row["loss"] for row in train(plain, tmp_path / "plain", **plan)]
    assert (averaged.bytes() != plain.bytes()) == (count > 1)
