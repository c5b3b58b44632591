"""``attar.compress`` with training: from a module and examples to files that recipes make again."""

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits

import attar
from attar._src.cli import main
from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.search.post_training import PostTraining
from attar._src.search.training.trainer import Trainer

DIGITS = Path(__file__).parents[3] / "examples" / "digits.py"


def network():
    torch.manual_seed(0)
    return load_object(f"{DIGITS}:DigitNet")(width=8)


@pytest.fixture(scope="module")
def trained():
    """A network that reads digits, and examples in two parts."""
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        rows = torch.randint(500, (100,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval(), (x[:500], y[:500]), (x[1000:1200], y[1000:1200])


@pytest.fixture(scope="module")
def quick():
    """Time each file for a moment."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PostTraining.times, "__defaults__", (0.02,))
        yield


@pytest.fixture(scope="module")
def weights(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.torch.save_file(trained[0].state_dict(), path)
    return path


@pytest.fixture(scope="module")
def told(quick, weights, tmp_path_factory):
    """Folder and ``search.json`` of the command: what fits 1.9 KB, of all ways."""
    folder = tmp_path_factory.mktemp("search") / "s"
    given = ["compress", f"{DIGITS}:DigitNet", "--arg", "width=8", "-d", "digits", "-w", str(weights)]
    given += ["--examples", "64", "--max-bytes", "1900", "--epochs", "1", "-o", str(folder)]
    assert main(given) in (0, 1)
    return folder, json.loads((folder / "search.json").read_text())


def test_files_are_trained_where_no_other_is_so_small(told):
    folder, found = told
    ways = {each["way"] for each in found["files"]} - {""}
    assert {"narrower", "distilled", "sparse"} & ways
    best = next(each for each in found["files"] if each["name"] == found["best"])
    assert best["way"]
    assert best["file_bytes"] <= 1900
    assert (folder / "best.attar").stat().st_size == best["file_bytes"]


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


@pytest.mark.usefixtures("quick")
def test_training_in_python_leaves_the_module_as_it_was(trained, tmp_path):
    net, data, validation = trained
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = attar.compress(net, data, tmp_path / "s", max_bytes=2500, validation=validation, train=data, epochs=1)
    assert any(each.way for each in found.files)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training


@pytest.mark.usefixtures("quick")
def test_a_trial_that_was_cut_goes_on_to_the_same_file(trained, tmp_path, monkeypatch):
    """Guards against trainings that are lost, or come out otherwise, after Ctrl-C."""
    net, data, validation = trained
    given = {"max_bytes": 2500, "validation": validation, "train": data, "epochs": 1}
    made = Trainer.make

    def cut(self, step, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "make", cut)
    with pytest.raises(KeyboardInterrupt):
        attar.compress(net, data, tmp_path / "s", **given)
    monkeypatch.setattr(Trainer, "make", made)
    with pytest.raises(SpecError, match="another training"):
        attar.compress(net, data, tmp_path / "s", **{**given, "epochs": 1, "augment": ["flip"]}, resume=True)
    again = attar.compress(net, data, tmp_path / "s", **given, resume=True)
    whole = attar.compress(net, data, tmp_path / "t", **given)
    assert {each.name: each.sha256 for each in again.files} == {each.name: each.sha256 for each in whole.files}


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_trained_is_told_of_and_the_search_goes_on(trained, tmp_path):
    net, data, validation = trained
    five = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    given = {"max_bytes": 2500, "validation": validation, "train": data, "epochs": 1}
    found = attar.compress(net, data, tmp_path / "s", **given, teacher=five)
    assert len(found.files) >= 6
    assert found.failed
    assert all("trained" in name and "10" in why for name, why in found.failed.items() if "trained" in name)


def test_examples_that_cannot_be_divided_are_refused(trained, tmp_path):
    net, data, validation = trained
    x, _ = data
    with pytest.raises(SpecError, match="needs validation"):
        attar.compress(net, data, tmp_path / "a", max_drop=1, train=data)
    with pytest.raises(SpecError, match="holds validation examples out"):
        attar.compress(net, data, tmp_path / "b", max_drop=1, train=True, validation=validation)
    with pytest.raises(SpecError, match="add train="):
        attar.compress(net, data, tmp_path / "c", max_drop=1, epochs=3)
    with pytest.raises(SpecError, match="with labels"):
        attar.compress(net, x, tmp_path / "d", max_drop=1, train=True)


def test_options_that_need_no_model_are_refused_before_anything_is_loaded(tmp_path, capsys):
    given = ["compress", "missing.py:net", "-d", "digits", "-o", str(tmp_path / "s")]
    for more, words in (
        (["--max-drop", "-1"], "max_drop"),
        (["--max-drop", "1", "--no-train", "--epochs", "3"], "leave out --no-train"),
        (["--max-drop", "1", "--teacher-weights", "w"], "of a --teacher MODEL"),
        (["--max-drop", "1", "--augment", "flip:3"], "crop:PADDING"),
        (["--max-drop", "1", "--split", "test", "--train"], "split train, not test"),
    ):
        assert main([*given, *more]) in (1, 2)
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert words in said
