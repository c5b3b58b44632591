"""What a stage, a loss or a metric would fail at hours later is found before any training."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import attar
from attar._src.core.errors import AttarError, ModelError
from attar._src.deploy.dry_run import dry_run
from attar._src.measure.metric import find
from attar._src.model.capture import capture
from attar._src.pipeline.data_splits import load_splits
from attar._src.pipeline.model_source import model_sources
from attar._src.pipeline.preflight.try_stages import try_stages
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo
from attar._src.work.objective import Objective

TRAIN = {"stage": "train", "epochs": 1, "batch": 10}
COMPRESS = {"stage": "compress", "teacher": "big", "max_bytes": 4000, "epochs": 1, "batch": 10}
CODEBOOK = {"name": "codebook", "bits": 2, "granularity": "bucket:8"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def net(classes=3, norm=False, teacher=False):
    """Captured once for all tests: nothing may change it."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU(), nn.Linear(8, classes)
    )


@cache
def rehearsed_of(module):
    x = torch.from_numpy(arrays()[0])
    return dry_run(module, FileInfo(), CalibrationInputs(((x,),)), dynamic=(0,))


def arrays(classes=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(61, 6)).astype(np.float32)
    # The largest label is one example's alone.
    y = np.where(np.arange(61) == 40, classes - 1, np.arange(61) % max(classes - 1, 1))
    return x, y


def look(*stages, data=None, module=None, **fields):
    """Foresee a recipe of an untrained teacher and one model that does these stages."""
    models = {"teacher": {"source": net(teacher=True)}, "net": {"source": module or net(), "stages": list(stages)}}
    recipe = attar.Recipe(data=data or {"train": arrays(), "test": arrays()}, models=models, **fields)
    metric = find(recipe.metric)
    sets = load_splits(recipe.data, recipe.folder, task=recipe.task, metric=metric[0])
    made = model_sources(recipe)
    rehearsed = {name: rehearsed_of(each.module) for name, each in made.items()}
    before = [{key: value.clone() for key, value in each.module.state_dict().items()} for each in made.values()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    try:
        try_stages(recipe, sets, made, rehearsed, metric)
    finally:
        after = [each.module.state_dict() for each in made.values()]
        assert all(torch.equal(old[key], new[key]) for old, new in zip(before, after, strict=True) for key in old)
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1] == random.getstate()
        assert (states[2] == np.random.get_state()[1]).all()


def refusal(*stages, **given):
    with pytest.raises(AttarError) as caught:
        look(*stages, **given)
    return str(caught.value)


def drops(outputs, targets):
    return nn.functional.cross_entropy(torch.dropout(outputs, 0.1, train=True), targets)


def test_what_can_work_passes_and_nothing_is_changed():
    look(
        {**TRAIN, "loss": drops},
        {"stage": "prune", "sparsity": 0.5, "epochs": 1, "batch": 10},
        {
            **TRAIN,
            "stage": "finetune",
            "objective": [{"name": "kl", "teacher": "teacher"}, "cross_entropy"],
            "constraints": [{"name": "quantize", "bits": 4, "activations": 8, "scales": "mse"}],
        },
        {"stage": "quantize", "bits": 8, "activations": 8},
        module=net(norm=True),
    )


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({**TRAIN, "constraints": [{"name": "prune", "sparsity": 0.5, "layers": ["x*"]}]}, "no layer named 'x*'"),
        ({**TRAIN, "constraints": [{"name": "prune", "sparsity": 0.5, "score": "no.py:Score"}]}, "no.py"),
        ({**TRAIN, "constraints": [{"name": "quantize", "scales": "no.py:Solver"}]}, "no.py"),
        ({"stage": "quantize", "scales": "no.py:Solver"}, "no.py"),
        ({"stage": "quantize", "activations": 8, "observer": "no.py:Observer"}, "no.py"),
        ({"stage": "quantize", "overrides": {"y*": 4}}, "y*"),
        ({**TRAIN, "loss": lambda outputs, targets: outputs @ targets}, "loss "),
        ({**TRAIN, "loss": lambda outputs, targets: outputs}, "a loss is one number"),
        (
            {**TRAIN, "loss": lambda outputs, targets: outputs.detach().mean()},
            "no loss depends on a trained parameter",
        ),
    ],
)
def test_a_later_stage_that_cannot_work_is_named(stage, message):
    said = refusal(TRAIN, stage)
    assert said.startswith("recipe.models.net.stages.1: ")
    assert message in said


def test_a_tensor_without_the_inputs_that_a_solver_needs_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from attar.extend import Absmax, InputHessian\nclass Mine(Absmax):\n    inputs = (InputHessian,)\n"
    )
    stage = {"stage": "quantize", "scales": f"{tmp_path}/mine.py:Mine"}
    look(TRAIN, stage)
    said = refusal(TRAIN, stage | {"overrides": {"0.bias": 8}})
    assert said.startswith("recipe.models.net.stages.1: ")
    assert "needs InputHessian" in said


def test_what_may_not_follow_a_stage_before_is_named():
    grid = {**TRAIN, "constraints": [{"name": "normalize"}, {"name": "lsq", "bits": 4}]}
    said = refusal(grid, {"stage": "prune", "sparsity": 0.5, "epochs": 1, "batch": 10})
    assert said.startswith("recipe.models.net.stages.1: normalize at ")
    assert "prune acts after it" in said
    # Whether a threshold leaves anything is known of trained weights alone.
    look(
        TRAIN,
        {"stage": "prune", "threshold": 9.0, "shape": "once", "epochs": 1, "batch": 10},
        grid | {"constraints": []},
    )


def test_labels_beyond_the_outputs_are_found_though_one_example_has_them():
    said = refusal(TRAIN, data={"train": arrays(5), "test": arrays(5)}, metric=lambda outputs, targets: 1.0)
    assert said.startswith("recipe.models.net.stages.0: loss cross_entropy: ")
    assert "between 0 and 4" in said


def test_a_teacher_of_other_classes_is_found():
    said = refusal({"stage": "distill", "teacher": "teacher", "epochs": 1, "batch": 10}, module=net(4))
    assert said.startswith("recipe.models.net.stages.0: loss kl: ")


def test_a_metric_that_cannot_judge_is_found():
    said = refusal(TRAIN, metric=lambda outputs, targets: outputs.no_such_thing)
    assert said.startswith("recipe.metric: <lambda> of models.teacher: metric '<lambda>' of outputs")
    x, _ = arrays()
    numbers = x[:, :1]
    said = refusal(
        {**TRAIN, "loss": nn.functional.mse_loss}, data={"train": (x, numbers), "test": (x, numbers)}, module=net(1)
    )
    assert said.startswith("recipe.metric: accuracy of models.teacher: accuracy of outputs")


def test_a_metric_sees_every_target_of_a_set_in_memory():
    def needs_all(outputs, targets):
        if not {0, 1, 2} <= set(targets.tolist()) or len(outputs) != len(targets):
            raise ValueError("a class is missing")
        return 0.0

    look(TRAIN, metric=needs_all, data={"train": arrays(), "validation": arrays(), "test": arrays()})
    x, y = (torch.from_numpy(each) for each in arrays())
    loader = DataLoader(TensorDataset(x, y), batch_size=7)
    # Part of a loader's says nothing of the whole.
    look(TRAIN, metric=needs_all, data={"train": loader, "validation": loader, "test": loader})


def test_one_example_with_batch_norm_is_refused():
    said = refusal({**TRAIN, "batch": 1}, module=net(norm=True))
    assert said.startswith("recipe.models.net.stages.0: batch: ")
    assert "use a batch of 2 or more" in said
    look({**TRAIN, "batch": 1})
    x, y = (torch.from_numpy(each) for each in arrays())
    sets = {"train": DataLoader(TensorDataset(x, y), batch_size=20), "test": arrays()}
    assert "drop_last=True" in refusal(TRAIN, module=net(norm=True), data=sets)
    sets["train"] = DataLoader(TensorDataset(x, y), batch_size=20, drop_last=True)
    look(TRAIN, module=net(norm=True), data=sets)


def test_images_have_statistics_in_one_example():
    x = np.random.default_rng(0).normal(size=(20, 2, 4, 4)).astype(np.float32)
    y = np.arange(20) % 3
    pool = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    recipe = attar.Recipe(
        data={"train": (x, y), "test": (x, y)}, models={"net": {"source": pool, "stages": [{**TRAIN, "batch": 1}]}}
    )
    metric = find(recipe.metric)
    sets = load_splits(recipe.data, recipe.folder, task=None, metric=metric[0])
    made = model_sources(recipe)
    rehearsed = {"net": dry_run(pool, sets.use, sets.calibration(("input",)), dynamic=(0,))}
    try_stages(recipe, sets, made, rehearsed, metric)


class Undecided(nn.Module):
    """What it computes hangs on the numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)


def test_what_cannot_be_captured_is_said_in_one_message_alone(capfd):
    with pytest.raises(ModelError, match="Undecided cannot be traced"):
        capture(Undecided(), (torch.randn(4, 6),))
    assert capfd.readouterr() == ("", "")


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        y = torch.relu(self.trunk(x))
        return {"logits": self.first(y), "other": self.second(y)}


class OtherToo(Objective):
    def forward(self, inputs):
        return inputs.every[1].square().mean() + inputs.outputs.square().mean()


@pytest.mark.parametrize(
    ("stages", "frozen", "warned"),
    [
        ([TRAIN], False, True),
        ([TRAIN, TRAIN], False, True),
        ([TRAIN], True, False),
        # The points of the codebooks are trained, not the weights.
        ([{**TRAIN, "stage": "finetune", "objective": "cross_entropy", "constraints": [CODEBOOK]}], True, False),
        ([TRAIN, {**TRAIN, "stage": "finetune", "objective": OtherToo}], False, False),
        # A rate pushes every weight, towards zero, which is no training.
        ([{**COMPRESS, "terms": []}], False, True),
        ([{**COMPRESS, "terms": [{"name": "other_outputs", "teacher": "big"}]}], False, False),
    ],
)
def test_heads_that_no_loss_reaches_are_named(stages, frozen, warned):
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    y, net = np.arange(20) % 3, Heads()
    net.second.requires_grad_(not frozen)
    models = {"big": {"source": Heads()}, "net": {"source": net, "stages": stages}}
    recipe = attar.Recipe(data={"train": (x, y), "test": (x, y)}, models=models)
    metric = find(recipe.metric)
    sets = load_splits(recipe.data, recipe.folder, task=None, metric=metric[0])
    sources = model_sources(recipe)
    rehearsed = {n: dry_run(s.module, sets.use, sets.calibration(("x",)), dynamic=(0,)) for n, s in sources.items()}
    found = try_stages(recipe, sets, sources, rehearsed, metric)
    assert ("no loss depends on second.weight and second.bias" in found.get("net", "")) == warned
    assert bool(found) == warned
