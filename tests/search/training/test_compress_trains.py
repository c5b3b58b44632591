"""``attar.compress`` with training: from a module and examples to files that recipes make again."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from sklearn.datasets import load_digits

import attar
from attar._src.cli import main
from attar._src.cli.options.calibration import DataChoice, chosen_inputs
from attar._src.cli.options.training import HELD_OUT
from attar._src.core.errors import DataError, SpecError
from attar._src.core.registry import load_object
from attar._src.pipeline import models
from attar._src.pipeline.data_splits import load_splits
from attar._src.recipe.parts import DataSpec
from attar._src.search.post_training import PostTraining

DIGITS = Path(__file__).parents[3] / "examples" / "digits.py"


def network():
    torch.manual_seed(0)
    return load_object(f"{DIGITS}:DigitNet")(width=8)


@pytest.fixture(scope="module")
def trained():
    """A network that reads digits."""
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        rows = torch.randint(500, (100,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def quick():
    """Time each file for a moment."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PostTraining.times, "__defaults__", (0.02,))
        yield


@pytest.fixture(scope="module")
def weights(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.torch.save_file(trained.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def told(quick, weights, tmp_path_factory):
    """Folder and ``search.json`` of the command: what fits 1.6 KB, of all ways."""
    folder = tmp_path_factory.mktemp("search") / "s"
    given = ["compress", f"{DIGITS}:DigitNet", "--arg", "width=8", "-d", "digits", "-w", str(weights)]
    given += ["--examples", "64", "--max-bytes", "1600", "--epochs", "2", "-o", str(folder)]
    assert main(given) in (0, 1)
    return folder, json.loads((folder / "search.json").read_text())


def test_files_are_trained_where_no_other_is_so_small(told):
    folder, found = told
    trained = [each for each in found["files"] if each["way"]]
    assert {each["way"] for each in trained} == {"narrower", "distilled", "sparse"}
    # Two epochs are too few to hold the bytes to a per cent.
    assert all(each["file_bytes"] <= 1.05 * each["target"]["max_bytes"] for each in trained)
    best = next(each for each in found["files"] if each["name"] == found["best"])
    assert best["file_bytes"] <= 1600
    assert (folder / "best.attar").read_bytes() == (folder / best["file"]).read_bytes()


def test_a_recipe_makes_a_trained_file_again_byte_for_byte(told, tmp_path):
    folder, found = told
    file = next(each for each in found["files"] if each["way"])
    run = attar.run(folder / file["recipe"], tmp_path / "again")
    assert hashlib.sha256(run.files["student"].read_bytes()).hexdigest() == file["sha256"]


def test_the_page_draws_trained_files_and_loads_nothing(told):
    folder, found = told
    page = (folder / "search.html").read_text()
    assert len(page) < 200_000
    assert page.count("<svg") == 2
    for each in found["files"]:
        assert each["name"] in page
    assert "attar run" in page


def test_validation_examples_are_those_that_a_recipe_holds_out_and_are_never_trained_on(told):
    """Guards against files that are judged on what they were trained on."""
    folder, found = told
    file = next(each for each in found["files"] if each["way"])
    journal = [
        json.loads(line) for line in (folder / file["recipe"]).with_name("journal.jsonl").read_text().splitlines()
    ]
    last = [row for row in journal if row["event"] == "epoch"][-1]
    # Of weights on their grids, so that the file has the same.
    assert file["metric"] == pytest.approx(last["validation_accuracy"], abs=0.02)


def test_examples_that_judge_are_those_that_recipes_hold_out():
    """Guards against trainings on examples that judge: the command draws them, and the recipe trains on the rest."""
    chosen = chosen_inputs(DataChoice("digits", "train", "net.py:net", examples=64, validation=None, hold_out=HELD_OUT))
    fields = {"source": "digits", "validation": HELD_OUT}
    splits = load_splits(DataSpec(**fields), Path(), task=None, metric="accuracy")
    x, y = chosen.about["validation"]
    held = np.sort(splits.validation.inputs[0].reshape(len(y), -1) @ np.arange(64))
    assert np.allclose(np.sort(x.reshape(len(y), -1) * 16 @ np.arange(64)), held)
    assert sorted(y) == sorted(splits.validation.targets)
    kept = {each.tobytes() for each in splits.train.inputs[0]}
    assert all((16 * each).round().astype(splits.train.inputs[0].dtype).tobytes() in kept for each in chosen.inputs)


@pytest.fixture(scope="module")
def small():
    """A network of two layers that tells four classes apart, its examples, and others."""
    draw = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(4, 16, generator=draw)
    y = torch.arange(320) % 4
    x = centres[y] + torch.randn(320, 16, generator=draw)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 128), torch.nn.ReLU(), torch.nn.Linear(128, 4))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[:240]), y[:240]).backward()
        optimizer.step()
    return net.eval(), {"validation": (x[240:], y[240:]), "train": (x[:240], y[:240]), "max_bytes": 1500, "epochs": 2}


@pytest.fixture(scope="module")
def whole(quick, small, tmp_path_factory):
    """A search in Python that was not cut, and the state of the module before it."""
    net, given = small
    before = {name: value.clone() for name, value in net.state_dict().items()}
    return attar.compress(net, given["train"], tmp_path_factory.mktemp("whole"), **given), before


def test_training_in_python_leaves_the_module_as_it_was_and_its_recipe_makes_the_file_again(small, whole, tmp_path):
    (net, given), (found, before) = small, whole
    assert any(each.way for each in found.files)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
    made = next(each for each in found.files if each.way)
    with pytest.raises(SpecError, match="with that object in this place"):
        attar.run(found.folder / made.recipe, tmp_path / "refused")
    tree = yaml.safe_load((found.folder / made.recipe).read_text())
    del tree["root"]
    tree["data"]["source"] = {"train": given["train"], "test": given["train"], "validation": given["validation"]}
    for model in tree["models"].values():
        model["source"]["factory"] = copy.deepcopy(net)
    again = attar.run(attar.Recipe(**tree), tmp_path / "again")
    assert hashlib.sha256(again.files["student"].read_bytes()).hexdigest() == made.sha256


def test_a_training_that_was_cut_goes_on_to_the_same_file(small, whole, tmp_path, monkeypatch):
    """Guards against trainings that are lost, or come out otherwise, after Ctrl-C."""
    net, given = small

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(models, "log_epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            attar.compress(net, given["train"], tmp_path / "cut", **given)
    with pytest.raises(SpecError, match="another training"):
        attar.compress(net, given["train"], tmp_path / "cut", **given, augment=["noise"], resume=True)
    with pytest.raises(SpecError, match="another training"):
        attar.compress(net, given["train"], tmp_path / "cut", **{**given, "epochs": 3}, resume=True)
    again = attar.compress(net, given["train"], tmp_path / "cut", **given, resume=True)
    assert {each.name: each.sha256 for each in again.files} == {each.name: each.sha256 for each in whole[0].files}


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_trained_is_told_of_and_the_search_goes_on(small, tmp_path):
    net, given = small
    found = attar.compress(net, given["train"], tmp_path, **given, teacher=torch.nn.Linear(16, 5))
    failed = {name: why for name, why in found.failed.items() if "trained" in name}
    assert len(found.files) >= 6
    assert failed
    assert json.loads((tmp_path / "search.json").read_text())["failed"] == found.failed


def test_examples_that_cannot_be_divided_are_refused(small, tmp_path):
    net, given = small
    data, validation = given["train"], given["validation"]
    with pytest.raises(SpecError, match="needs validation"):
        attar.compress(net, data, tmp_path / "a", max_drop=1, train=data)
    with pytest.raises(SpecError, match="holds validation examples out"):
        attar.compress(net, data, tmp_path / "b", max_drop=1, train=True, validation=validation)
    with pytest.raises(SpecError, match="add train="):
        attar.compress(net, data, tmp_path / "c", max_drop=1, epochs=3)
    for name, value in (("epochs", 0), ("epochs", "3"), ("minutes", "3m"), ("minutes", float("inf"))):
        with pytest.raises(SpecError, match=f"{name}="):
            attar.compress(net, data, tmp_path / "c", max_drop=1, train=True, **{name: value})
    with pytest.raises(DataError, match="targets"):
        attar.compress(net, data[0], tmp_path / "d", max_drop=1, train=True)


def test_options_that_need_no_model_are_refused_before_anything_is_loaded(tmp_path, capsys):
    given = ["compress", "missing.py:net", "-d", "digits", "-o", str(tmp_path / "s")]
    for more, words in (
        (["--max-drop", "-1"], "--max-drop: Input"),
        (["--max-drop", "1", "--no-train", "--epochs", "3"], "leave out --no-train"),
        (["--max-drop", "1", "--teacher-weights", "w"], "of a --teacher MODEL"),
        (["--max-drop", "1", "--augment", "flip:3"], "crop:PADDING"),
        (["--max-drop", "1", "--split", "test", "--train"], "split train, not test"),
        (["--max-drop", "1", "--split", "test", "--epochs", "3"], "--epochs: only for a training, on the split train"),
    ):
        assert main([*given, *more]) in (1, 2)
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert words in said
