"""Weights are quantized whatever lies between the parameter and its product; what is not is listed with its bytes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import attar
from attar._src.core.tensors import Quantized


class All(nn.Module):
    """Networks on the same input, each with an output of its name."""

    def __init__(self, nets):
        super().__init__()
        self.nets = nn.ModuleDict(nets)

    def forward(self, x):
        return {name: net(x) for name, net in self.nets.items()}


class Through(nn.Module):
    """One weight, read in one way."""

    def __init__(self, shape, read):
        super().__init__()
        self.w, self.read = nn.Parameter(torch.randn(shape)), read

    def forward(self, x):
        return self.read(x, self.w)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Bilinear(8, 8, 5)

    def forward(self, x):
        return self.w(x, x.flip(-1))


class Named(nn.Module):
    """Parameters called like values of the graph."""

    def __init__(self):
        super().__init__()
        self.t, self.relu = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5))

    def forward(self, x):
        return torch.relu(x @ self.t.t()) + self.relu


READ = {
    "split": ((8, 8), lambda x, w: sum(F.linear(x, part) for part in w.split(4))),
    "chunk along the inputs": ((4, 16), lambda x, w: sum(F.linear(x, part) for part in w.chunk(2, 1))),
    "select": ((3, 8, 5), lambda x, w: sum(x @ w[i] for i in range(3))),
    "index": ((5, 8), lambda x, w: F.linear(x, w[torch.tensor([4, 0, 2, 1, 3])])),
    "view": ((2, 2, 8), lambda x, w: F.linear(x, w.view(4, 8))),
    "slice": ((10, 8), lambda x, w: F.linear(x, w[:6])),
    "permute": ((5, 8, 2), lambda x, w: x @ w.permute(1, 2, 0).reshape(8, 10)),
    "einsum": ((3, 8, 5), lambda x, w: torch.einsum("bi,eio->beo", x, w)),
    "tensordot": ((8, 3, 5), lambda x, w: torch.tensordot(x, w, 1)),
    "expand": ((4, 5), lambda x, w: torch.bmm(x.view(-1, 2, 4), w.expand(x.shape[0], 4, 5))),
    "on the left": ((5, 8), lambda x, w: (w @ x.t()).t()),
    "exponential": ((5, 8), lambda x, w: F.linear(x, w.exp())),
    "masked": ((5, 8), lambda x, w: F.linear(x, w.tril())),
    "joined": ((5, 8), lambda x, w: F.linear(x, torch.cat([w, w.flip(0)]))),
}


def sqnr(want, got):
    """Signal to noise in decibels."""
    want, got = want.detach().numpy().astype(np.float64), np.asarray(got, np.float64)
    return 10 * np.log10((want**2).mean() / ((want - got) ** 2).mean())


def run_all(folder, nets, x, **options):
    """Quantize networks in one file; return the result, its report, the session and the decibels of each network."""
    net = All(nets)
    result = attar.quantize(net, x, bits=8, **options)
    report = result.save(folder / "m.attar")
    session = attar.Session(folder / "m.attar")
    wanted, found = net(x), session.run({session.inputs[0].name: x.numpy()})
    decibels = map(sqnr, wanted.values(), found.values())
    return result, report, session, dict(zip(nets, decibels, strict=True))


def test_a_weight_behind_a_chain_is_quantized(tmp_path):
    torch.manual_seed(0)
    nets = {case: Through(*READ[case]) for case in READ} | {"bilinear": Bilinear(), "named like values": Named()}
    result, report, _, decibels = run_all(tmp_path, nets, torch.randn(32, 8))
    assert report["left_in_floating_point"] == {}
    quantized = [name for name, tensor in result.compressed.tensors.items() if isinstance(tensor, Quantized)]
    assert [name.split(".")[1] for name in sorted(quantized)] == sorted(nets)
    assert {case: ratio for case, ratio in decibels.items() if ratio <= 40} == {}


def test_the_parts_of_a_weight_run_in_integers(tmp_path):
    torch.manual_seed(0)
    cases = ["split", "select", "index", "view", "slice", "tensordot", "permute"]
    nets = {case: Through(*READ[case]) for case in cases}
    _, _, session, decibels = run_all(tmp_path, nets, torch.randn(64, 8), activations=8)
    # Of the products whose sums are added in floating point, ONNX Runtime takes some in integers.
    integer = {layer.name.split(".")[1] for layer in session.layers if set(layer.kernel.split(", ")) - {"float"}}
    assert integer == set(cases)
    assert all(
        not layer.reason or layer.reason.endswith("ONNX Runtime chose a float kernel") for layer in session.layers
    )
    assert {case: ratio for case, ratio in decibels.items() if ratio <= 30} == {}


class Decoder(nn.Module):
    """Its cross-attention reads parts of a packed projection."""

    def __init__(self, size=32):
        super().__init__()
        self.e, self.q = nn.Embedding(20, size), nn.Parameter(torch.randn(2, size))
        self.t, self.o = nn.TransformerDecoderLayer(size, 4, 64, batch_first=True), nn.Linear(size, 4)

    def forward(self, x):
        return self.o(self.t(self.q.expand(x.shape[0], -1, -1), self.e(x)).mean(1))


def pruned():
    """Every layer masked by PyTorch's own pruning."""
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    for layer in (net[0], net[2]):
        prune.l1_unstructured(layer, "weight", 0.9)
    return net


def test_packed_projections_are_quantized_whole_and_what_is_left_has_its_bytes(tmp_path):
    torch.manual_seed(0)
    x = torch.randint(0, 20, (16, 6))
    result = attar.quantize(Decoder(), x, bits=4)
    report = result.save(tmp_path / "m.attar")
    why = "not recognised as a weight; name it in overrides to quantize it: 256 B"
    assert report["left_in_floating_point"] == {"q": why}
    assert report["warnings"] == []
    assert result.compressed.tensors["t.multihead_attn.in_proj_weight"].scale.size == 96


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_of_masks_stay_zeros(tmp_path, bits):
    torch.manual_seed(0)
    net, x = pruned(), torch.randn(64, 20)
    attar.quantize(net, x, bits=bits, activations=8).save(tmp_path / "m.attar")
    artifact = attar.Session(tmp_path / "m.attar").artifact
    for layer in (0, 2):
        stored = artifact.tensor(f"{layer}.weight").dense()
        assert not stored[net[layer].weight_mask.numpy() == 0].any()
        assert (stored != 0).mean() > 0.05
    assert set(artifact.names) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def loaders(x, y):
    """The splits of a recipe."""
    parts = {"train": slice(0, 64), "validation": slice(64, 80), "test": slice(80, 96)}
    return {name: DataLoader(TensorDataset(x[part], y[part]), 16) for name, part in parts.items()}


@pytest.mark.parametrize(
    ("make", "constraints", "left"),
    [
        (Decoder, [{"name": "lsq", "bits": 4}], ["q"]),
        (pruned, [{"name": "lsq", "bits": 4}], []),
        (lambda: Through(*READ["select"]), [{"name": "prune", "sparsity": 0.5}, {"name": "lsq", "bits": 4}], []),
    ],
    ids=["packed projection", "masks", "experts"],
)
def test_recipes_train_these_weights_and_list_what_they_left(tmp_path, make, constraints, left):
    torch.manual_seed(0)
    net = make()
    x = torch.randint(0, 20, (96, 6)) if make is Decoder else torch.randn(96, 20 if make is pruned else 8)
    stages = [{"stage": "finetune", "epochs": 1, "batch": 16, "constraints": constraints}]
    recipe = attar.Recipe(data=loaders(x, torch.randint(0, 4, (96,))), models={"a": {"source": net, "stages": stages}})
    done = attar.run(recipe, tmp_path / "run")
    (model,) = done.report["models"]
    assert list(model["left_in_floating_point"]) == left
    artifact = attar.Session(next((tmp_path / "run").rglob("*.attar"))).artifact
    stored = {name: artifact.tensor(name) for name in artifact.names}
    assert {type(tensor) for tensor in stored.values() if len(tensor.shape) > 1} <= {Quantized, type(stored.get("q"))}
    if make is pruned:
        mask = net[0].weight_mask.numpy() == 0
        assert not stored["0.weight"].dense()[mask].any()


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.place, self.head = nn.Parameter(torch.randn(6, 8)), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(x + self.place)


@pytest.mark.parametrize(
    ("options", "warned"),
    [({}, True), ({"overrides": {"place": 8}}, False), ({"keep": ("place",)}, False)],
    ids=["unasked", "quantized", "kept"],
)
def test_a_warning_stands_first_where_much_stays_in_floating_point_unasked(tmp_path, options, warned):
    result = attar.quantize(Positions(), torch.randn(16, 6, 8), bits=8, **options)
    if not warned:
        assert result.save(tmp_path / "m.attar")["warnings"] == []
        return
    with pytest.warns(UserWarning, match=r"57% of the parameters stay in floating point.*place \(192 B\)"):
        report = result.save(tmp_path / "m.attar")
    assert "overrides={'place': 8}" in report["warnings"][0]


class Masked(nn.Module):
    """Few parameters beside a large mask, held as it is or computed from a table."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.head = kind, nn.Linear(8, 8)
        mask = torch.full((32, 32), float("-inf")).triu(1)
        self.register_buffer("mask", mask if kind == "buffer" else torch.ones(32, 32).tril())

    def forward(self, x):
        mask = (1 - self.mask) * -1e9 if self.kind == "computed" else self.mask
        return torch.softmax(x @ x.transpose(1, 2) + mask, -1) @ self.head(x)


@pytest.mark.parametrize("kind", ["buffer", "computed"])
def test_buffers_are_listed_and_are_no_parameters(tmp_path, kind):
    report = attar.quantize(Masked(kind), torch.randn(16, 32, 8), bits=8).save(tmp_path / "m.attar")
    assert report["warnings"] == []
    ((name, why),) = report["left_in_floating_point"].items()
    assert name.startswith("mask")
    assert why.startswith("a buffer")
    assert why.endswith("4.1 KB")
    assert ("overrides" in why) == (kind == "computed")
