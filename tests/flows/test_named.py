"""Modules as Hugging Face writes them: optional arguments, mappings as batches, dataclasses as outputs."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import attar
from attar._src.core.errors import DataError


@dataclass
class Output:
    loss: object = None
    hidden: object = None
    logits: object = None


class Tagger(nn.Module):
    """Scores three classes of a sequence of words."""

    def __init__(self, width=12):
        super().__init__()
        self.words, self.kinds = nn.Embedding(20, width), nn.Embedding(2, width)
        self.inner, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):
        h = self.words(input_ids)
        if token_type_ids is not None:
            h = h + self.kinds(token_type_ids)
        if attention_mask is not None:
            h = h * attention_mask.unsqueeze(-1)
        h = self.inner(h).relu().mean(1)
        logits = self.head(h)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Output(loss, (h,), logits)


class Words(nn.Module):
    """A teacher that looks at words alone, whose first output is no score."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, input_ids):
        h = self.table(input_ids).mean(1)
        return {"pooled": h, "logits": self.head(h)}


class Weighted(Words):
    """A teacher with an argument that its student does not have, in another order."""

    def forward(self, weights, input_ids):
        h = self.table(input_ids) * weights.unsqueeze(-1)
        return self.head(h.mean(1))


def examples(count=96):
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.random((count, 5)) + 0.5)
    ids = rng.integers(0, 20, (count, 5))
    kinds = rng.integers(0, 2, (count, 5))
    return [
        {"token_type_ids": k, "labels": i[0] % 3, "input_ids": i, "weights": w}
        for i, k, w in zip(torch.from_numpy(ids), torch.from_numpy(kinds), weights, strict=True)
    ]


def loader(part=slice(None)):
    return DataLoader(examples()[part], batch_size=16)


def net(seed=0):
    torch.manual_seed(seed)
    return Tagger()


def outputs_of(path, batch):
    session = attar.Session(path)
    assert [port.name for port in session.inputs] == ["input_ids", "token_type_ids"]
    assert [port.name for port in session.outputs] == ["hidden.0", "logits"]
    return session.run({port.name: batch[port.name].numpy() for port in session.inputs})


def test_quantize_binds_by_name(tmp_path):
    whole = next(iter(DataLoader(examples(), batch_size=96)))
    module = net().eval()
    quantized = attar.quantize(module, loader(), bits=8)
    quantized.save(tmp_path / "tagger.attar")
    found = outputs_of(tmp_path / "tagger.attar", whole)
    with torch.no_grad():
        wanted = module(whole["input_ids"], token_type_ids=whole["token_type_ids"])
        simulated = quantized.module(whole["input_ids"], whole["token_type_ids"])
        back = attar.load(tmp_path / "tagger.attar", net(1))(whole["input_ids"], whole["token_type_ids"])
    for name, tensor in {"hidden.0": wanted.hidden[0], "logits": wanted.logits}.items():
        np.testing.assert_allclose(found[name], simulated[name].numpy(), atol=1e-5)
        np.testing.assert_allclose(found[name], back[name].numpy(), atol=1e-5)
        np.testing.assert_allclose(found[name], tensor.numpy(), atol=0.03)


def test_a_batch_without_a_required_argument_lists_keys_and_arguments():
    with pytest.raises(
        DataError, match=r"keys \['labels', 'token_type_ids', 'weights'\] lacks input_ids: the forward takes input_ids"
    ):
        attar.quantize(net(), [{k: v for k, v in batch.items() if k != "input_ids"} for batch in loader()])


def test_a_recipe_binds_by_name_and_a_teacher_takes_its_own_arguments(tmp_path):
    splits = {"train": loader(slice(0, 64)), "validation": loader(slice(64, 80)), "test": loader(slice(80, 96))}
    sgd = {"name": "sgd", "lr": 0.05}
    train = {"stage": "train", "epochs": 1, "optimizer": sgd}
    hint = {"name": "hint", "teacher": "weighted", "layers": {"inner": "table"}}
    recipe = attar.Recipe(
        data={"source": splits},
        threads=1,
        models={
            "teacher": {"source": Words(), "stages": [train]},
            "weighted": {"source": Weighted(), "stages": [train]},
            "student": {
                "source": net(),
                "stages": [
                    {"stage": "distill", "teacher": "teacher", "epochs": 1, "optimizer": sgd},
                    train | {"stage": "finetune", "objective": [hint, "cross_entropy"]},
                    {"stage": "quantize", "bits": 8},
                ],
            },
        },
    )
    done = attar.run(recipe, tmp_path / "run")
    batch = next(iter(DataLoader(examples(), batch_size=96)))
    found = outputs_of(tmp_path / "run" / "student.attar", batch)
    restored = attar.load(tmp_path / "run" / "student.attar", net(1))
    with torch.no_grad():
        wanted = restored(batch["input_ids"], batch["token_type_ids"])
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name].numpy(), atol=1e-5)
    teachers = {name: attar.Session(tmp_path / "run" / f"{name}.attar") for name in ("teacher", "weighted")}
    assert [port.name for port in teachers["teacher"].inputs] == ["input_ids"]
    assert [port.name for port in teachers["teacher"].outputs] == ["pooled", "logits"]
    assert [port.name for port in teachers["weighted"].inputs] == ["weights", "input_ids"]
    # It was judged by logits: three scores, not sixteen pooled numbers.
    judged = {model["name"]: model for model in done.report["models"]}
    scores = attar.Session(tmp_path / "run" / "student.attar")
    test = next(iter(splits["test"]))
    hits = scores.run({port.name: test[port.name].numpy() for port in scores.inputs})["logits"].argmax(1)
    assert judged["student"]["metric_mean"] == pytest.approx(float((hits == test["labels"].numpy()).mean()))


def test_loading_skips_the_same_optional_argument_also_beside_a_word_of_python(tmp_path):
    """The exporter calls ``input`` ``input_1``: inputs must not be matched by position for that."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, input, scale=None, shift=None):
            y = self.layer(input)
            y = y if scale is None else y * scale
            return y if shift is None else y + shift

    torch.manual_seed(0)
    module, batch = Shifted().eval(), {"input": torch.randn(32, 8), "shift": torch.randn(32, 4)}
    attar.quantize(module, batch, bits=8).save(tmp_path / "m.attar")
    session = attar.Session(tmp_path / "m.attar")
    feed = dict(zip((port.name for port in session.inputs), (each.numpy() for each in batch.values()), strict=True))
    loaded = attar.load(tmp_path / "m.attar", Shifted())
    assert torch.allclose(loaded(*batch.values()), torch.as_tensor(next(iter(session.run(feed).values()))), atol=1e-5)
