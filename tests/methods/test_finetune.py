import numpy as np
import pytest
import torch
from tests.methods.toys import ModuleTeacher, context, data, fresh, same
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.core.tensors import Quantized
from attar._src.methods.finetune import Finetune
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import FileInfo
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.objective import Objective

ADAMW = {"batch": 32, "optimizer": {"name": "adamw", "lr": 0.01}}
ALL = {
    "objective": [{"name": "kl", "teacher": "big", "weight": 0.9}, {"name": "cross_entropy", "weight": 0.1}],
    "constraints": [
        {"name": "prune", "sparsity": 0.5, "every": 2},
        {"name": "quantize", "bits": 4, "activations": 8},
        {"name": "prune_activations", "sparsity": 0.1, "layers": ["head"]},
    ],
    **ADAMW,
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    learner, rows = fresh(width=12), []
    Finetune(epochs=4, **ADAMW).run(learner, context(tmp_path_factory.mktemp("teacher"), log=rows.append))
    assert rows[-1]["validation_accuracy"] > 0.8
    return ModuleTeacher(learner.module)


def results(learner):
    """Everything that a stage leaves behind, as bytes can be compared."""
    held = {f"{i}.{k}": v for i, c in enumerate(learner.constraints) for k, v in c.state_dict().items()}
    return {k: v.clone() for k, v in (dict(learner.module.state_dict()) | held).items()}


def test_everything_together_and_the_file_computes_the_same(teacher, tmp_path):
    learner, rows = fresh(), []
    stage = Finetune(epochs=10, **ALL)
    assert stage.teachers() == ("big",)
    stage.run(learner, context(tmp_path, teachers={"big": teacher}, log=rows.append))
    assert len(rows) == 10
    assert rows[-1]["sparsity"] == pytest.approx(0.5, abs=0.02)
    assert rows[-1]["validation_accuracy"] > 0.7
    assert {"loss", "kl", "cross_entropy", "validation_loss", "lr"} <= rows[0].keys()
    piece = learner.deployed()
    assert {type(piece.tensors[n]) for n in learner.weights} == {Quantized}
    assert all(np.mean(piece.tensors[n].codes == 0) >= 0.49 for n in learner.weights)
    assert len(piece.main.activations) >= 4
    x = data(64, seed=2)[0]
    session = Session(pack(piece.contents(FileInfo()), coder="rans"))
    got = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
        trained = learner.graph(train=False)(x).numpy()
    assert np.abs(got - wanted).max() < 1e-4
    assert np.abs(trained - wanted).max() < 0.2
    assert np.mean(trained.argmax(-1) == wanted.argmax(-1)) > 0.95
    assert piece.record[0]["stage"] == "finetune"
    assert piece.record[0]["optimizer"] == {"name": "adamw", "lr": 0.01}
    assert piece.record[0]["constraints"][1] == {"name": "quantize", "activations": 8}
    assert Finetune(**piece.record[0]) == stage


class Stop(BaseException):
    """The plug is pulled."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_going_on_from_a_checkpoint_gives_the_same_bytes(teacher, tmp_path, after):
    stage = Finetune(epochs=3, **ALL)
    whole = fresh()
    rows = []
    stage.run(whole, context(tmp_path / "whole", teachers={"big": teacher}, log=rows.append))
    expected, record = results(whole), list(whole.record)

    def pull(row):
        if row["epoch"] == after:
            raise Stop

    with pytest.raises(Stop):
        stage.run(fresh(1), context(tmp_path / "again", teachers={"big": teacher}, log=pull))
    torch.manual_seed(after)
    again, more = fresh(1), []
    stage.run(again, context(tmp_path / "again", teachers={"big": teacher}, log=more.append))
    assert same(expected, results(again))
    assert record == again.record
    assert len(more) == 3 - after
    assert [strip(row) for row in more] == [strip(row) for row in rows[after:]]
    # Done: only attached, loaded and settled, without a look at any example.
    lent = context(tmp_path / "again", teachers={}, log=pytest.fail)
    object.__setattr__(lent, "feed", pytest.fail)
    third = fresh(1)
    stage.run(third, lent)
    assert same(expected, results(third))
    assert third.record == record
    assert pack(whole.deployed().contents(FileInfo())) == pack(third.deployed().contents(FileInfo()))


def strip(row):
    return {name: value for name, value in row.items() if name != "seconds"}


def test_a_stage_after_a_stage(teacher, tmp_path):
    learner = fresh()
    first = Finetune(epochs=2, constraints=[{"name": "prune", "sparsity": 0.6, "end": 0.5, "every": 1}], **ADAMW)
    second = Finetune(epochs=2, constraints=[{"name": "quantize", "bits": 3}], **ADAMW)
    first.run(learner, context(tmp_path / "0"))
    zeros = {name: learner.tensor(name).detach() == 0 for name in learner.weights}
    second.run(learner, context(tmp_path / "1"))
    for name, zero in zeros.items():
        assert int(zero.sum()) == round(0.6 * zero.numel())
        assert torch.equal(learner.tensor(name).detach() == 0, zero)
    assert [stage["stage"] for stage in learner.record] == ["finetune", "finetune"]
    piece = learner.deployed()
    assert all((piece.tensors[name].codes[zero.numpy()] == 0).all() for name, zero in zeros.items())
    expected = results(learner)
    again = fresh(1)
    for index, stage in enumerate((first, second)):
        stage.run(again, context(tmp_path / str(index)))
    assert same(expected, results(again))


def test_the_teacher_is_not_changed(teacher, tmp_path):
    before = {k: v.clone() for k, v in teacher.module.state_dict().items()}
    Finetune(epochs=1, **ALL).run(fresh(), context(tmp_path, teachers={"big": teacher}))
    assert same(before, teacher.module.state_dict())
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_it_learns_without_labels(teacher, tmp_path):
    stage = Finetune(epochs=4, objective={"name": "kl", "teacher": "big"}, **ADAMW)
    assert stage.required() == {"gradients"}
    rows = []
    stage.run(fresh(), context(tmp_path, teachers={"big": teacher}, labelled=False, log=rows.append))
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert set(rows[0]) == {"epoch", "loss", "validation_loss", "validation_accuracy", "lr", "seconds"}


def test_what_it_needs(teacher):
    assert Finetune(epochs=1).required() == {"gradients", "labels"}
    both = Finetune(epochs=1, objective=[{"name": "kl", "teacher": ["a", "b"]}, {"name": "kl", "teacher": "b"}])
    assert both.teachers() == ("a", "b")
    with pytest.raises(ValueError, match="at least 1 item"):
        Finetune(epochs=1, objective=[])


class Two(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = nn.Linear(4, 4), kind

    def forward(self, x):
        y = self.net(x.mean((2, 3)).repeat(1, 2))
        return {"dict": {"scores": y, "more": y * 2}, "tuple": (y, y * 2), "list": [y, y * 2]}[self.kind]


class Seen(Objective):
    """Looks at all outputs, and owns a parameter."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(()))

    def forward(self, sources):
        assert torch.equal(sources.every[1], sources.every[0] * 2)
        return (self.factor - 2).square() + sources.outputs.square().mean()


@pytest.mark.parametrize("kind", ["dict", "tuple", "list"])
def test_the_first_output_is_the_students_and_objectives_have_parameters(tmp_path, kind):
    torch.manual_seed(0)
    module = Two(kind)
    captured = capture(module, (torch.randn(2, 2, 8, 8),))
    rows = []
    stage = Finetune(epochs=3, objective=[{"name": Seen}, "cross_entropy", "cross_entropy"], **ADAMW)
    stage.run(Learner(module, captured, deploy_graph(module, captured)), context(tmp_path, log=rows.append))
    assert rows[-1]["Seen"] < rows[0]["Seen"]
    assert rows[0]["cross_entropy"] == rows[0]["cross_entropy 2"]
    latest = context(tmp_path).store.latest()
    assert "job.objective.0.factor" in latest.tensors
    assert latest.done


def test_weights_of_terms_and_their_schedules(teacher, tmp_path):
    rows = []
    moving = {"start": 1.0, "stop": 0.0}
    stage = Finetune(
        epochs=2,
        objective=[{"name": "kl", "teacher": "big", "weight": 0.0}, {"name": "cross_entropy", "weight": moving}],
        **ADAMW,
    )
    stage.run(fresh(), context(tmp_path, teachers={"big": teacher}, log=rows.append))
    assert rows[0]["loss"] < rows[0]["cross_entropy"]
    assert rows[1]["loss"] < rows[0]["loss"] / 1.5


def loss(outputs, targets):
    return outputs.square().mean()


def stage(outputs, targets):
    return outputs.abs().mean()


def test_a_loss_may_be_called_as_figures_and_the_journal_are(tmp_path):
    rows, learner = [], fresh()
    terms = [{"name": loss, "weight": 0.5}, {"name": stage}, {"name": loss}, "cross_entropy", "cross_entropy"]
    rules = [{"name": "prune", "sparsity": 0.5}, {"name": sparse}]
    Finetune(epochs=1, objective=terms, constraints=rules, **ADAMW).run(learner, context(tmp_path, log=rows.append))
    parts = {"loss 1", "stage 1", "loss 2", "cross_entropy", "cross_entropy 2"}
    assert parts | {"loss", "sparsity", "sparsity 2"} <= rows[0].keys()
    assert "stage" not in rows[0]
    assert (rows[0]["sparsity 2"], rows[0]["loss 1 1"]) == (0.25, 3)
    total = 0.5 * rows[0]["loss 1"] + sum(rows[0][name] for name in parts - {"loss 1"})
    assert rows[0]["loss"] == pytest.approx(total, rel=1e-5)


class Quarter(Constraint):
    def report(self):
        return {"sparsity": 0.25, "loss 1": 3}


def sparse(learner):
    return Quarter({})


def test_without_validation_there_is_less_to_say(tmp_path):
    rows, lent = [], context(tmp_path, log=lambda row: rows.append(row))
    object.__setattr__(lent, "validation", None)
    Finetune(epochs=1, **ADAMW).run(fresh(), lent)
    assert set(rows[0]) == {"epoch", "loss", "lr", "seconds"}


def test_the_figures_are_those_of_the_evaluation_program(tmp_path):
    rows, learner = [], fresh()
    lent = context(tmp_path, log=rows.append)
    Finetune(epochs=1, constraints=["quantize"], **ADAMW).run(learner, lent)
    batches = list(lent.validation.once())
    with torch.no_grad():
        outputs = torch.cat([learner.graph(train=False)(*batch.inputs) for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    assert rows[0]["validation_accuracy"] == float((outputs.argmax(-1) == targets).float().mean())
    loss = nn.functional.cross_entropy(outputs, targets)
    assert rows[0]["validation_loss"] == pytest.approx(float(loss), rel=1e-5)


class Modes(Objective):
    """Remembers whether it was in training mode, for each size of batch."""

    seen = set()

    def forward(self, sources):
        self.seen.add((len(sources.batch), self.training))
        return nn.functional.cross_entropy(sources.outputs, sources.batch.targets)


def test_looking_at_validation_examples_changes_nothing(tmp_path):
    found = []
    for slot in (0, 1):
        learner, lent = fresh(slot), context(tmp_path / str(slot))
        if slot:
            object.__setattr__(lent, "validation", None)
        constraints = [{"name": "quantize", "activations": 8, "freeze": 1.0}]
        constraints += [{"name": "prune_activations", "sparsity": 0.1, "freeze": 1.0}]
        Finetune(epochs=2, objective=Modes(), constraints=constraints, **ADAMW | {"batch": 64}).run(learner, lent)
        found.append(results(learner))
    assert same(*found)
    assert Modes.seen == {(64, True), (32, False)}


@pytest.mark.parametrize(
    "constraint", [{"name": "prune", "sparsity": 0.5, "keep": ["haed"]}, {"name": "quantize", "keep": ["haed"]}]
)
def test_what_does_not_fit_is_known_before_the_first_step(tmp_path, constraint):
    lent = context(tmp_path)
    object.__setattr__(lent, "feed", pytest.fail)
    with pytest.raises(SpecError, match=r"^constraints\.1: no .*did you mean"):
        Finetune(epochs=1, constraints=["normalize", constraint]).run(fresh(), lent)
