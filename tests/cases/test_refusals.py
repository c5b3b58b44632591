"""Models and data in the forms people hold them in: each works, or is refused in a sentence with the way out.

The kind: a form that PyTorch or its users have, and that is not a float32 module with one tensor.
"""

import collections
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import attar
from attar import DataError, ModelError
from attar._src.deploy.first_run import prepare

X = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 3


def door(model, data, **options):
    return prepare(model, data, **{"examples": 512, "batch": 64, **options})


def lin():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3)).eval()


def inference():
    with torch.inference_mode():
        return lin()


def exported(model, example=X[:4]):
    return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def lazy():
    return nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(3))


class Hooked(nn.Sequential):
    """A forward hook doubles what its first layer gives."""

    def __init__(self):
        super().__init__(*lin())
        self[0].register_forward_hook(lambda module, inputs, output: 2 * output)


class Scaled(nn.Module):
    """A tensor that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.net, self.scale = lin(), torch.tensor([2.0, 3.0, 4.0])

    def forward(self, x):
        return self.net(x) * self.scale


#: ``torch.compile`` makes the same wrapper whatever is behind it; the eager one needs no compiler of C++.
compiled = functools.partial(torch.compile, backend="eager")


class Part(nn.Module):
    """A part of it is compiled."""

    def __init__(self):
        super().__init__()
        self.body, self.head = compiled(nn.Linear(10, 32)), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())


def halved(model, kind):
    for tensor in vars(model).values():
        if isinstance(tensor, torch.Tensor):
            tensor.data = tensor.data.to(kind)
    return model.to(kind)


MODELS = {
    "DataParallel": lambda: nn.DataParallel(lin()),
    "compile": lambda: compiled(lin()),
    "compile in place": lambda: (model := lin(), model.compile(backend="eager"))[0],
    "both": lambda: nn.DataParallel(compiled(lin())),
    "a part compiled": lambda: Part().eval(),
    "averaged": lambda: AveragedModel(lin()).eval(),
    "ExportedProgram": lambda: exported(lin()),
    "ExportedProgram.module()": lambda: exported(lin()).module(),
    "inference_mode": inference,
    "float16": lambda: lin().half(),
    "bfloat16": lambda: lin().bfloat16(),
    "float64": lambda: lin().double(),
    "float64 attribute": lambda: halved(Scaled(), torch.float64),
    "lazy": lazy,
    "hooks": Hooked,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", MODELS)
def test_a_module_in_any_wrapper_or_type_is_quantized(form, tmp_path):
    model = MODELS[form]()
    quantized = attar.quantize(model, X, bits=8, activations=8)
    report = quantized.save(tmp_path / "m.attar")
    found = attar.Session(tmp_path / "m.attar").run(X.numpy())
    plain = model
    if hasattr(model, "graph_module"):
        plain = model.module()
    with torch.no_grad():
        kind = torch.float32 if form == "lazy" else next(plain.parameters()).dtype
        wanted = plain(X.to(kind)).float().numpy()
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    said = {"float16", "bfloat16", "float64"} & set(form.split())
    assert [note for note in report["notes"] if note not in ("exact sums", "speed")] == ["module"] * len(said)
    assert all(f"of {kind}; it is computed in float32 on the CPU" in report["notes"]["module"] for kind in said)
    if said:
        assert all(each.dtype == kind for each in model.parameters()), "the user's module changed"


def test_a_pt2_file_and_the_batch_it_was_exported_for(tmp_path):
    torch.export.save(exported(lin()), tmp_path / "m.pt2")
    attar.quantize(tmp_path / "m.pt2", X, bits=8).save(tmp_path / "m.attar")
    assert np.allclose(attar.Session(tmp_path / "m.attar").run(X.numpy()), lin()(X).detach().numpy(), atol=0.02)
    with pytest.raises(ModelError, match="there is no file"):
        attar.quantize(tmp_path / "n.pt2", X)
    (tmp_path / "n.pt2").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"n\.pt2 cannot be opened as a program of torch\.export\.save"):
        attar.quantize(tmp_path / "n.pt2", X)
    shaped = torch.export.export(nn.Sequential(nn.Unflatten(0, (2, 2)), nn.Flatten(0, 1), *lin()), (X[:4],))
    with pytest.raises(ModelError, match=r"fails on the first batch, .*say 4, takes batch=4, dynamic=\(\)"):
        attar.quantize(shaped, X)
    prepare(shaped, X, examples=64, batch=4, dynamic=())
    training = exported(nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).train())
    with pytest.raises(ModelError, match=r"exported in training mode \(batch_norm is\): .*module\.eval\(\)"):
        attar.quantize(training, X)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(10, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class Number(Branch):
    def forward(self, x):
        return self.layer(x)[:, : int(x.abs().max()) + 1]


class Numpy(Branch):
    def forward(self, x):
        return self.layer(torch.from_numpy(np.tanh(x.numpy())))


def scripted():
    return torch.jit.script(lin())


def packed():
    with pytest.warns(match="deprecated"):
        return torch.ao.quantization.quantize_dynamic(lin(), {nn.Linear})


def meta():
    with torch.device("meta"):
        return nn.Linear(10, 3)


REFUSED = {
    "scripted": (scripted, r"Sequential is a ScriptModule .* net\.load_state_dict\(scripted\.state_dict\(\)\)"),
    "traced": (lambda: torch.jit.trace(lin(), X), "Sequential is a ScriptModule"),
    "state dict": (lambda: lin().state_dict(), r"mapping of 4 entries .* no torch.nn.Module: .* net = Net\(\)"),
    "pickled": (lambda: "model.pt", r"the path 'model\.pt' is no torch\.nn\.Module: .* net\.load_state_dict"),
    "onnx": (lambda: "model.onnx", "an ONNX graph, which PyTorch cannot train or trace"),
    "attar": (lambda: "model.attar", "a compressed model; attar.Session runs it"),
    "class": (lambda: nn.ReLU, r"the class ReLU is no torch.nn.Module: give an object of it: ReLU\(\.\.\.\)"),
    "function": (lambda: torch.relu, r"the function relu .* class Net\(torch\.nn\.Module\)"),
    "nothing": (lambda: None, "a NoneType is no torch.nn.Module"),
    "quantized": (packed, "0 is a Linear and quantized already, by torch.ao.* give the floating-point module"),
    "complex": (
        lambda: nn.Linear(10, 3).to(torch.complex64),
        "weight is torch.complex64; Attar compresses real weights",
    ),
    "meta": (meta, "weight is on the meta device and has no values"),
    "a branch on data": (
        Branch,
        r"at test_refusals\.py, line \d+: .*depends on the values of a tensor.*with torch\.where",
    ),
    "a number from data": (Number, "depends on the values of a tensor"),
    "numpy": (Numpy, r"leaves PyTorch with \.numpy\(\) .* write it with torch functions"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", REFUSED)
def test_a_model_that_cannot_be_traced_is_refused_with_the_way_out(form):
    make, message = REFUSED[form]
    with pytest.raises(ModelError, match=message):
        attar.quantize(make(), X)


def test_weights_of_torchao_are_refused():
    quantization = pytest.importorskip("torchao.quantization")
    model = lin()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    with pytest.raises(
        ModelError, match=r"0\.weight is a torchao.*, not a plain tensor: give the floating-point module"
    ):
        attar.quantize(model, X)


class Keyword(Branch):
    def forward(self, *, x):
        return self.layer(x)


class Masked(Branch):
    def forward(self, x, past=None, mask=None):
        return self.layer(x if mask is None else x * mask)


class Tupled(Branch):
    def forward(self, inputs):
        x, lengths = inputs
        return self.layer(x) / lengths[:, None]


class Dicted(Branch):
    def forward(self, batch, scale=None):
        return self.layer(batch["x"]) / batch["lengths"][:, None]


class Labelled(Branch):
    """As Hugging Face: with labels the loss is the first output."""

    def forward(self, x, labels=None):
        logits = self.layer(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Items(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], int(Y[index])


class Stream(IterableDataset):
    def __iter__(self):
        return ((x, int(y)) for x, y in zip(X, Y, strict=True))


class Encoding(collections.UserDict):
    """As BatchEncoding and BatchFeature are: a mapping with its fields in ``data``."""


Pair = collections.namedtuple("Pair", ["x", "labels"])
LENGTHS = torch.arange(1.0, 65.0)
SAMPLES = [
    {"x": x, "mask": torch.ones(10), "label": int(y), "text": "a", "none": None} for x, y in zip(X, Y, strict=True)
]

DATA = {
    "keyword-only": (Keyword, {"x": X}, ["x"]),
    "keyword-only, a tensor": (Keyword, X, ["x"]),
    "an argument skipped": (Masked, {"x": X, "mask": torch.ones(64, 10)}, ["x", "mask"]),
    "an argument skipped in batches": (Masked, [{"mask": torch.ones(64, 10), "x": X}], ["x", "mask"]),
    "labels by name": (Labelled, {"x": X, "labels": Y}, ["x"]),
    "Encoding": (Labelled, Encoding(x=X, labels=Y), ["x"]),
    "lists": (Labelled, Encoding(x=X.tolist(), labels=Y.tolist()), ["x"]),
    "named tuple": (Labelled, [Pair(X, Y)], ["x"]),
    "one tuple": (Tupled, (X, LENGTHS), ["inputs_0", "inputs_1"]),
    "one tuple by name": (Tupled, {"inputs": (X, LENGTHS)}, ["inputs_0", "inputs_1"]),
    "one tuple in a loader": (Tupled, [((X, LENGTHS), Y)], ["inputs_0", "inputs_1"]),
    "one mapping": (Dicted, {"batch": {"x": X, "lengths": LENGTHS}}, ["batch_x", "batch_lengths"]),
    "labels in a tuple": (lin, (X, Y), ["input"]),
    "labels in a list": (lin, [(X, Y)] * 2, ["input"]),
    "mapping and labels": (Masked, ({"x": X}, Y), ["x"]),
    "inputs and labels flat": (Masked, DataLoader(TensorDataset(X, torch.ones(64, 10), Y), batch_size=16), None),
    "list of samples": (lin, [*X], ["input"]),
    "list of arrays": (lin, [*X.numpy().astype(np.float64)], ["input"]),
    "list of pairs": (lin, [(x, int(y)) for x, y in zip(X, Y, strict=True)], ["input"]),
    "list of mappings": (Masked, SAMPLES, ["x", "mask"]),
    "TensorDataset": (lin, TensorDataset(X, Y), ["input"]),
    "Dataset": (lin, Items(), ["input"]),
    "IterableDataset": (lin, Stream(), ["input"]),
    "DataLoader": (lin, DataLoader(Items(), batch_size=7), ["input"]),
    "generator of batches": (lin, (each for each in X.split(16)), ["input"]),
    "generator of samples": (lin, ((x, 1) for x in X), ["input"]),
    "float64": (lin, X.double().numpy(), ["input"]),
    "one example": (lin, X[0], ["input"]),
    "a batch of one": (lin, X[:1], ["input"]),
}


@pytest.mark.parametrize("form", DATA)
def test_data_as_people_have_them(form, tmp_path):
    make, data, names = DATA[form]
    model = make().eval()
    if names is None:
        with pytest.raises(
            DataError, match=r"a batch of 3 tensors, .* write \(\(first, second, \.\.\.\), targets\), or a map"
        ):
            attar.quantize(model, data)
        return
    module, inputs, notes = door(model, data)
    assert inputs.names == tuple(names)
    assert inputs.batches[0][0].shape[1:] == (10,)
    alone = form in ("one example", "a batch of one")
    assert inputs.examples == (1 if alone else 128 if form == "labels in a list" else 64)
    assert ("data" in notes) == (alone or form in ("float64", "list of arrays", "list of mappings"))
    wanted = [X, torch.ones(64, 10) if "mask" in names else LENGTHS][: len(names)]
    first = [each[: len(inputs.batches[0][0])] for each in wanted]
    assert alone or all(map(torch.equal, map(torch.Tensor.float, inputs.batches[0]), first))
    assert module is model


def test_the_tuple_and_the_mapping_of_an_argument_reach_it(tmp_path):
    for make, data in ((Tupled, (X, LENGTHS)), (Dicted, {"batch": {"x": X, "lengths": LENGTHS}})):
        model = make().eval()
        quantized = attar.quantize(model, data, bits=8)
        quantized.save(tmp_path / "m.attar")
        session = attar.Session(tmp_path / "m.attar")
        found = session.run(dict(zip([p.name for p in session.inputs], (X.numpy(), LENGTHS.numpy()), strict=True)))
        wanted = model(data if make is Tupled else data["batch"]).detach().numpy()
        assert np.allclose(next(iter(found.values())), wanted, atol=0.02)
        loaded = attar.load(tmp_path / "m.attar", into=make())
        assert torch.allclose(loaded(X, LENGTHS), torch.from_numpy(wanted), atol=0.02)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.layer(self.embed(ids).mean(1))


def test_batches_of_different_lengths_work_or_the_line_to_write_is_said(tmp_path):
    batches = [torch.randint(0, 20, (8, length)) for length in (5, 9, 7)]
    attar.quantize(Recurrent(), (each for each in batches)).save(tmp_path / "m.attar")
    assert attar.Session(tmp_path / "m.attar").run(batches[1].numpy()).shape == (8, 3)
    with pytest.raises(DataError, match=r"'ids' has the lengths \[5, 7, 9\] along axis 1, .*; write dynamic=\(0, 1\)"):
        attar.quantize(Recurrent(), (each for each in batches), dynamic=(0,))
    examples = [{"ids": ids[0]} for ids in batches]
    with pytest.raises(DataError, match=r"3 examples do not make a batch: .* attar\.quantize\(\.\.\., collate=f\)"):
        attar.quantize(Recurrent(), [each | {"label": 0} for each in examples])

    def pad(examples):
        return {"ids": nn.utils.rnn.pad_sequence([each["ids"] for each in examples], batch_first=True)}

    _, padded, _ = door(Recurrent(), examples, collate=pad)
    assert [tuple(batch[0].shape) for batch in padded.batches] == [(3, 9)]
    with pytest.raises(DataError, match=r"collate raised KeyError: 'idz' for 3 examples \(test_refusals\.py, line"):
        attar.quantize(Recurrent(), examples, collate=lambda batch: [each["idz"] for each in batch])


def test_what_may_be_batches_or_examples_is_decided_by_the_module_or_refused():
    image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, 2)).eval()
    images = torch.randn(12, 3, 8, 8)
    for data in ([*images], [*images.split(4)], images[0]):
        found = door(image, data)[1]
        assert found.batches[0][0].shape[1:] == (3, 8, 8)
    assert (
        attar.quantize(image, [*images]).data.examples == attar.quantize(image, [*images.split(4)]).data.examples == 12
    )
    with pytest.raises(DataError, match=r"write torch\.cat\(data\) if they are batches, torch\.stack\(data\)"):
        attar.quantize(lin(), [*X.split(16)])


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRU(10, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x, h):
        y, h = self.cell(x, h)
        return self.out(y), h


def test_a_state_whose_batch_axis_cannot_be_told_names_the_line_to_write():
    x, h = torch.randn(8, 5, 10), torch.randn(1, 8, 8)
    for data in ((x, h), [(x, h)] * 4, [((x, h), 0)] * 4, [{"x": x, "h": h}] * 4):
        with pytest.raises(DataError, match=r"'h' \(1, 8, 8\) has 2 axes of 8, .* dynamic=\{'h': \(1,\)\}"):
            attar.quantize(Stateful(), data)
    assert attar.quantize(Stateful(), [{"x": x, "h": h}] * 4, dynamic={"h": (1,)}).data.examples == 32


def test_what_a_module_does_not_compute_on_is_said_before_it_is_traced():
    with pytest.raises(
        ModelError, match=r"Sequential fails on the first batch, input float32 \(64, 9\): RuntimeError: .*axis 0"
    ):
        attar.quantize(lin(), X[:, :9])

    class Wrong(Branch):
        def forward(self, x):
            raise EOFError("no more")

    with pytest.raises(
        ModelError, match=r"Wrong fails on the first batch, .*EOFError: no more \(test_refusals\.py, line"
    ):
        attar.quantize(Wrong(), {"x": X})


def test_data_that_raise_are_one_line_with_the_place():
    class Broken(Items):
        def __getitem__(self, index):
            raise EOFError("the file is cut")

    message = r"raised EOFError: the file is cut \(test_refusals\.py, line \d+: raise EOFError"
    for data in (Broken(), DataLoader(Broken(), batch_size=4)):
        with pytest.raises(DataError, match=message):
            attar.quantize(lin(), data)
    with pytest.raises(DataError, match="data is int; give an array"):
        attar.quantize(lin(), 3)
