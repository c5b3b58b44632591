"""``attar eval`` on files and labels that accuracy does not fit."""

import json

import numpy as np
import pytest
import torch

import attar
from attar._src.cli import main

SETS = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset

x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
answers = {"one": x[:, 0] > 0, "several": x[:, :3] > 0, "numbers": x[:, :2] + 1, "classes": x[:, :3].argmax(1)}

def _of(kind):
    return lambda split: (x, answers[kind])

one, several, numbers, classes = map(_of, answers)

def loader(split):
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(answers["one"])), batch_size=7)

def unlabelled(split):
    return [(torch.from_numpy(x),)]
"""


def ran(capsys, *arguments):
    assert main(["eval", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("width", "kind", "options", "metric", "value"),
    [
        (1, "one", [], "binary_accuracy", 1.0),
        (1, "loader", [], "binary_accuracy", 1.0),
        (1, "loader", ["--limit", 10, "--metric", "f1"], "f1", 1.0),
        (3, "several", [], "binary_accuracy", 1.0),
        (3, "several", ["--metric", "f1"], "f1", 1.0),
        (2, "numbers", [], "mean_squared_error", 1.0),
        (3, "classes", [], "accuracy", 1.0),
        (1, "one", ["--metric", "{sets}:share"], "share", 7.0),
    ],
)
def test_eval_judges_by_the_metric_that_fits_or_is_asked_for(width, kind, options, metric, value, tmp_path, capsys):
    sets = tmp_path / "sets.py"
    sets.write_text(SETS + "\ndef share(outputs, targets):\n    return 7\n")
    net = torch.nn.Linear(6, width, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(width, 6))
    attar.quantize(net, torch.randn(32, 6), bits=8).save(tmp_path / "m.attar")
    given = [str(each).format(sets=sets) for each in options]
    found = json.loads(ran(capsys, tmp_path / "m.attar", "--data", f"{sets}:{kind}", *given, "--json"))
    assert (found["metric"], found["examples"]) == (metric, 10 if "--limit" in options else 50)
    assert found["value" if "value" in found else "accuracy"] == pytest.approx(value, abs=0.02)
    assert metric in ran(capsys, tmp_path / "m.attar", "--data", f"{sets}:{kind}", *given)
    assert main(["eval", str(tmp_path / "m.attar"), "--data", f"{sets}:unlabelled"]) == 1
    assert "yield (x, y)" in capsys.readouterr().err


def test_labels_of_each_token_in_an_archive_judge_the_file(tmp_path, capsys):
    """An axis of labels that is not the examples' (tokens, pixels) is no reason to refuse an archive."""
    x = np.random.default_rng(0).normal(size=(40, 5, 6)).astype(np.float32)
    labels = x[..., :3].argmax(-1)
    labels[:, 3:] = -100
    np.savez(tmp_path / "tokens.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    (tmp_path / "net.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(6, 3, bias=False)\n")
    torch.save({"weight": torch.eye(3, 6)}, tmp_path / "w.pt")
    file, data = tmp_path / "m.attar", f"npz:{tmp_path / 'tokens.npz'}"
    made = [f"{tmp_path / 'net.py'}:net", "-w", tmp_path / "w.pt", "-d", data, "--class-axis", 2, "-o", file, "--json"]
    assert main(["quantize", *map(str, made)]) == 0
    assert json.loads(capsys.readouterr().out)["fidelity"]["metric"]["file"] > 0.95
    found = json.loads(ran(capsys, file, "--data", data, "--class-axis", 2, "--json"))
    assert found["accuracy"] > 0.95
    assert found["predictions"] == 40 * 3
