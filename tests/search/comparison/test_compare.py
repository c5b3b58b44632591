"""``attar.compare`` from a module to a folder."""

import copy
import hashlib
import json
import time
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import torch

import attar
from attar._src.cli import main
from attar._src.core.errors import AttarError, SpecError, UnknownName
from attar._src.search import step_times
from attar._src.search.comparison import measured, target
from attar._src.search.comparison.comparison_folder import ComparisonFolder
from attar._src.search.comparison.post_training_files import PostTrainingFiles
from attar._src.search.comparison.registry import METHODS
from attar._src.search.comparison.tuning import NO_TRAINING
from attar._src.search.search_folder import LOCK

DIGITS = Path(__file__).parents[3] / "examples" / "digits.py"
METHODS_HERE = ["quantization", "pruned channels", "pruned 2:4 + quantization"]


@pytest.fixture(scope="module")
def trained():
    """A network that tells four blobs apart, calibration and validation examples."""
    torch.manual_seed(0)
    centres, labels = 2 * torch.randn(4, 8), torch.arange(1200) % 4
    x = centres[labels] + torch.randn(1200, 8)
    net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[:800]), labels[:800]).backward()
        optimizer.step()
    return net.eval(), (x[:200], labels[:200]), (x[800:], labels[800:])


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Time each file for a moment, open it in one process, and make few."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measured, "_TIMED", 0.05)
        patched.setattr(measured, "_PROCESSES", 1)
        # How close a search comes is tested without files.
        patched.setattr(target, "_NEAR_DROP", 0.5)
        yield


@pytest.fixture(scope="module")
def found(trained, tmp_path_factory):
    net, data, validation = trained
    folder = tmp_path_factory.mktemp("compared") / "found"
    return attar.compare(net, data, folder, bytes=1900, drop=2, methods=METHODS_HERE, validation=validation)


def clipped(module):
    """The network with one hidden unit, which tells two of four classes apart at best."""
    found = copy.deepcopy(module)
    with torch.no_grad():
        found[0].weight[1:] = 0
        found[0].bias[1:] = 0
    return found


def rows_of(result, what):
    (found,) = (each for each in result.found["targets"] if each["what"] == what)
    return {row["method"]: row for row in found["rows"]}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_have_the_bytes_that_were_asked_for_or_say_why_not(found):
    rows = rows_of(found, "bytes")
    assert [*rows] == METHODS_HERE
    for row in rows.values():
        if row["holds"]:
            assert row["file_bytes"] == (found.folder / row["file"]).stat().st_size <= 1900
            assert row["file_bytes"] >= 0.98 * 1900 or "at its largest" in row["why"]
        else:
            assert "at least" in row["why"] or "already" in row["why"]
    assert rows["quantization"]["holds"]
    assert all(row["drop"] <= 2 for row in rows_of(found, "drop").values() if row["holds"])


def test_the_loss_is_that_of_the_decoded_file_on_the_validation_examples(found, trained):
    net, _, (x, y) = trained
    with torch.no_grad():
        before = (net(x).argmax(1) == y).float().mean().item()
    for row in rows_of(found, "drop").values():
        session = attar.Session(found.folder / row["file"])
        right = (session.run({session.inputs[0].name: x.numpy()})[session.main_output].argmax(1) == y.numpy()).mean()
        assert row["drop"] == pytest.approx(100 * (before - right), abs=1e-4)
        assert row["noise"] > 0


def test_every_file_is_measured_in_the_same_run(found):
    for row in (*rows_of(found, "bytes").values(), found.found["floating"]):
        if row.get("holds", True):
            assert row["ms"] > 0
            assert row["against_floating"] == sorted(row["against_floating"])
            assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 10_000_000
            assert (row["joules"] is None) == bool(found.found["energy"])
            assert row["hardware"]
    assert found.found["floating"]["against_floating"] == [1.0, 1.0, 1.0]


def test_the_answer_names_the_method_that_is_recommended(found):
    best = found.recommended("bytes")
    assert f"use {best['method']}: {best['file_bytes']:,} bytes" in found.answer
    told = json.loads((found.folder / "compare.json").read_text())
    assert told == json.loads(json.dumps(found.found))
    page = (found.folder / "compare.html").read_text()
    assert f"use {best['method']}" in page
    assert all(name in page for name in METHODS_HERE)


@pytest.mark.parametrize("method", ["pruned channels", "pruned 2:4 + quantization"])
def test_options_make_a_file_again_byte_for_byte(found, trained, tmp_path, method):
    """Guards against options that make another file than the one they stand beside."""
    net, data, _ = trained
    row = rows_of(found, "drop")[method]
    pruned = attar.prune(net, data, **row["options"]["prune"])
    path = tmp_path / "again.attar"
    if "quantize" in row["options"]:
        attar.quantize(pruned.module, data, **row["options"]["quantize"], tolerance=None).save(path)
    else:
        pruned.save(path)
    assert sha256(path) == row["sha256"]


def test_a_comparison_that_was_cut_goes_on_to_the_same_files(found, trained, tmp_path, monkeypatch):
    """Guards against lost work, and against files that depend on where a comparison was cut."""
    net, data, validation = trained
    save, left, said = PostTrainingFiles.save, [4], []

    def cut(self, options, path):
        left[0] -= 1
        if left[0] < 0:
            time.sleep(0.3)
            raise KeyboardInterrupt
        return save(self, options, path)

    monkeypatch.setattr(PostTrainingFiles, "save", cut)
    given = {"methods": METHODS_HERE[1:2], "validation": validation}
    with pytest.raises(KeyboardInterrupt):
        attar.compare(net, data, tmp_path / "s", bytes=1900, drop=2, **given)
    told = json.loads((tmp_path / "s" / "compare.json").read_text())
    assert told["ended"].startswith("interrupted")
    assert "no time" not in {row["why"] for each in told["targets"] for row in each["rows"]}, "none was asked for"
    with pytest.raises(SpecError, match="go on with it"):
        attar.compare(net, data, tmp_path / "s", bytes=1900, **given)
    with pytest.raises(SpecError, match="another module"):
        attar.compare(torch.nn.Sequential(*net, torch.nn.Tanh()), data, tmp_path / "s", bytes=1, resume=True, **given)
    left[0] = 100
    spent = ComparisonFolder(tmp_path / "s", resume=True).spent()
    tries = json.loads((tmp_path / "s" / "compare.json").read_text())["tries"]
    assert spent >= 0.3 + sum(each["seconds"] for each in tries)
    again = attar.compare(net, data, tmp_path / "s", bytes=1900, drop=2, resume=True, on_step=said.append, **given)
    assert any(line.startswith("goes on with 4 files; 0:") for line in said)
    for what in ("bytes", "drop"):
        files = {name: row.get("sha256") for name, row in rows_of(again, what).items()}
        assert files == {name: rows_of(found, what)[name].get("sha256") for name in METHODS_HERE[1:2]}
    made = left[0]
    attar.compare(net, data, tmp_path / "s", bytes=1900, resume=True, **given)
    assert left[0] == made


def test_what_takes_long_is_told_before_it_runs(trained, tmp_path, monkeypatch):
    """Guards against minutes without a word: of the export, of the first size, of the timing."""
    net, data, validation = trained
    said = []
    monkeypatch.setattr(step_times, "_TOLD", 0.0)
    given = {"methods": ["8 bits", "quantization"], "validation": validation, "on_step": said.append}
    attar.compare(net, data, tmp_path, bytes=1900, **given)
    assert said[0].startswith("reading examples; running and exporting the module")
    assert said[1] == "running the module on 400 validation examples, which judge"
    assert said[2].startswith("floating point: packed, verified and judged")
    begun = next(place for place, line in enumerate(said) if line.startswith("quantization at 1,900: about 0:"))
    assert "(solutions of all layers at all levels first" in said[begun]
    assert said[begun + 1].startswith("quantization at 1,900: 1,")
    assert said[-1].startswith("times in turns and memory of 3 files: about 0:")
    assert [line.partition(":")[0] for line in said].index("8 bits") < begun
    said.clear()
    attar.compare(net, data, tmp_path, bytes=1700, resume=True, **given)
    assert "(solutions of all layers" in next(line for line in said if line.startswith("quantization at 1,700: about"))


def test_a_ruined_network_is_not_recommended(found, trained, tmp_path, monkeypatch):
    """Guards against an answer in no time: a network that guesses, as no other file is so small yet."""
    net, data, validation = trained
    monkeypatch.setattr(PostTrainingFiles, "_pruned", lambda self, _: SimpleNamespace(module=clipped(self.of.module)))
    result = attar.compare(net, data, tmp_path, bytes=3000, methods=["pruned 2:4"], validation=validation)
    (target,) = result.found["targets"]
    row = rows_of(result, "bytes")["pruned 2:4"]
    assert (row["holds"], row["ruined"]) == (True, True)
    assert row["why"] == f"ruined: loses {row['drop']:.3g}"
    assert result.recommended("bytes") is target["recommended"] is None
    assert not target["reached"]
    assert result.answer.startswith("None of the methods that were tried keeps the network at 3,000 bytes")
    assert result.answer in (tmp_path / "compare.html").read_text()
    kept = found.found["targets"][0]["kept"]
    keeping = [each["file_bytes"] for each in found.found["tries"] if each["file"] and not each["ruined"]]
    assert kept["file_bytes"] == min(keeping)


def test_what_there_is_no_time_for_is_named(trained, tmp_path):
    net, data, validation = trained
    result = attar.compare(net, data, tmp_path, drop=1, minutes=1e-6, validation=validation, methods=METHODS_HERE)
    assert [each["method"] for each in result.found["tries"]] == ["floating point"]
    assert any("pruned channels" in each for each in result.found["skipped"])
    assert result.recommended("drop") is None
    assert "No method made a file" in result.answer


def test_what_needs_labels_or_training_is_left_out_by_name(trained, tmp_path):
    net, (x, _), (more, _) = trained
    given = {"methods": ["pruned channels", "trained quantization"], "validation": more}
    result = attar.compare(net, x, tmp_path, drop=30, **given)
    labels, training = result.found["left_out"].values()
    assert "needs labels" in labels
    assert training == NO_TRAINING
    assert result.found["targets"][0]["rows"][1]["why"] == NO_TRAINING
    assert result.found["unit"] == "% of predictions"


def test_methods_that_train_reach_the_bytes(trained, tmp_path):
    """Guards against a cost of training that nobody measured."""
    net, (x, y), validation = trained
    result = attar.compare(
        net,
        (x, y),
        tmp_path,
        bytes=1900,
        methods=["distillation + trained quantization"],
        train=(x, y),
        epochs=2,
        validation=validation,
    )
    row = rows_of(result, "bytes")["distillation + trained quantization"]
    assert row["file_bytes"] <= 1900
    assert row["training_examples"] == 2 * len(x)
    assert (tmp_path / row["options"]["train"]["recipe"]).is_file()
    assert "gradient steps saw 400 examples" in result.answer


def test_what_cannot_be_asked_for_is_refused(trained, tmp_path):
    net, data, _ = trained
    with pytest.raises(UnknownName, match="quantization"):
        attar.compare(net, data, tmp_path, methods=["quantisation"])
    for name, value in (
        *(("bytes", each) for each in (0, "40k", 1500.5, True)),
        *(("drop", each) for each in (-1, "1", float("nan"))),
        *(("minutes", each) for each in (0, "3m", float("inf"))),
        *(("methods", each) for each in ([], "quantization")),
    ):
        with pytest.raises(SpecError, match=f"{name}="):
            attar.compare(net, data, tmp_path, **{"drop": 1, name: value})
    with pytest.raises(SpecError, match=r"add train=\(x, y\)"):
        attar.compare(net, data, tmp_path, drop=1, epochs=3)


def test_what_is_active_is_left_alone(trained, tmp_path):
    """Guards against searches and comparisons that forget to hold their folder."""
    net, data, validation = trained
    for command, given in ((attar.compare, {"drop": 1}), (attar.compress, {"max_drop": 1})):
        folder = tmp_path / command.__name__
        folder.mkdir()
        with filelock.FileLock(folder / LOCK), pytest.raises(AttarError, match="is active"):
            command(net, data, folder, validation=validation, **given)
        assert not (folder / "journal.jsonl").exists()


def test_methods_differ_and_begin_where_others_there_are_ended():
    variants = [each for method in METHODS.values() for each in method.variants]
    assert len({json.dumps(each.options(None)) for each in variants}) == len(variants)
    assert all(each.like is None or each.like in METHODS for each in variants)


def test_the_command(tmp_path, capsys):
    given = ["compare", f"{DIGITS}:DigitNet", "--arg", "width=8", "-d", "digits", "--examples", "64"]
    given += ["--validation", "100", "-o", str(tmp_path / "s")]
    assert main([*given, "--bytes", "soon"]) == 2
    assert "--bytes 'soon'" in capsys.readouterr().err
    assert main([*given, "--epochs", "3"]) == 2
    assert "add --train" in capsys.readouterr().err
    assert main([*given, "--method", "quantisation"]) == 1
    assert "quantization" in capsys.readouterr().err
    assert main([*given, "--drop", "100", "--method", "pruned 2:4", "--method", "trained quantization"]) == 0
    out, err = capsys.readouterr()
    assert "use pruned 2:4" in out
    assert "left out: trained quantization: trains; give --train" in out
    assert "compare.html" in out
    assert "floating point" in err
