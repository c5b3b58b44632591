"""A target that is no class, such as 255 of Cityscapes, is set once: losses, metrics and reports leave it out."""

import numpy as np
import pytest
import torch
from tests.cases.training import loaders, trained
from tests.samples import conv_net
from torch import nn

import attar
from attar import AttarError, AttarWarning, Session
from attar._src.artifact.writer import pack
from attar._src.core.errors import DataError
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.measure.class_layout import ClassLayout

EPOCHS = {"epochs": 6, "optimizer": {"name": "adam", "lr": 0.02}}


def recipe(ignored, objectives, **more):
    """A recipe whose labels are ``ignored`` in half of the positions, which no input tells: a model an objective."""
    torch.manual_seed(0)
    x = torch.randn(200, 8, 10, 3)
    y = (x[..., 0] > 0).long() + (x[..., 1] > 0).long()
    y[:, :4] = ignored
    nets = {name: nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3)) for name in objectives}
    models = {
        name: {"source": nets[name], "stages": [{"stage": "finetune", "objective": objective, **EPOCHS}]}
        for name, objective in objectives.items()
    }
    return {"data": loaders(x, y), "models": models, "baseline": next(iter(models)), **more}


def own_loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs.movedim(-1, 1), targets, ignore_index=255)


def test_255_gives_the_figures_of_minus_100(tmp_path):
    def figures(ignored, objectives, **more):
        report, _ = trained(tmp_path / f"{ignored}, {more}", **recipe(ignored, objectives, **more))
        return {model["name"]: (model["metric_mean"], model["per_class"]) for model in report["models"]}

    terms = {"a": "cross_entropy", "own": own_loss, "kl": ["cross_entropy", {"name": "kl", "teacher": "a"}]}
    first = figures(-100, terms | {"own": "cross_entropy"}, ignore_index=-100)
    assert figures(255, terms, ignore_index=255) == first
    assert figures(255, {"a": {"name": "cross_entropy", "ignore_index": 255}}) == {"a": first["a"]}
    for accuracy, classes in first.values():
        assert accuracy > 0.8
        assert set(classes) == {"0", "1", "2"}


def test_losses_that_ignore_different_targets_are_refused():
    terms = [{"name": "cross_entropy", "ignore_index": 255}, {"name": "kl", "teacher": "t", "ignore_index": 0}]
    with pytest.raises(AttarError, match=r"recipe.models.a.stages.0: .*ignore_index 0, and 255 .*ignore_index: 0"):
        trained("unused", **recipe(255, {"t": terms[:1], "a": terms}))
    with pytest.raises(AttarError, match="ignore_index 255, and 254 was given before"):
        trained("unused", **recipe(255, {"a": terms[:1]}, ignore_index=254))


def test_a_label_that_is_no_class_is_refused_before_training(tmp_path):
    with pytest.raises(AttarError, match=r"labels up to 255 were given for 3 outputs.*ignore_index=255"):
        trained(tmp_path / "run", **recipe(255, {"a": own_loss}))


def test_a_file_is_evaluated_without_the_ignored_label(rng):
    session = Session(pack(conv_net()))
    x = rng.normal(size=(10, 3, 8, 8)).astype(np.float32)
    y = session.run(x).argmax(-1)
    y[:4] = 255
    with pytest.raises(DataError, match=r"ignore_index=255"):
        evaluate_accuracy(session, x, y)
    found = evaluate_accuracy(session, x, y, layout=ClassLayout(ignore_index=255))
    assert (found.accuracy, found.predictions) == (1.0, 6)
    assert "255" not in found.per_class


def tagger():
    """A tagger that is right wherever its labels are no padding, and batches of several lengths."""
    net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 3))
    with torch.no_grad():
        net[1].weight.zero_()[:, :3] = torch.eye(3)
        net[0].weight[:, :3] = 4 * torch.eye(3)[torch.arange(20) % 3]
    return net, [torch.randint(0, 20, (32, length)) for length in (12, 9, 5)]


@pytest.mark.parametrize(("ignored", "more"), [(-100, {}), (255, {"ignore_index": 255})])
@pytest.mark.parametrize("given", [False, True])
def test_labels_of_padded_batches_judge_a_quantized_module(tmp_path, ignored, more, given):
    net, batches = tagger()
    labels = [each % 3 for each in batches]
    for each in labels:
        each[:, -2:] = ignored
    data = batches if given else list(zip(batches, labels, strict=True))
    # Given labels are one array, as long as the longest batch.
    own = [nn.functional.pad(each, (0, 12 - each.shape[1]), value=ignored) for each in labels]
    if given:
        data, labels = torch.cat([nn.functional.pad(each, (0, 12 - each.shape[1])) for each in batches]), torch.cat(own)
    report = attar.quantize(net, data, bits=8, labels=labels if given else None, **more).save(tmp_path / "m.attar")
    assert (report["fidelity"]["metric"]["name"], report["fidelity"]["metric"]["file"]) == ("accuracy", 1.0)
    (output,) = report["fidelity"]["outputs"].values()
    assert output["equal_predictions"] == 1.0


def test_labels_that_give_no_metric_are_told_of(tmp_path):
    net, batches = tagger()
    labels = [each % 3 for each in batches]
    for each in labels:
        each[:, -2:] = 255
    report = attar.quantize(net, list(zip(batches, labels, strict=True)), bits=8).save(tmp_path / "m.attar")
    assert "labels up to 255 were given for 3 outputs" in report["notes"]["labels"]
    quantized = attar.quantize(net, batches[0], bits=8, labels=labels[0])
    with pytest.warns(AttarWarning, match="the labels give no metric: labels up to 255 .*ignore_index=255"):
        report = quantized.save(tmp_path / "m.attar")
    assert "metric" not in report["fidelity"]
