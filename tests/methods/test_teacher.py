"""Teachers say what their models compute, without gradient, in the run's precision."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.core.errors import DataError, SpecError
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.methods.teachers.teacher import DeployedTeacher, LiveTeacher, live_teacher
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo
from attar._src.work.context import Context
from attar._src.work.learner import Learner


def _fabric(**options):
    fabric = Fabric(accelerator="cpu", devices=1, **options)
    fabric.launch()
    return fabric


def _images(count, seed=0):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def _net():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
    return nn.Sequential(*layers)


@pytest.fixture
def batch():
    return Batch((_images(16),), torch.zeros(16, dtype=torch.int64), torch.arange(16))


@pytest.fixture
def learner():
    module = _net()
    module(_images(64, seed=2))  # running statistics of its own
    captured = capture(module, (_images(2),))
    return Learner(module, captured, deploy_graph(module, captured))


def test_live_is_the_module_in_evaluation(learner, batch):
    before = {name: tensor.clone() for name, tensor in learner.module.state_dict().items()}
    said = live_teacher(learner, _fabric()).outputs(batch)
    assert not said.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(said, learner.module.eval()(*batch.inputs))
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.module.state_dict().items())


def test_any_module_is_a_teacher_and_is_put_into_evaluation(batch):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.drop = _net(), nn.Dropout(0.5)

        def forward(self, x):
            first = self.net(self.drop(x))
            return {"logits": first, "more": first * 2}

    module = Several().train()
    teacher = LiveTeacher(module, _fabric())
    assert torch.equal(teacher.outputs(batch), teacher.outputs(batch))
    with torch.no_grad():
        assert torch.equal(teacher.outputs(batch), module.net(*batch.inputs))


def test_live_in_bfloat16_gives_float32(learner, batch):
    said = live_teacher(learner, _fabric(precision="bf16-mixed")).outputs(batch)
    exact = live_teacher(learner, _fabric()).outputs(batch)
    assert said.dtype is torch.float32
    assert not torch.equal(said, exact)
    torch.testing.assert_close(said, exact, rtol=0.05, atol=0.05)


def test_what_a_teacher_is_held_to_holds(learner, batch):
    free = live_teacher(learner, _fabric())
    exact = free.outputs(batch)
    learner.attach(StraightThrough(bits=2).attach(learner))
    held = live_teacher(learner, _fabric())
    assert not torch.allclose(held.outputs(batch), exact)
    assert held.fingerprint != free.fingerprint


def test_fingerprints_tell_states_programs_and_precisions_apart(learner):
    fabric = _fabric()
    first = live_teacher(learner, fabric).fingerprint
    assert first == live_teacher(learner, fabric).fingerprint
    assert live_teacher(learner, _fabric(precision="bf16-mixed")).fingerprint != first
    assert LiveTeacher(learner.module, fabric).fingerprint != first
    learner.module[1].running_mean[0] += 1e-6
    assert live_teacher(learner, fabric).fingerprint != first


@pytest.mark.parametrize("bits", [None, 8])
def test_a_file_says_what_its_session_does(learner, batch, bits):
    piece = learner.deployed()
    if bits is not None:
        calibration = CalibrationInputs(((_images(64),),))
        piece = PostTrainingQuantize(bits=bits).run(piece, Context(calibration))
    session = Session(pack(piece.contents(FileInfo())), threads=1)
    teacher = DeployedTeacher(session)
    said = teacher.outputs(batch)
    assert said.dtype is torch.float32
    assert torch.equal(said, torch.from_numpy(session.run(batch.inputs[0].numpy())))
    exact = live_teacher(learner, _fabric()).outputs(batch)
    torch.testing.assert_close(said, exact, rtol=0, atol=1e-4 if bits is None else 0.15)
    assert teacher.fingerprint == session.artifact.sha256


def test_a_file_that_takes_other_inputs(learner, batch):
    teacher = DeployedTeacher(Session(pack(learner.deployed().contents(FileInfo())), threads=1))
    with pytest.raises(SpecError, match="batches have 2 inputs"):
        teacher.outputs(Batch((batch.inputs[0], batch.inputs[0]), None))
    name, images = teacher.session.inputs[0].name, batch.inputs[0]
    named = Batch((images.flatten(1), images), None, names=("others", name))
    assert torch.equal(teacher.outputs(named), teacher.outputs(batch))
    with pytest.raises(DataError, match=f"a batch of others lacks {name}"):
        teacher.outputs(Batch((images,), None, names=("others",)))


def test_a_program_takes_its_own_arguments_and_teaches_its_logits(learner, batch):
    class Scored(torch.nn.Module):
        def forward(self, x):
            return {"hidden": x, "logits": x.flatten(1)[:, :4]}

    named = Batch((torch.zeros(16, 1), batch.inputs[0]), None, names=("others", "x"))
    said = LiveTeacher(Scored(), _fabric(), ("x",)).outputs(named)
    assert torch.equal(said, batch.inputs[0].flatten(1)[:, :4])
