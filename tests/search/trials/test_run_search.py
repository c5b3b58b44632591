"""``attar.run_search`` on small networks: files, recipes, resumption, failures."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
import warnings

import optuna
import pytest
import torch
from safetensors.torch import save_file
from tests.search.trials.small import NETS

import attar
from attar._src.cli import main
from attar._src.core.errors import AttarError, SpecError
from attar._src.core.registry import load_object
from attar._src.search.search_folder import STORAGE, SearchFolder
from attar._src.search.trials.claims import Claims

RECIPE = """
data: {source: nets.py:sets, validation: 0.25}
threads: 1
models:
  net:
    source: {factory: nets.py:net, weights: net.safetensors}
    stages:
      - {stage: quantize, bits: 8, overrides: {"*": {choose: [2, 3, 4, 8], each: layer}}}
search: {max_drop: 5, minimise: bytes, sampler: random, trials: 4}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe and a trained network."""
    folder = tmp_path_factory.mktemp("searches")
    (folder / "nets.py").write_text(NETS)
    (folder / "r.yaml").write_text(RECIPE)
    net, sets = (load_object(f"{folder / 'nets.py'}:{name}") for name in ("net", "sets"))
    net, (x, y) = net(), map(torch.from_numpy, sets("train"))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    save_file(net.state_dict(), folder / "net.safetensors")
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """A search that nothing interrupted."""
    lines = []
    found = attar.run_search(place / "r.yaml", place / "whole", on_step=lines.append)
    return found, lines


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(folder):
    """Return name -> SHA-256 of the files of all trials."""
    return {each["name"]: each["sha256"] for each in json.loads((folder / "search.json").read_bytes())["files"]}


def test_a_search_ends_with_verified_files_and_a_page(whole, place):
    found, lines = whole
    assert [each.name for each in found.files] == ["as its source gives it", *(f"trial {n}" for n in range(4))]
    assert all(set(each.options) == {f"models.net.stages.0.overrides.{n}" for n in "02"} for each in found.files[1:])
    values = r"overrides\.0=[2348], overrides\.2=[2348]"
    figures = r"[\d,]+ bytes, \S+ points of accuracy lost; best so far [\w ]+ \([\d,]+ bytes, \S+ lost[\w ,]*\)"
    for number, line in enumerate(lines):
        assert re.fullmatch(rf"trial {number}: {values} -> {figures}, about [\d:]+ left", line), line
    assert found.ended == "all trials are done"
    for each in found.files:
        assert digest(found.folder / each.file) == each.sha256
    assert digest(found.folder / "best.attar") == found.best.sha256
    assert found.met == (found.best.drop <= 5)
    assert found.files[0].drop == 0
    page = (found.folder / "search.html").read_text()
    assert found.goal.words() in page
    assert f"recipes/{found.best.name.replace(' ', '-')}" in page or "recipes/NAME.yaml" in page
    assert json.loads((found.folder / "search.json").read_text()) == found.as_dict()


def test_the_drop_is_that_of_the_decoded_file_on_the_validation_split(whole, place):
    """Judged again, by the raw outputs of the files."""
    found, _ = whole
    from attar._src.pipeline.data_splits import load_splits
    from attar._src.recipe.parts import DataSpec

    splits = load_splits(
        DataSpec(source=f"{place / 'nets.py'}:sets", validation=0.25), place, task=None, metric="accuracy"
    )
    x, y = splits.validation.inputs[0], splits.validation.targets

    def accuracy(path):
        session = attar.Session(path)
        outputs = session.run({session.inputs[0].name: x})
        return float((next(iter(outputs.values())).argmax(1) == y).mean())

    reference = accuracy(found.folder / found.files[0].file)
    for each in found.files:
        assert each.metric == pytest.approx(accuracy(found.folder / each.file))
        assert each.drop == pytest.approx(100 * (reference - each.metric), abs=1e-4)


def test_the_test_split_is_read_for_the_front_alone(whole):
    found, _ = whole
    kept = {each.name for each in found.front} | {found.best.name, found.files[0].name}
    assert set(found.test) == kept
    for trial in (found.folder / "trials").glob("[0-9][0-9][0-9][0-9]"):
        report = json.loads((trial / "report.json").read_text())
        assert not any("test" in entry for entry in report.values())


def test_the_recipe_of_a_file_on_the_front_makes_it_again(whole, place):
    found, _ = whole
    assert set(found.recipes) >= {each.name for each in found.front if each.name.startswith("trial")}
    name = found.best.name if found.best.name in found.recipes else next(iter(found.recipes))
    again = attar.run(found.folder / found.recipes[name], place / "again")
    wanted = next(each for each in found.files if each.name == name)
    assert digest(again.files["net"]) == wanted.sha256
    assert digest(found.folder / "files" / f"{name.replace(' ', '-')}.attar") == wanted.sha256


def test_more_trials_go_on_and_what_is_damaged_is_made_again(whole, place):
    found, _ = whole
    folder = place / "more"
    shutil.copytree(found.folder, folder)
    kept = next(each for each in found.files if each.name in found.recipes)
    (folder / kept.file).write_bytes(b"damaged")
    with pytest.raises(SpecError, match="has a search already; go on with it"):
        attar.run_search(place / "r.yaml", folder)
    lines = []
    more = attar.run_search(place / "r.yaml", folder, resume=True, settings=["search.trials=5"], on_step=lines.append)
    assert [line.split(":")[0] for line in lines] == ["trial 4"]
    assert [each.sha256 for each in more.files[:5]] == [each.sha256 for each in found.files]
    assert digest(folder / kept.file) == kept.sha256 or kept.name not in more.recipes


def test_a_search_of_other_parts_does_not_go_on(whole, place):
    found, _ = whole
    with pytest.raises(SpecError, match=r"cannot go on: recipe\.models\.net\.stages\.0\.bits was 8 and is 6"):
        attar.run_search(place / "r.yaml", found.folder, resume=True, settings=["models.net.stages.0.bits=6"])


def test_a_search_that_is_killed_again_and_again_ends_in_the_same_files(place, tmp_path):
    """SIGKILL at random moments; this process forks, so that the others need not import PyTorch."""
    settings = ["search.sampler={name: tpe, startup: 1}", "search.trials=3"]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    began = time.monotonic()
    wanted = attar.run_search(place / "r.yaml", calm, settings=settings)
    took, draw = time.monotonic() - began, random.Random(5)
    for _ in range(3):
        child = os.fork()
        if not child:
            try:
                attar.run_search(place / "r.yaml", killed, settings=settings, resume=True)
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0.1, 0.7) * took)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    found = attar.run_search(place / "r.yaml", killed, settings=settings, resume=True)
    assert hashes(killed) == hashes(calm)
    assert [each.name for each in found.front] == [each.name for each in wanted.front]
    assert {path.name: digest(path) for path in (killed / "files").iterdir()} == {
        path.name: digest(path) for path in (calm / "files").iterdir()
    }


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(place, tmp_path):
    """Guards against a search that is lost for one trial, whatever it raises."""
    (tmp_path / "nets.py").write_text(
        NETS
        + """

def fragile(width=16):
    if width == 5:
        raise MemoryError("too wide")
    return net(width)
"""
    )
    tree = {
        "data": {"source": "nets.py:sets"},
        "threads": 1,
        "models": {"net": {"source": {"factory": "nets.py:fragile", "arguments": {"width": {"choose": [4, 5, 6]}}}}},
        "root": str(tmp_path),
        "search": {"minimise": "bytes", "sampler": "random", "trials": 9},
    }
    found = attar.run_search(tree, tmp_path / "out")
    (name, why), *others = found.failed.items()
    assert not others
    assert "too wide" in why
    assert name not in {each.name for each in found.files}
    assert len(found.files) == 3
    assert found.ended == "nothing was left to try"


def test_values_that_do_not_go_together_are_a_failure_of_their_trial(place, tmp_path):
    """Guards against a search that is lost, also when it goes on, for two values that are good each alone."""
    stage = {"stage": "quantize", "bits": 4, "scheme": {"choose": ["affine", "codebook"]}}
    tree = {
        "data": {"source": "nets.py:sets", "validation": 0.25},
        "threads": 1,
        "models": {"net": {"source": "nets.py:net", "stages": [stage | {"symmetric": {"choose": [True, False]}}]}},
        "root": str(place),
        "search": {"minimise": "bytes", "sampler": "random", "trials": 9},
    }
    found = attar.run_search(tree, tmp_path / "out")
    (why,) = found.failed.values()
    assert "has no zero points" in why
    assert len(found.files) == 4
    assert found.ended == "nothing was left to try"


def test_no_recipe_is_run_twice_and_a_small_space_ends_before_the_time(place, tmp_path):
    """Guards against points that differ in what does not count, and against hours of points that were tried before."""
    tree = {
        "data": {"source": "nets.py:sets", "validation": 0.25},
        "threads": 1,
        "models": {
            "net": {
                "source": "nets.py:net",
                "stages": {"choose": [[], [{"stage": "quantize", "bits": {"choose": [4, 8]}}]]},
            }
        },
        "root": str(place),
        "search": {"minimise": "bytes", "sampler": {"name": "tpe", "startup": 3}, "minutes": 5},
    }
    found = attar.run_search(tree, tmp_path / "out")
    assert found.ended == "nothing was left to try"
    assert len({str(each.options) for each in found.files[1:]}) == len({each.sha256 for each in found.files}) == 3
    ran = [each for each in found.files[1:] if each.seconds]
    assert len(ran) == 3
    assert all(len(each.options) == (2 if each.options["models.net.stages"] else 1) for each in found.files[1:])
    assert len({each.sha256 for each in found.front}) == len(found.front)


def test_a_trial_that_was_begun_and_never_run_is_run(whole, place, tmp_path):
    """A process may end before it has the lock of its trial."""
    folder = tmp_path / "out"
    shutil.copytree(whole[0].folder, folder)
    optuna.load_study(study_name="attar", storage=f"sqlite:///{folder / STORAGE}").ask()
    (folder / "files" / "trial-99.attar").write_bytes(b"of an earlier front")
    found = attar.run_search(place / "r.yaml", folder, resume=True, settings=["search.trials=5"])
    assert [each.name for each in found.files[1:]] == [f"trial {n}" for n in range(5)]
    kept = {path.stem for path in (folder / "files").iterdir()}
    assert kept == {name.replace(" ", "-") for name in found.recipes}


def test_a_trial_that_another_process_ended_in_the_meantime_is_not_run_again(whole, place, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    shutil.copytree(whole[0].folder, folder)
    study = optuna.load_study(study_name="attar", storage=f"sqlite:///{folder / STORAGE}")
    study.ask()
    (folder / "trials" / "0004.lock").touch()
    take = Claims.take

    def after_the_other(self, number):
        study.tell(number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        return take(self, number)

    monkeypatch.setattr(Claims, "take", after_the_other)
    found = attar.run_search(place / "r.yaml", folder, resume=True, settings=["search.trials=5"])
    assert found.failed == {"trial 4": "ended by another program"}


def test_a_folder_has_one_kind_of_search(whole, place, tmp_path):
    """Guards against best.attar and search.json of another search that are lost."""
    with pytest.raises(SpecError, match="has a search of a recipe with holes"):
        SearchFolder(whole[0].folder, resume=True)
    SearchFolder(tmp_path / "goal", resume=False).begin({})
    with pytest.raises(SpecError, match="has a search or comparison without holes"):
        attar.run_search(place / "r.yaml", tmp_path / "goal", resume=True)
    with pytest.raises(SpecError, match="has a run"):
        SearchFolder(whole[0].folder / "reference", resume=True)


def test_what_a_sampler_reads_is_unchanged_when_a_search_goes_on(place, tmp_path):
    (tmp_path / "own.py").write_text(
        "from attar.extend import Sampler\n\n\n"
        "class Lowest(Sampler):\n"
        "    def ask(self, number):\n"
        "        return self.task.space.lowest\n"
    )
    settings = ["search.trials=1", f"search.sampler={tmp_path}/own.py:Lowest"]
    attar.run_search(place / "r.yaml", tmp_path / "out", settings=settings)
    (tmp_path / "own.py").write_text((tmp_path / "own.py").read_text() + "# another\n")
    with pytest.raises(SpecError, match=r"cannot go on: files\..*own\.py was"):
        attar.run_search(place / "r.yaml", tmp_path / "out", settings=settings, resume=True)


def test_trials_that_all_fail_end_the_search_with_the_reason(place, tmp_path, monkeypatch):
    monkeypatch.setattr("attar._src.search.trials.workers.run_trial", failing)
    with pytest.raises(AttarError, match="no trial made a file; the first failed by: no luck"):
        attar.run_search(place / "r.yaml", tmp_path / "out", settings=["search.trials=20"])


def failing(*_, **__):
    raise AttarError("no luck")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.sampler=tpee", "recipe.search.sampler: no name named 'tpee'; did you mean 'tpe'"),
        ("search.trails=4", "recipe.search: no key named 'trails'; did you mean 'trials'"),
        ("models.net.stages.0.bits={choose: [8, 99]}", r"recipe.models.net.stages.0.bits: with 99 in this hole"),
        ("models.net.stages.0.bits={between: [4, 8.5]}", r"with 8.5 in this hole"),
        ("models.net.stages.0.bitss={choose: [4, 8]}", "no key named 'bitss'"),
        ("seeds=[0, 1]", "a trial has one seed"),
        ("data.validation=0", "judges its files on validation examples"),
    ],
)
def test_what_cannot_work_is_refused_before_compute(place, tmp_path, setting, words):
    with pytest.raises(SpecError) as caught:
        attar.run_search(place / "r.yaml", tmp_path / "out", settings=[setting])
    assert words in str(caught.value)
    assert not (tmp_path / "out" / "trials").exists() or not any((tmp_path / "out" / "trials").iterdir())


def test_the_command_says_whether_the_goal_was_met(place, tmp_path, capsys):
    command = ["run", str(place / "r.yaml"), "--out", str(tmp_path / "out"), "--set", "search.trials=1"]
    assert main([*command, "--set", "search.max_bytes=10"]) == 1
    out = capsys.readouterr().out
    assert "no file holds the goal; nearest" in out
    assert "test split" in out
    assert (tmp_path / "out" / STORAGE).exists()


def test_a_search_may_be_given_on_the_command_line(place, tmp_path, capsys):
    """Guards against settings that come after the choice between a run and a search."""
    (tmp_path / "plain.yaml").write_text(RECIPE.partition("search:")[0])
    for name in ("nets.py", "net.safetensors"):
        shutil.copy(place / name, tmp_path)
    command = ["run", str(tmp_path / "plain.yaml"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "is a hole, and nothing says how to fill it" in capsys.readouterr().err
    assert main([*command, "--set", "search={minimise: bytes, sampler: random, trials: 1}"]) == 0
    assert (tmp_path / "out" / "best.attar").exists()


def test_a_reference_that_is_no_better_than_chance_is_told_of(place, tmp_path):
    """Guards against trials that lose nothing because there is nothing to lose."""
    for name in ("nets.py", "r.yaml"):
        shutil.copy(place / name, tmp_path)
    code = "\n\ndef blank():\n    made = net()\n    made[2].weight.data.zero_()\n    return made\n"
    (tmp_path / "nets.py").write_text(NETS + code)
    settings = ["models.net.source=nets.py:blank", "search.trials=1"]
    with pytest.warns(attar.AttarWarning, match="compared with 'net', whose accuracy of 0.* no better"):
        attar.run_search(tmp_path / "r.yaml", tmp_path / "out", settings=settings)
    # What it recommends is not warned of.
    settings += ["search.max_drop=null", "search.minimise=drop", "search.max_bytes=90000"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", attar.AttarWarning)
        attar.run_search(tmp_path / "r.yaml", tmp_path / "other", settings=settings)


def test_ctrl_c_leaves_the_best_found(place, tmp_path):
    def interrupt(line):
        if line.startswith("trial 1"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        attar.run_search(place / "r.yaml", tmp_path / "out", on_step=interrupt)
    found = json.loads((tmp_path / "out" / "search.json").read_bytes())
    assert found["ended"] == "interrupted; go on with resume"
    assert [each["name"] for each in found["files"]] == ["as its source gives it", "trial 0", "trial 1"]
    assert found["test"] == {}
    assert (tmp_path / "out" / "best.attar").exists()


def test_a_signal_that_a_library_swallows_is_no_failure_of_a_trial(place, tmp_path):
    """Guards against trials that are never run again, as an extension made an error of its own of Ctrl-C."""
    (tmp_path / "nets.py").write_text(
        NETS
        + """

def swallows(width=16):
    import os, signal
    if width == 5 and not os.path.exists("STOPPED"):
        open("STOPPED", "w").close()
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("error in a callback") from None
    return net(width)
""".replace("STOPPED", str(tmp_path / "stopped"))
    )
    tree = {
        "data": {"source": "nets.py:sets", "validation": 0.25},
        "threads": 1,
        "models": {"net": {"source": {"factory": "nets.py:swallows", "arguments": {"width": {"choose": [4, 5]}}}}},
        "root": str(tmp_path),
        "search": {"minimise": "bytes", "sampler": "random", "trials": 2},
    }
    with pytest.raises(KeyboardInterrupt):
        attar.run_search(tree, tmp_path / "out")
    found = attar.run_search(tree, tmp_path / "out", resume=True)
    assert not found.failed
    assert len(found.files) == 3


def test_the_time_is_kept(place, tmp_path):
    """No trial begins that would not end in time; the first one always does."""
    settings = ["search.trials=null", "search.minutes=0.0001"]
    found = attar.run_search(place / "r.yaml", tmp_path / "out", settings=settings)
    assert len(found.files) == 2
    assert found.ended == "the time was up"
