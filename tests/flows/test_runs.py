"""Recipes from end to end: files, report, page; killed and resumed; by command, from Python, on two ranks."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from tests.forked import attar_command
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import attar
from attar._src.core.errors import AttarError, ModelError, ParityError, SpecError
from attar._src.pipeline.run import run
from attar._src.recipe.recipe import read_recipe

NETS = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def net(width=8):
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def sets(split):
    n = {"train": 384, "test": 48}[split]
    rng = np.random.default_rng(len(split))
    y = rng.integers(0, 3, n)
    return (np.eye(3)[y].repeat(2, 1) + rng.normal(scale=0.4, size=(n, 6))).astype("float32"), y


def loaded(split):
    return DataLoader(TensorDataset(*map(torch.from_numpy, sets(split))), batch_size=24)
"""
RECIPE = """
data: nets.py:sets
threads: 1
models:
  teacher:
    source: {factory: nets.py:net, arguments: {width: 16}}
    stages: [{stage: train, epochs: 3, batch: 32, optimizer: {name: sgd, lr: 0.05}}]
  student:
    source: nets.py:net
    licence: made up
    stages:
      - {stage: distill, teacher: teacher, epochs: 2, batch: 32, optimizer: {name: adamw, lr: 5e-3}}
      - stage: finetune
        epochs: 3
        batch: 32
        optimizer: {name: sgd, lr: 0.02}
        objective: [{name: kl, teacher: teacher, weight: 0.9}, {name: cross_entropy, weight: 0.1}]
        constraints: [{name: prune, sparsity: 0.5}, {name: quantize, bits: 4, activations: 8}]
"""
#: One model, one short stage.
SHORT = ["models={net: {source: nets.py:net, stages: [{stage: train, epochs: 2, batch: 32}]}}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "nets.py").write_text(NETS)
    (folder / "r.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """The recipe run without interruption, from the command line."""
    done = command(place, "whole", "--json")
    assert done.returncode == 0, done.stderr
    return place / "whole", json.loads(done.stdout)


@pytest.fixture(scope="module")
def short(place):
    """The short recipe run without interruption, here: its report and its files."""
    done = run(read_recipe(place / "r.yaml", SHORT), place / "short")
    return done.report, files(done.folder)


def command(place, out, *more):
    """Run the recipe as a user does, in a new process."""
    line = [sys.executable, "-m", "attar", "run", "r.yaml", "--out", str(out), *more]
    return subprocess.run(line, cwd=place, capture_output=True, text=True, check=False, timeout=250)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.attar")}


def test_a_run_leaves_files_that_hold_what_the_report_says(whole):
    folder, report = whole
    assert {path.name for path in folder.iterdir()} == {
        *("teacher.attar", "student.attar", "report.json", "report.html", "recipe.yaml", "run.json", "journal.jsonl"),
        *("lock", "logs", "state", "figures"),
    }
    assert json.loads((folder / "report.json").read_text())["run"] == report
    teacher, student = report["models"]
    assert (teacher["name"], student["name"], report["baseline"]) == ("teacher", "student", "teacher")
    for model in (teacher, student):
        session = attar.Session(folder / model["file"])
        assert session.artifact.sha256 == model["sha256"]
        assert session.artifact.file_bytes == model["file_bytes"]
        assert model["times_smaller"] == pytest.approx(teacher["fp32_bytes"] / model["file_bytes"])
        assert model["latency"]["median_ms"] > 0
        assert set(model["per_class"]) == {"0", "1", "2"}
    assert student["metric_mean"] > 0.6
    assert student["nonzero_share"] < 0.75
    assert [layer["integer"] for layer in student["layers"]] == [True, True]
    assert [row["stage"] for row in student["curves"]] == ["distill"] * 2 + ["finetune"] * 3
    assert [row["epoch"] for row in student["curves"]] == [1, 2, 1, 2, 3]
    assert [stage["stage"] for stage in student["record"]] == ["distill", "finetune"]
    assert attar.Session(folder / "student.attar").manifest.licence == "made up"
    assert report["examples"] == sum(report["class_examples"].values()) == 48


def test_the_logs_have_a_row_for_every_epoch(whole):
    folder, _ = whole
    lines = (folder / "logs" / "csv" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 2 + 3
    assert "seed-0/student/1-finetune/sparsity" in lines[0]
    assert list((folder / "logs" / "tensorboard").glob("events.*"))


def test_the_recipe_as_run_gives_the_same_bytes_again(whole, place):
    again = run(read_recipe(whole[0] / "recipe.yaml"), place / "again")
    assert files(again.folder) == files(whole[0])
    assert again.files["student"] == place / "again" / "student.attar"
    assert again.page.is_file()


def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(whole, place, tmp_path):
    draw = random.Random(7)
    rows = len((whole[0] / "journal.jsonl").read_text().splitlines())
    for progress in sorted(draw.sample(range(2, rows), 2)):
        forked = attar_command("run", "r.yaml", "--out", "killed", "--resume", folder=tmp_path, cwd=place)
        while forked.running and _rows(place / "killed") < progress:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        forked.process.kill()
        assert forked.ended()[0] == -signal.SIGKILL
    run(read_recipe(place / "r.yaml"), place / "killed", resume=True)
    assert files(place / "killed") == files(whole[0])
    told = [
        [(row["model"], row["index"], row["epoch"], row["loss"]) for row in _journal(folder) if row["event"] == "epoch"]
        for folder in (whole[0], place / "killed")
    ]
    assert told[0] == told[1]
    csv = [
        (folder / "logs" / "csv" / "metrics.csv").read_text().splitlines() for folder in (whole[0], place / "killed")
    ]
    assert len(csv[0]) == len(csv[1])


def _journal(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def _rows(folder):
    path = folder / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_interrupted_run_says_how_to_go_on(place, short, tmp_path):
    out = place / "interrupted"
    forked = attar_command("run", "r.yaml", "--out", str(out), "--set", SHORT[0], folder=tmp_path, cwd=place)
    while _rows(out) < 3:
        time.sleep(0.002)
    forked.interrupt()
    code, _, errors = forked.ended()
    assert code == 130, errors
    assert f"resume with: attar run r.yaml --out {out} --set" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert files(run(read_recipe(place / "r.yaml", SHORT), out, resume=True).folder) == short[1]


DEAF = """
import os, signal
from torch.nn.functional import cross_entropy

steps = 0


def loss(outputs, targets):
    global steps
    if len(targets) == 32 and "PRESSED_AT" in os.environ:
        steps += 1
        print("step")
        if steps == int(os.environ["PRESSED_AT"]):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print("swallowed")
    return cross_entropy(outputs, targets)
"""


def test_an_interruption_that_a_loss_swallows_ends_the_run_at_its_next_step(place, monkeypatch, capfd):
    (place / "deaf.py").write_text(DEAF)
    stage = "{stage: finetune, epochs: 2, batch: 32, objective: deaf.py:loss}"
    recipe = read_recipe(place / "r.yaml", [f"models={{net: {{source: nets.py:net, stages: [{stage}]}}}}"])
    before = files(run(recipe, place / "heard").folder)
    monkeypatch.setenv("PRESSED_AT", "14")  # of 10 steps an epoch
    with pytest.raises(KeyboardInterrupt):
        run(recipe, place / "deaf")
    assert capfd.readouterr().out.split() == [*["step"] * 14, "swallowed"]
    assert not (place / "deaf" / "report.json").exists()
    monkeypatch.delenv("PRESSED_AT")
    assert files(run(recipe, place / "deaf", resume=True).folder) == before


def test_what_changed_since_is_named_and_nothing_is_resumed(place):
    folder, own = place / "changed", place / "own"
    shutil.copytree(place, own, ignore=lambda path, names: {n for n in names if n not in ("nets.py", "r.yaml")})
    recipe = partial(read_recipe, own / "r.yaml")
    run(recipe(SHORT), folder)
    before = files(folder)
    with pytest.raises(SpecError, match="already has a run; resume it"):
        run(recipe(SHORT), folder)
    with pytest.raises(SpecError, match=r"recipe.models.net.stages.0.epochs was 2 and is 4"):
        run(recipe([*SHORT, "models.net.stages.0.epochs=4"]), folder, resume=True)
    (own / "nets.py").write_text(NETS.replace("scale=0.4", "scale=0.5"))
    with pytest.raises(SpecError, match=r"files.nets.py was .* and is "):
        run(recipe(SHORT), folder, resume=True)
    (own / "nets.py").write_text(NETS)
    assert files(run(recipe(SHORT), folder, resume=True).folder) == before


def test_two_ranks_train_the_same_recipe(place, short):
    out = place / "ranks"
    done = command(place, out, "--set", SHORT[0], "--set", "devices=2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["models"][0]["curves"]) == 2
    losses = [[row["loss"] for row in found["models"][0]["curves"]] for found in (report, short[0])]
    # Batch-norm sees half a batch on each rank: not the same numbers, the same training.
    assert losses[0] == pytest.approx(losses[1], rel=0.3)
    assert attar.Session(out / "net.attar").artifact.sha256 == report["models"][0]["sha256"]


def test_several_seeds_are_reported_together(place):
    done = run(read_recipe(place / "r.yaml", [*SHORT, "seeds=[3, 4]"]), place / "seeds")
    model = done.report["models"][0]
    assert len(model["metric_per_seed"]) == 2
    assert model["metric_mean"] == pytest.approx(np.mean(model["metric_per_seed"]))
    assert files(done.folder)["net.attar"] != files(done.folder / "seed-4")["net.attar"]
    alone = run(read_recipe(place / "r.yaml", [*SHORT, "seeds=[4]"]), place / "seed")
    assert files(alone.folder) == files(done.folder / "seed-4")


def test_a_teacher_may_be_a_file_and_rounding_may_come_last(whole, place):
    shutil.copy(whole[0] / "teacher.attar", place / "given.attar")
    models = (
        "models={given: {source: {file: given.attar}}, net: {source: nets.py:net, stages: ["
        "{stage: distill, teacher: given, epochs: 1, batch: 32}, {stage: quantize, bits: 8, activations: 8}]}}"
    )
    done = run(read_recipe(place / "r.yaml", [models]), place / "file")
    given, net = done.report["models"]
    assert given["sha256"] == whole[1]["models"][0]["sha256"]
    assert [stage["stage"] for stage in net["record"]] == ["distill", "quantize"]
    assert all(layer["integer"] for layer in net["layers"])


def test_what_a_teacher_says_may_be_kept(place):
    settings = [
        "teacher_cache={teacher: {}}",
        "models.student.stages=[{stage: distill, teacher: teacher, epochs: 2, batch: 32}]",
    ]
    done = run(read_recipe(place / "r.yaml", settings), place / "bank")
    assert (done.folder / "state" / "teacher_cache" / "seed-0" / "teacher.safetensors").is_file()
    live = run(read_recipe(place / "r.yaml", settings[1:]), place / "live")
    losses = [[row["loss"] for row in each.report["models"][1]["curves"]] for each in (done, live)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Stranger(nn.Module):
    """Two inputs, a method of its own, dropout."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(4, 12), nn.Linear(2, 12), nn.Dropout(0.1)
        self.head = nn.Linear(12, 1)

    def forward(self, wide, narrow):
        return self.head(self.drop(torch.relu(self.first(wide) + self.second(narrow))))


class Mixture(torch.utils.data.Dataset):
    """Two inputs by name and a number to guess."""

    def __init__(self, n, seed):
        draw = torch.Generator().manual_seed(seed)
        self.wide, self.narrow = torch.randn(n, 4, generator=draw), torch.randn(n, 2, generator=draw)

    def __len__(self):
        return len(self.wide)

    def __getitem__(self, i):
        wide, narrow = self.wide[i], self.narrow[i]
        return {"narrow": narrow, "wide": wide, "target": (wide[:1] - narrow[1:]).float()}


def test_a_stranger_s_module_loader_loss_and_metric_go_through(tmp_path):
    module = Stranger()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def worst(outputs, targets):
        return float(np.abs(outputs - targets).max())

    stage = {"stage": "train", "epochs": 3, "loss": nn.HuberLoss(), "optimizer": {"name": "adam", "lr": 0.02}}
    recipe = attar.Recipe(
        data={
            "train": DataLoader(Mixture(128, 0), batch_size=16, shuffle=True),
            "validation": DataLoader(Mixture(32, 1), batch_size=16),
            "test": DataLoader(Mixture(32, 2), batch_size=16),
        },
        models={"net": {"source": module, "stages": [stage, {"stage": "quantize", "bits": 8}]}},
        metric=worst,
        task="regression",
        threads=1,
    )
    done = attar.run(recipe, tmp_path / "run")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    model = done.report["models"][0]
    assert done.report["metric"] == "worst"
    assert model["per_class"] == {}
    losses = [row["validation_loss"] for row in model["curves"]]
    assert losses[-1] < losses[0]
    again = attar.run(recipe, tmp_path / "again")
    assert files(again.folder) == files(done.folder)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "models.net.stages.0.batch=999",
            "recipe.models.net.stages.0.batch: 999 is larger than the 346 training examples",
        ),
        ("models.net.source=nets.py:nte", "recipe.models.net.source: no object in nets.py named 'nte'; did you mean"),
        (
            "models.net.source={factory: nets.py:net, arguments: {widht: 3}}",
            "recipe.models.net.source: the factory was",
        ),
        ("models.net.source={factory: nets.py:net, weights: w.pt}", "recipe.models.net.source: there are no weights"),
        (
            "teacher_cache={net: {variants: 2}}",
            "recipe.teacher_cache.net.variants: 2 are more than the 1 of the augmentation",
        ),
        (
            "data={source: nets.py:sets, augment: [cutmix]}",
            "recipe.data.augment: cutmix is for images (N, ..., H, W); examples of shape (256, 6)",
        ),
        ("data={source: nets.py:loaded, augment: [flip]}", "recipe.data.augment: batches of a loader are not"),
        ("data=nets.py:set", "no object in nets.py named 'set'"),
        ("models.net.stages.0.constraints=[{name: prune, sparsity: 0.5, layers: ['x*']}]", "no layer named 'x*'"),
    ],
)
def test_what_is_missing_is_refused_before_any_training(place, tmp_path, setting, message):
    with pytest.raises(AttarError) as caught:
        run(read_recipe(place / "r.yaml", [*SHORT, setting]), tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run" / "state").exists()


def test_labels_that_are_needed_and_not_there_are_refused(tmp_path):
    x = np.zeros((40, 6), np.float32)
    data = {"train": (x, None), "test": (x, np.zeros(40, int))}
    recipe = attar.Recipe(
        data=data, models={"net": {"source": nn.Linear(6, 3), "stages": [{"stage": "train", "epochs": 1}]}}
    )
    with pytest.raises(SpecError, match=r"recipe.models.net.stages.0: train needs labels"):
        attar.run(recipe, tmp_path / "run")


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)


class Moody(nn.Linear):
    """Its own code does something in training that cannot be captured."""

    def forward(self, x):
        return super().forward(x) * (2 if self.training and x.sum() > 0 else 1)


def _arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    return {"train": (x, x[:, :3].argmax(1)), "test": (x[:30], x[:30, :3].argmax(1))}


def test_what_cannot_be_deployed_is_refused_before_any_training(tmp_path):
    recipe = attar.Recipe(
        data=_arrays(), models={"net": {"source": Sorted(), "stages": [{"stage": "train", "epochs": 1, "batch": 9}]}}
    )
    with pytest.raises((ModelError, ParityError), match=r"recipe.models.net: "):
        attar.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "state").exists()


def test_a_module_with_moods_is_captured_in_evaluation_and_that_is_journaled(tmp_path):
    stage = {"stage": "train", "epochs": 1, "batch": 10}
    recipe = attar.Recipe(data=_arrays(), models={"net": {"source": Moody(6, 3), "stages": [stage]}}, threads=1)
    done = attar.run(recipe, tmp_path / "run")
    decided = [row for row in _journal(done.folder) if row["event"] == "decided" and row["what"] == "capture of net"]
    assert decided[0]["value"] == "eval"
    assert "captured in evaluation mode" in done.report["models"][0]["notes"]["training"]
    assert "captured in evaluation mode" in done.page.read_text()


def test_a_teacher_that_is_rounded_on_its_way_into_the_file_teaches_as_its_file(place):
    stages = "[{stage: train, epochs: 2, batch: 32}, {stage: quantize, bits: 2}]"
    teach = "[{stage: distill, teacher: %s, epochs: 1, batch: 32}]"
    models = (
        f"models={{teacher: {{source: nets.py:net, stages: {stages}}}, net: {{source: nets.py:net, stages: {teach}}}}}"
    )
    first = run(read_recipe(place / "r.yaml", [models % "teacher"]), place / "rounded")
    shutil.copy(first.folder / "teacher.attar", place / "teacher-2.attar")
    models = f"models={{file: {{source: {{file: teacher-2.attar}}}}, net: {{source: nets.py:net, stages: {teach}}}}}"
    second = run(read_recipe(place / "r.yaml", [models % "file"]), place / "rounded-file")
    losses = [[row["loss"] for row in done.report["models"][1]["curves"]] for done in (first, second)]
    assert losses[0] == losses[1]


def _of_the_first(outputs, targets):
    return nn.functional.mse_loss(outputs[:, 0], targets.float())


def test_whole_numbers_to_guess_are_no_classes_and_a_metric_may_have_no_value(tmp_path):
    x, y = _arrays()["train"]
    stage = {"stage": "train", "epochs": 1, "batch": 10, "loss": _of_the_first}
    data = {"train": (x, y), "test": (x, y)}
    recipe = attar.Recipe(
        data=data,
        models={"net": {"source": nn.Linear(6, 2), "stages": [stage]}},
        metric=lambda outputs, targets: float("nan"),
        threads=1,
    )
    done = attar.run(recipe, tmp_path / "run")
    model = done.report["models"][0]
    assert model["per_class"] == done.report["class_examples"] == {}
    assert model["metric_mean"] is None
    assert "NaN" not in (done.folder / "report.json").read_text()


def test_what_is_left_open_is_decided_once(place):
    settings = [*SHORT, "precision=auto", "layout=auto"]
    done = run(read_recipe(place / "r.yaml", settings), place / "auto")
    written = read_recipe(done.folder / "recipe.yaml")
    assert written.precision in ("32-true", "bf16-mixed")
    assert written.threads == 1
    before = files(done.folder)
    shutil.rmtree(done.folder / "state")
    (done.folder / "net.attar").unlink()
    assert files(run(read_recipe(place / "r.yaml", settings), done.folder, resume=True).folder) == before
    assert sum(row["event"] == "decided" and row["what"] == "training" for row in _journal(done.folder)) == 1


#: A file may not grow beyond this: what a full disk says, as a whole process sees it.
SMALL_DISK = [(resource.RLIMIT_FSIZE, 3000)]


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX")
def test_a_full_disk_is_said_so_and_the_run_goes_on_later(place, short, tmp_path):
    out = place / "full"
    given = ("run", "r.yaml", "--out", str(out), "--set", SHORT[0])
    code, _, errors = attar_command(*given, folder=tmp_path, cwd=place, limits=SMALL_DISK).ended()
    assert code == 1, errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    resumed = run(read_recipe(place / "r.yaml", SHORT), out, resume=True)
    assert files(resumed.folder) == short[1]


def test_a_loader_of_pairs_is_a_list_of_batches_too(tmp_path):
    x, y = _arrays()["train"]
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=12)
    recipe = attar.Recipe(
        data={"train": list(loader), "test": loader},
        models={"net": {"source": nn.Linear(6, 3), "stages": [{"stage": "train", "epochs": 1}]}},
        threads=1,
    )
    assert attar.run(recipe, tmp_path / "run").report["examples"] == 60
