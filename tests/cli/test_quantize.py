"""``attar quantize`` as people call it: a factory in a file, weights in a file, a data set by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import attar
from attar._src.cli import main
from attar._src.cli.options import calibration
from attar._src.cli.options.calibration import DataChoice, chosen_inputs
from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.methods.quantize.unquantized import KEPT_VALUE

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.torch.save_file(load_object(f"{DIGITS}:DigitNet")(width=8).state_dict(), path)
    return path


def run(*options):
    return main(["quantize", f"{DIGITS}:DigitNet", "--arg", "width=8", "--data", "digits", *map(str, options)])


def test_a_file_its_report_and_what_is_printed(weights, tmp_path, capsys):
    out = tmp_path / "m.attar"
    assert run("-w", weights, "-o", out, "--bits", 4, "-a", 8, "--set", "convs.0=8", "--keep", "head", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file_bytes"] == out.stat().st_size
    assert report["left_in_floating_point"] == {"head.weight": "kept by request: 2.6 KB"}
    kept = tmp_path / "kept.attar"
    assert run("-w", weights, "-o", kept, "-b", 4, "-a", 8, "--keep-activations", "head", "--json") == 0
    assert [*json.loads(capsys.readouterr().out)["left_in_floating_point"].values()] == [KEPT_VALUE]
    known = json.loads((tmp_path / "report.json").read_text())
    assert known[report["sha256"]]["parity"]["examples"] == 512
    artifact = attar.open_artifact(out)
    assert artifact.sha256 == report["sha256"]
    assert artifact.tensor("convs.0.weight").scheme.bits == 8
    assert artifact.tensor("convs.1.weight").scheme.bits == 4
    assert artifact.manifest.preprocessing.name == "digits"
    assert artifact.manifest.task == "classification"


def test_a_scheme_powers_of_two_and_equalization(weights, tmp_path, capsys):
    out = tmp_path / "m.attar"
    options = ["--bits", 2, "--scheme", "ternary", "--set", "head=8", "--power-of-two", "--equalize", "--json"]
    assert run("-w", weights, "-o", out, *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert "pairs of layers" in report["notes"]["equalize"]
    artifact = attar.open_artifact(out)
    assert set(np.unique(artifact.tensor("convs.1.weight").codes)) == {-1, 0, 1}
    assert (np.frexp(artifact.tensor("convs.1.weight").scale)[0] == 0.5).all()
    assert artifact.tensor("head.weight").scheme.bits == 8
    assert artifact.manifest.recipe["stages"][0]["scheme"] == "ternary"


def test_best_needs_minutes_and_says_what_it_tried(weights, tmp_path, capsys):
    out = tmp_path / "m.attar"
    assert run("-w", weights, "-o", out, "--best") != 0
    assert "add --minutes 5" in capsys.readouterr().err
    assert run("-w", weights, "-o", out, "--bits", 3, "--best", "--minutes", 0.02, "--json") == 0
    assert "as given" in json.loads(capsys.readouterr().out)["notes"]["best"]


def test_dynamic_activations(weights, tmp_path, capsys):
    out = tmp_path / "m.attar"
    assert run("-w", weights, "-o", out, "--bits", 8, "--activations", "dynamic", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["dynamic_layers"], report["quantized_activations"]) == (1, 0)
    assert all("Conv" in why for why in report["left_in_floating_point"].values())
    assert main(["inspect", str(out)]) == 0
    assert "1 dynamic node" in capsys.readouterr().out
    assert main(["bench", str(out), "--rounds", "1"]) == 0
    assert "1 of 5 layers ran in integers" in capsys.readouterr().out


def test_for_people(weights, tmp_path, capsys):
    assert run("-w", weights, "-o", tmp_path / "m.attar") == 0
    shown = capsys.readouterr().out
    assert "bits per weight" in shown
    assert "equal predictions" in shown
    # Guards against a figure of training examples that reads like one of others.
    assert "accuracy is of 512 examples of digits, split train: if the network was trained on them, it is" in shown
    assert attar.open_artifact(tmp_path / "m.attar").sha256 in shown.replace("\n", "")


def test_warnings_come_first_and_strict_makes_them_an_error(weights, tmp_path, capsys):
    out = tmp_path / "m.attar"
    assert run("-w", weights, "-o", out, "--bits", 2, "--scales", "absmax", "--strict") == 1
    streams = capsys.readouterr()
    assert streams.out.startswith("warning: ")
    assert "the floating module" in streams.out.splitlines()[0]
    assert streams.out.count("warning:") == 1
    assert "warning:" not in streams.err
    assert "error: --strict: 1 warning" in streams.err
    assert out.is_file()
    assert "against floating point" in streams.out
    assert "accuracy" in streams.out
    assert run("-w", weights, "-o", out, "--bits", 2, "--scales", "absmax", "--strict", "--tolerance", "none") == 0
    assert "warning:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("equal=0.9", "no key named 'equal'; did you mean 'equal_predictions'"),
        ("equal_predictions=2", "tolerance.equal_predictions"),
    ],
)
def test_a_tolerance_that_is_none_is_refused(weights, tmp_path, capsys, given, message):
    assert run("-w", weights, "-o", tmp_path / "m.attar", "--tolerance", given) == 1
    assert message in capsys.readouterr().err


def test_the_seed_chooses_the_examples(weights, tmp_path):
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("-w", weights, "-o", tmp_path / name, "-a", 8, "--examples", 64, "--seed", seed)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "conv=8"], "did you mean"),
        (["--keep", "haed"], "did you mean 'head"),
        (["--keep-activations", "haed"], "did you mean 'head"),
        (["--arg", "wdth=8"], "wdth"),
        (["--data", "digts"], "did you mean 'digits'"),
        (["--granularity", "group"], "group:SIZE"),
        (["--scales", "absmx"], "did you mean 'absmax'"),
        (["--observer", "min"], "did you mean 'minmax'"),
        (["--preprocessing", "imagnet"], "did you mean 'imagenet'"),
        (["--weights", "none.safetensors"], "no weights at"),
    ],
)
def test_a_mistake_is_one_line_that_helps(weights, tmp_path, capsys, options, message):
    assert run("-w", weights, "-o", tmp_path / "m.attar", *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "m.attar").exists()


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--bits", "0", "--bits"),
        ("--bits", "9", "--bits"),
        ("--bits", "four", "--bits"),
        ("--set", "convs.0", "write GLOB=BITS"),
        ("--set-activations", "convs.0", "write GLOB=BITS"),
        ("--activations", "dynamc", "2 to 8, dynamic, or auto"),
        ("--activations", "9", "2 to 8, dynamic, or auto"),
        ("--arg", "width", "write NAME=VALUE"),
        ("--coder", "rns", "did you mean 'rans'"),
        ("--dynamic", "first", "write AXIS"),
        ("--tolerance", "error", "write NAME=NUMBER"),
    ],
)
def test_words_that_cannot_be_read_are_wrong_usage_before_any_work(
    weights, tmp_path, capsys, monkeypatch, option, text, message
):
    monkeypatch.setattr(calibration, "load_examples", lambda *_: pytest.fail("work was done"))
    assert run("-w", weights, "-o", tmp_path / "m.attar", option, text) == 2
    assert message in capsys.readouterr().err


def test_images_of_another_shape_are_named(weights, tmp_path, capsys):
    np.savez(tmp_path / "d.npz", x=np.zeros((8, 3, 8, 8), np.float32), y=np.zeros(8, np.int64))
    assert run("-w", weights, "-o", tmp_path / "m.attar", "--data", f"npz:{tmp_path / 'd.npz'}") == 1
    assert "fails on the first batch, x float32 (8, 3, 8, 8)" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_known_before_any_work(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "load_examples", lambda *_: pytest.fail("work was done"))
    assert run("-w", weights, "-o", tmp_path / "no" / "such" / "m.attar") == 1
    assert f"mkdir -p {tmp_path / 'no' / 'such'}" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def _net(tmp_path, forward, x):
    """Write a module, its weights and its data; return the arguments that name them."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(6, 3)\n\n"
        f"    def forward(self, x):\n        return super().forward({forward})\n"
    )
    safetensors.torch.save_file(torch.nn.Linear(6, 3).state_dict(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "d.npz", x=x)
    place, data = str(tmp_path / "net.py"), f"npz:{tmp_path / 'd.npz'}"
    return ["quantize", f"{place}:Net", "-w", str(tmp_path / "w.safetensors"), "-d", data, "-o", str(tmp_path / "o")]


@pytest.mark.parametrize(("kind", "advice"), [(np.uint8, '"scale": 0.00392'), (np.bool_, '{"layout": "NC"}')])
def test_bytes_without_preprocessing_are_named(tmp_path, capsys, rng, kind, advice):
    arguments = _net(tmp_path, "x", rng.integers(0, 2, (40, 6)).astype(kind))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"the examples are {np.dtype(kind)} of shape (40, 6)" in error
    assert "add --preprocessing" in error
    assert "unit" in error
    assert advice in error
    # What the message advises works.
    assert main([*arguments, "-p", '{"layout": "NC", "scale": 0.00392}']) == 0


def test_a_module_that_takes_bytes_gets_them(tmp_path, rng):
    arguments = _net(tmp_path, "x.float() / 255", rng.integers(0, 256, (40, 6)).astype(np.uint8))
    assert main([*arguments, "-p", "none"]) == 0
    assert attar.open_artifact(tmp_path / "o").manifest.preprocessing is None


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_tokens_need_no_preprocessing(tmp_path, rng, kind):
    assert main(_net(tmp_path, "x.float()", rng.integers(0, 256, (40, 6)).astype(kind))) == 0


def test_a_factory_that_fails_is_one_line(weights, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("def net():\n    raise KeyError('width')\n")
    where = f"{tmp_path / 'broken.py'}:net"
    assert main(["quantize", where, "-w", str(weights), "-d", "digits", "-o", str(tmp_path / "o")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the factory net ")
    assert "KeyError('width')" in error


@pytest.mark.parametrize(
    ("total", "examples", "validation", "parts"),
    [
        (515, 512, None, (258, 257)),
        (515, 512, 100, (415, 100)),
        (4000, 512, None, (512, 2000)),
        (1500, 512, None, (512, 988)),
        (1, 512, None, (1, 0)),
        (515, 512, 0, (512, 0)),
    ],
)
def test_a_drop_is_measured_on_a_fair_part(tmp_path, rng, total, examples, validation, parts):
    """Guards --max-drop on small data sets: three examples that calibration left over measure nothing."""
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(total, 2)).astype(np.float32), y=np.arange(total) % 2)
    choice = DataChoice(f"npz:{tmp_path}/d.npz", "train", "net", examples=examples, validation=validation)
    chosen = chosen_inputs(choice)
    held, labels = chosen.about.get("validation", ((), ()))
    assert (len(chosen.inputs), len(held)) == parts
    assert (len(chosen.about["labels"]), len(labels)) == parts


def test_a_small_bound_is_judged_on_more(tmp_path, rng):
    """Guards a bound of 0.1 points against two thousand examples, of which three decide: they err by 0.16."""
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(9000, 2)).astype(np.float32), y=np.arange(9000) % 2)
    found = {}
    for bound in (None, 0.0, 0.5, 0.1, 0.01):
        chosen = chosen_inputs(DataChoice(f"npz:{tmp_path}/d.npz", "train", "net", validation=None, bound=bound))
        found[bound] = len(chosen.about["validation"][0])
    assert found == {None: 2000, 0.0: 2000, 0.5: 2000, 0.1: 5000, 0.01: 9000 - 512}


def test_validation_that_would_not_be_used_is_refused(tmp_path, capsys):
    """Guards an option without effect: of texts, a part of the examples is held out instead."""
    (tmp_path / "t.txt").write_text("a line of text\n" * 8)
    text = ["quantize", "hf:none", "-d", f"text:{tmp_path}/t.txt", "-o", str(tmp_path / "m.attar"), "--validation", "4"]
    assert main(text) == 2
    assert "--validation is for --max-drop" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SpecError, match="draws from a data set, and text:"):
        chosen_inputs(DataChoice(f"text:{tmp_path}/t.txt", "train", "hf:none", validation=4))
