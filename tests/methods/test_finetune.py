import numpy as np
import pytest
import torch
from tests.methods.toys import ModuleTeacher, context, data, fresh, same

from attar.artifact.writer import pack
from attar.core.tensors import Quantized
from attar.methods.finetune import Finetune
from attar.runtime import Session
from attar.work.workpiece import Use

ALL = {
    "objective": [{"name": "kl", "teacher": "big", "weight": 0.9}, {"name": "cross_entropy", "weight": 0.1}],
    "constraints": [{"name": "prune", "sparsity": 0.5, "every": 2}, {"name": "quantize", "bits": 4, "activations": 8}],
    "batch": 32,
    "optimizer": {"name": "adamw", "lr": 0.01},
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    learner = fresh(width=12)
    rows = []
    lent = context(tmp_path_factory.mktemp("teacher"), log=rows.append)
    Finetune(epochs=4, batch=32, optimizer={"name": "adamw", "lr": 0.01}).run(learner, lent)
    assert rows[-1]["validation_accuracy"] > 0.8
    return ModuleTeacher(learner.module)


def test_everything_together_and_the_file_computes_the_same(teacher, tmp_path):
    learner, rows = fresh(), []
    stage = Finetune(epochs=6, **ALL)
    assert stage.teachers() == ("big",)
    stage.run(learner, context(tmp_path, teachers={"big": teacher}, log=rows.append))
    assert len(rows) == 6
    assert rows[-1]["sparsity"] == pytest.approx(0.5, abs=0.02)
    assert rows[-1]["validation_accuracy"] > 0.7
    assert {"loss", "kl", "cross_entropy", "validation_loss", "lr"} <= rows[0].keys()
    piece = learner.deployed()
    assert {type(piece.tensors[n]) for n in ("first.weight", "second.weight", "head.weight")} == {Quantized}
    assert all(np.mean(piece.tensors[f"{n}.weight"].codes == 0) >= 0.49 for n in ("first", "second", "head"))
    assert len(piece.activations) >= 4
    x = data(64, seed=2)[0]
    session = Session(pack(piece.contents(Use()), coder="rans"))
    got = session.run({session.inputs[0].name: x.numpy()})[session.outputs[0].name]
    with torch.no_grad():
        wanted = piece.simulate(torch.float64)(x.double()).numpy()
        trained = learner.graph(train=False)(x).numpy()
    assert np.abs(got - wanted).max() < 1e-4
    assert np.abs(trained - wanted).max() < 0.2
    assert np.mean(trained.argmax(-1) == wanted.argmax(-1)) > 0.95
    assert piece.record[0]["constraints"][1] == {"name": "quantize", "activations": 8}
