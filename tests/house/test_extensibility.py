"""An addition is one file that imports ``attar.extend`` and is named ``file.py:name``: one of each kind, run."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.house.repository import name
from torch import nn

import attar
from attar._src.cli import main
from attar._src.core.registry import load_object
from attar.extend import Codebook, Quantized

ADDITIONS = Path(__file__).parent / "additions"
FILES = sorted(ADDITIONS.glob("*.py"))
LABELS = 4


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, LABELS))


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, LABELS, 128)
    images = rng.normal(0, 1, (128, 3, 8, 8)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * (label // 2) :][:, :4, 4 * (label % 2) :][:, :, :4] += 0.8
    return images, labels


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_addition_imports_nothing_that_is_private(path):
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert {module for module in modules if module.split(".")[0] == "attar"} <= {"attar", "attar.extend"}, name(path)


def test_a_solver_that_needs_the_hessian_of_its_inputs(examples, tmp_path):
    images, _ = examples
    # Channels of very different size: the error of the output is not the error of the weight.
    images = images * np.float32([0.05, 1, 4]).reshape(1, 3, 1, 1)
    module, x = net().eval(), torch.from_numpy(images)
    error = {}
    for scales in ("absmax", "mse", f"{ADDITIONS / 'solver.py'}:OutputMse"):
        quantized = attar.quantize(module, images, bits=3, scales=scales, correct_bias=False)
        error[scales] = float((quantized.module(x) - module(x)).detach().square().mean())
    *builtin, own = error.values()
    assert own < min(builtin), error


def run(stages, examples, tmp_path):
    recipe = attar.Recipe(
        data={"source": {"train": examples, "test": examples}, "validation": 0},
        models={"own": {"source": net(), "stages": stages}},
    )
    return attar.run(recipe, tmp_path / "run")


def test_a_rule(examples, tmp_path):
    rule = {"name": f"{ADDITIONS / 'rule.py'}:PowersOfTwo", "arguments": {"smallest": 5}}
    stages = [{"stage": "train", "epochs": 8, "batch": 32, "constraints": [rule]}]
    done = run(stages, examples, tmp_path)
    artifact = attar.open_artifact(done.files["own"])
    for weight in ("0.weight", "4.weight"):
        tensor = artifact.tensor(weight)
        assert isinstance(tensor, Codebook)
        values = np.abs(tensor.dense()[tensor.dense() != 0])
        assert (np.log2(values) % 1 == 0).all()
    assert done.report["models"][0]["left_in_floating_point"] == {}
    assert done.report["models"][0]["metric_mean"] > 0.8


def test_a_backend_opens_what_it_exports(examples, tmp_path, capsys):
    file, exported = tmp_path / "net.attar", tmp_path / "net.onnxtxt"
    attar.quantize(net().eval(), examples[0], bits=4, activations=8).save(file)
    backend = f"{ADDITIONS / 'backend.py'}:onnx_text"
    assert main(["export", str(file), "--to", backend, str(exported)]) == 0
    assert "QuantizeLinear" in exported.read_text()
    runner, session = load_object(backend).open(exported), attar.Session(file)
    for output, values in runner.run({runner.inputs[0]: examples[0][:8]}).items():
        np.testing.assert_allclose(values, session.run({session.inputs[0].name: examples[0][:8]})[output], atol=1e-3)


def test_a_stage_between_two_trainings(examples, tmp_path):
    coarse = {"stage": f"{ADDITIONS / 'stage.py'}:Coarse", "tensor": "0.weight"}
    trained = {"stage": "train", "epochs": 3, "batch": 32}
    done = run([trained, coarse, {"stage": "finetune", "epochs": 3, "batch": 32}], examples, tmp_path)
    once = run([trained, coarse], examples, tmp_path / "once")
    artifact, before = attar.open_artifact(done.files["own"]), attar.open_artifact(once.files["own"])
    # The training after it keeps the grid, moves codes, and trains what is on no grid.
    kept, was = artifact.tensor("0.weight"), before.tensor("0.weight")
    assert isinstance(kept, Quantized)
    assert kept.scheme.bits == 2
    assert np.array_equal(kept.scale, was.scale)
    assert not np.array_equal(artifact.tensor("4.weight").dense(), before.tensor("4.weight").dense())
    assert [stage["stage"] for stage in artifact.manifest.recipe["stages"]] == ["train", "stage.py:Coarse", "finetune"]
    assert done.report["models"][0]["metric_mean"] > 0.8


def test_a_stage_that_does_not_fit_is_refused_by_its_place(examples, tmp_path):
    with pytest.raises(attar.SpecError, match=r"models\.own\.stages\.0"):
        run([{"stage": f"{ADDITIONS / 'stage.py'}:Coarse", "tensor": 3}], examples, tmp_path)


def test_a_second_graph_shares_its_weights_with_the_first(tmp_path):
    torch.manual_seed(0)
    own = load_object(f"{ADDITIONS / 'second_graph.py'}:Translator")().eval()
    tokens = torch.randint(0, 40, (64, 7))
    (tmp_path / "two.attar").write_bytes(load_object(f"{ADDITIONS / 'second_graph.py'}:compress")(own, tokens))
    artifact = attar.open_artifact(tmp_path / "two.attar")
    (alias,) = artifact.manifest.aliases.items()
    assert set(alias) == {"out.weight", "table.weight"}
    assert len({tensor.name for tensor in artifact.manifest.tensors} & set(alias)) == 1
    encoder, step = (attar.Session(artifact, graph=graph) for graph in ("encoder", "decoder_step"))
    (memory,) = encoder.run({encoder.inputs[0].name: tokens.numpy()}).values()
    names = [port.name for port in step.inputs]
    scores, _ = step.run(dict(zip(names, (memory, tokens[:, 0].numpy()), strict=True))).values()
    with torch.no_grad():
        wanted = own.step(own.encode(tokens), tokens[:, 0])[0].numpy()
    assert np.abs(scores - wanted).mean() < 0.05 * np.abs(wanted).mean()
