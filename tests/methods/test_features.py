"""What layers of student and teacher compute, in the hands of objectives."""

import pytest
import torch
from lightning_fabric import Fabric
from tests.methods.test_finetune import ADAMW, Stop, results
from tests.methods.toys import ModuleTeacher, Net, context, data, fresh, same
from torch import nn

from attar._src.core.errors import SpecError, UnknownName
from attar._src.measure.class_layout import FROM_SHAPES
from attar._src.methods.finetune import Finetune
from attar._src.methods.loss_inputs import InputCollector
from attar._src.methods.teachers.teacher import LiveTeacher, live_teacher
from attar._src.model.capture import capture
from attar._src.model.taps import LayerTaps
from attar._src.train.batch import Batch
from attar._src.work.objective import Objective
from attar._src.work.term import Term

HINT = {"name": "hint", "teacher": "big", "layers": {"second": "second", "norm1": "first"}}
ATTENTION = {"name": "attention", "teacher": "big", "layers": {"norm2": "norm2"}, "weight": 3.0}

pytestmark = pytest.mark.usefixtures("one_thread")


class Around(nn.Module):
    """Operators in place, a module called twice, one that computes nothing, a block with modules of its own."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.nothing = nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Identity()
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.shared, self.drop = nn.Conv2d(4, 4, 1), nn.Dropout(0.5)

    def forward(self, x):
        y = self.block(self.act(self.conv(x)))
        y = self.shared(self.nothing(self.shared(y)).relu())
        return self.drop(y).mean((2, 3))


PATHS = ("conv", "act", "block", "block.0", "block.1", "block.2", "shared", "drop")


@pytest.fixture(scope="module")
def around():
    torch.manual_seed(0)
    module = Around()
    return module, capture(module, (torch.randn(2, 2, 6, 6),))


def hooked(module, x):
    """What the modules themselves return, the last time they are called."""
    found, hooks = {}, []
    for path in PATHS:
        keep = lambda _, __, out, path=path: found.__setitem__(path, out.detach().clone())  # noqa: E731
        hooks.append(module.get_submodule(path).register_forward_hook(keep))
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("train", [True, False])
def test_the_value_of_a_layer_is_what_its_module_returns(around, train):
    module, captured = around
    x = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    program = captured.copy(train=train)
    taps = LayerTaps(program, PATHS)
    outputs = []
    for run in (lambda: hooked(module.train(train), x), lambda: (outputs.append(program(x)), taps.take())[1]):
        torch.manual_seed(0)
        module.block[1].reset_running_stats()
        outputs.append(run())
    wanted, got = outputs[0], outputs[2]
    assert list(got) == list(PATHS)
    for path in PATHS:
        torch.testing.assert_close(got[path], wanted[path])
    assert got["conv"].min() < 0  # before the operator in place
    torch.stack([value.square().mean() for value in got.values()]).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.zero_grad()


def test_a_tap_changes_nothing_and_keeps_nothing_once_taken(around):
    _, captured = around
    x = torch.randn(3, 2, 6, 6)
    plain, program = captured.copy(train=False), captured.copy(train=False)
    taps = LayerTaps(program, PATHS)
    assert torch.equal(plain(x), program(x))
    taps.take()
    assert all(tap.kept is None for tap in taps.taps.values())
    assert not [node for node in captured.evaluation.graph.nodes if node.op == "call_module"]


def test_a_layer_that_is_not_there_is_named_with_the_nearest(around):
    for name, nearest in (("block.3", "block.2"), ("nothing", "")):
        with pytest.raises(UnknownName, match=f"no layer named '{name}'.*{nearest}"):
            LayerTaps(around[1].copy(train=True), (name,))


def test_values_are_those_after_what_holds_them(tmp_path):
    learner = fresh()
    rule = {"name": "quantize", "bits": 2, "activations": 4, "activation_overrides": {"*": 4}}
    Finetune(epochs=1, constraints=[rule], **ADAMW).run(learner, context(tmp_path))
    program = learner.graph(train=False)
    held = {
        node.args[0].name for node in program.graph.nodes if node.op == "call_module" and node.args[0].op != "get_attr"
    }
    stack = {node.name: list((node.meta.get("nn_module_stack") or {}).values()) for node in program.graph.nodes}
    path = next(path for name in sorted(held) for path, _ in stack[name] if path in ("norm1", "norm2", "head"))
    taps = LayerTaps(program, (path, "second"))
    with torch.no_grad():
        program(data(16)[0])
    value = taps.take()[path]
    assert len(value.unique()) <= 16
    with torch.no_grad():
        program(data(16)[0])
    assert len(taps.take()["second"].unique()) > 16


class Spy(Objective):
    seen = []

    def forward(self, sources):
        Spy.seen.append((self.training, sources.features, sources.teacher_features, sources.batch))
        return sources.outputs.square().mean() + sources.features["second"].square().mean()


class Look(Term):
    name: str = "look"

    def teachers(self):
        return ("big",)

    def features(self):
        return ("second", "head")

    def teacher_features(self):
        return {"big": ("norm1",)}

    def build(self, learner):
        return Spy()


class Looking(Finetune):
    """A stage whose one term is not registered."""

    def loss_terms(self):
        return (Look(),)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    learner = fresh(1, width=12)
    lent = context(tmp_path_factory.mktemp("teacher"))
    Finetune(epochs=2, **ADAMW).run(learner, lent)
    return live_teacher(learner, lent.fabric)


def look(lent):
    """Train with an objective that looks inside, and return the learner."""
    return Looking(epochs=1, **ADAMW).run(fresh(), lent)


def test_objectives_see_the_layers_of_student_and_teacher_in_training_and_validation(teacher, tmp_path):
    Spy.seen.clear()
    learner = look(context(tmp_path, teachers={"big": teacher}))
    assert [training for training, *_ in Spy.seen] == [True] * 8 + [False] * 2
    program = learner.graph(train=False)
    taps = LayerTaps(program, ("second", "head"))
    for training, ours, theirs, batch in Spy.seen:
        assert ours["second"].shape == (len(batch), 8, 8, 8)
        assert ours["second"].requires_grad == training
        assert not theirs["big"]["norm1"].requires_grad
        torch.testing.assert_close(theirs["big"]["norm1"], teacher.look(batch, ("norm1",)).layers["norm1"])
        if not training:
            with torch.no_grad():
                assert torch.equal(program(*batch.inputs), ours["head"])
            assert torch.equal(taps.take()["second"], ours["second"])


def test_under_autocast_values_come_in_float32(teacher, tmp_path):
    Spy.seen.clear()
    lent = context(tmp_path, teachers={"big": teacher})
    object.__setattr__(lent, "fabric", Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    look(lent)
    values = [value for _, ours, theirs, _ in Spy.seen for value in (*ours.values(), *theirs["big"].values())]
    assert {value.dtype for value in values} == {torch.float32}
    assert torch.equal(values[0], values[0].bfloat16().float())  # it was computed in bfloat16
    rows = []
    stage = Finetune(epochs=2, objective=[HINT, ATTENTION], **ADAMW)
    lent = context(tmp_path / "losses", teachers={"big": teacher}, log=rows.append)
    object.__setattr__(lent, "fabric", Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    stage.run(fresh(), lent)
    assert rows[1]["hint"] < rows[0]["hint"]


def test_hints_and_attention_are_learned_and_go_on_to_the_same_bytes(teacher, tmp_path):
    stage = Finetune(
        epochs=3,
        objective=[HINT, ATTENTION, {"name": "kl", "teacher": "big"}],
        constraints=[{"name": "quantize", "bits": 4, "activations": 8}],
        **ADAMW,
    )
    collector = InputCollector(stage.loss_terms(), fresh(), {}, FROM_SHAPES)
    assert collector.features == ("second", "norm1", "norm2")
    assert collector.teacher_features == {"big": ("second", "first", "norm2")}
    whole, rows, kept = fresh(), [], {}

    def keep(row):
        rows.append(row)
        kept[row["epoch"]] = context(tmp_path / "whole").store.latest()

    stage.run(whole, context(tmp_path / "whole", teachers={"big": teacher}, log=keep))
    assert rows[-1]["hint"] < 0.8 * rows[0]["hint"]
    assert rows[-1]["attention"] < rows[0]["attention"]
    assert {"validation_loss", "validation_accuracy"} <= rows[0].keys()
    last = context(tmp_path / "whole").store.latest()
    projectors = {name: tensor for name, tensor in last.tensors.items() if "projectors" in name}
    assert {tuple(tensor.shape) for tensor in projectors.values()} == {(12, 8), (12,)}
    assert not any(torch.equal(tensor, kept[1].tensors[name]) for name, tensor in projectors.items())

    def pull(row):
        raise Stop

    again = fresh()
    with pytest.raises(Stop):
        stage.run(again, context(tmp_path / "again", teachers={"big": teacher}, log=pull))
    torch.manual_seed(1)
    again = fresh()
    stage.run(again, context(tmp_path / "again", teachers={"big": teacher}))
    second = context(tmp_path / "again").store.latest()
    assert same(dict(last.tensors), dict(second.tensors))
    expected = results(again)
    done = fresh()
    stage.run(done, context(tmp_path / "again", teachers={"big": teacher}))
    assert same(expected, results(done))


def test_a_teacher_that_shows_outputs_alone_is_refused(tmp_path):
    stage = Finetune(epochs=1, objective=HINT, **ADAMW)
    with pytest.raises(SpecError, match="teacher 'big' is a file or a cache"):
        stage.run(fresh(), context(tmp_path, teachers={"big": ModuleTeacher(Net())}))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"secnd": "second"}, "no layer named 'secnd'; did you mean 'second'"),
        ({"second": "norm3"}, "teacher 'big': no layer named 'norm3'; did you mean 'norm"),
        (
            {"second": "head"},
            r"layer 'second' of shape \(2, 8, 8, 8\) and 'head' of teacher 'big', \(2, 4\), cannot be",
        ),
    ],
)
def test_layers_that_do_not_fit_are_known_before_the_first_step(teacher, tmp_path, layers, message):
    lent = context(tmp_path, teachers={"big": teacher})
    object.__setattr__(lent, "feed", pytest.fail)
    with pytest.raises(SpecError, match=message):
        Finetune(epochs=1, objective={**HINT, "layers": layers}, **ADAMW).run(fresh(), lent)


def test_a_teacher_whose_layers_are_not_known(tmp_path):
    lent = context(tmp_path)
    with pytest.raises(SpecError, match="layers of a Net cannot be read"):
        LiveTeacher(Net(), lent.fabric).look(Batch((data(4)[0],), None), ("second",))


def test_looking_costs_one_pass_and_changes_nothing_of_the_teacher(teacher):
    batch, before = Batch((data(16)[0],), None), teacher.fingerprint
    plain = teacher.outputs(batch)
    for layers in (("second",), ("second", "norm1"), ("second",)):
        seen = teacher.look(batch, layers)
        assert torch.equal(seen.main, plain)
        assert torch.equal(next(iter(seen.every.values())), plain)
        assert tuple(seen.layers) == layers
    assert teacher.fingerprint == before
