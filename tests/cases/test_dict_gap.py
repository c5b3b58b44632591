"""An argument given by name reaches that argument, whatever optional ones before it are left out.

intel/neural-compressor #944 and huggingface/transformers #4523 took ``attention_mask`` for another argument. The kind:
batches as mappings, in recipes (training, validation, test, calibration, teachers) and in ``attar.quantize``.
"""

import contextlib
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import attar

torch.manual_seed(0)
IDS = torch.randint(1, 30, (120, 6))
MASK = torch.ones_like(IDS)
MASK[::2, 3:] = 0
KINDS = torch.randint(0, 2, (120, 6))
TARGETS = IDS[:, 0] % 3
PARTS = {"train": slice(0, 80), "validation": slice(80, 100), "test": slice(100, 120)}


class Net(nn.Module):
    """Sentence classifier; ``given`` collects which optional arguments arrived."""

    given: set = set()

    def __init__(self):
        super().__init__()
        self.embed, self.kinds, self.head = nn.Embedding(30, 8), nn.Embedding(2, 8), nn.Linear(8, 3)

    def forward(self, input_ids, token_type_ids=None, attention_mask=None, labels=None):
        Net.given.add((token_type_ids is not None, attention_mask is not None, labels is not None))
        hidden = self.embed(input_ids)
        if token_type_ids is not None:
            hidden = hidden + self.kinds(token_type_ids)
        if attention_mask is None:
            return {"logits": self.head(hidden.mean(1))}
        kept = attention_mask.unsqueeze(-1).float()
        return {"logits": self.head((hidden * kept).sum(1) / kept.sum(1))}


class Words(nn.Module):
    """Its argument is a word of Python, which the exporter renames."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, input, scale=None):
        return self.head(self.embed(input).mean(1))


class Student(Words):
    def forward(self, input_ids, attention_mask=None):
        return super().forward(input_ids)


def run(tmp_path, data, **models):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return attar.run(attar.Recipe(data=data, models=models), tmp_path / "run")


def fields(part, **more):
    given = {"input_ids": IDS, "attention_mask": MASK, "target": TARGETS, **more}
    return {name: value[PARTS[part]] for name, value in given.items() if value is not None}


def examples(part, **more):
    given = fields(part, **more)
    return [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]


FORMS = {
    "loader": lambda part: DataLoader(examples(part), batch_size=20),
    "Hugging Face's labels": lambda part: DataLoader(
        examples(part, target=None, labels=TARGETS), batch_size=20, collate_fn=torch.utils.data.default_collate
    ),
    "arrays by name": fields,
    "list of examples": examples,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_reaches_the_mask_in_a_recipe(form, tmp_path):
    Net.given = set()
    data = {part: FORMS[form](part) for part in PARTS}
    done = run(tmp_path, data, net={"source": Net(), "stages": [{"stage": "train", "epochs": 1, "batch": 20}]})
    assert Net.given == {(False, True, False)}
    session = attar.Session(done.files["net"])
    assert [port.name for port in session.inputs] == ["input_ids", "attention_mask"]
    assert 0 <= done.report["models"][0]["metric_mean"] <= 1


@pytest.mark.parametrize("more", [{"token_type_ids": KINDS}, {"attention_mask": None, "token_type_ids": KINDS}, {}])
def test_arguments_reach_their_names_in_quantize(more, tmp_path):
    Net.given = set()
    batch = fields("train", **more)
    model = Net().eval()
    attar.quantize(model, DataLoader(examples("train", **more), batch_size=20), bits=8).save(tmp_path / "m.attar")
    assert Net.given == {("token_type_ids" in batch, "attention_mask" in batch, False)}
    session = attar.Session(tmp_path / "m.attar")
    feed = {port.name: batch[port.name].numpy() for port in session.inputs}
    assert feed.keys() == batch.keys() - {"target"}
    given = {name: value for name, value in batch.items() if name != "target"}
    wanted = model(**given)["logits"].detach().numpy()
    assert np.allclose(session.run(feed)["logits"], wanted, atol=0.02)


def test_a_file_teaches_by_the_names_its_module_had(tmp_path):
    attar.quantize(Words(), {"input": IDS}, bits=8).save(tmp_path / "teacher.attar")
    assert [port.name for port in attar.Session(tmp_path / "teacher.attar").inputs] == ["input_1"]
    data = {
        part: DataLoader([each | {"input": each["input_ids"]} for each in examples(part)], batch_size=20)
        for part in PARTS
    }
    taught = {"stage": "distill", "teacher": "file", "epochs": 1}
    teacher = {"source": {"file": str(tmp_path / "teacher.attar")}}
    done = run(tmp_path, data, file=teacher, student={"source": Student(), "stages": [taught]})
    assert [port.name for port in attar.Session(done.files["student"]).inputs] == ["input_ids", "attention_mask"]
