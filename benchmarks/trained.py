"""Networks with trained weights, real inputs, and the figure of their task.

The weights lie in ``$ATTAR_DATA/weights``, or in packages that ``studies/trained`` installs.
"""

from __future__ import annotations

import gzip
import importlib
import os
import string
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attar._src.core.registry import load_object
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.checkpoint import read_state
from attar._src.runtime.preprocess import preprocess
from runtime import VARIANTS

HERE = Path(__file__).resolve().parent.parent
CALIBRATED = 128
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """A trained network and its test.

    Attributes:
        module: the network, in evaluation mode.
        figure: the name of its figure.
        larger: whether larger is better.
        calibration, test: inputs by name, examples first.
        groups: a number for each test example; examples of a group are left out together when the error of a figure is
            estimated.
        reduced: what the figure needs of the outputs of some test examples, examples first.
        score: the figure of reduced outputs.
        variants: those of ``runtime.py`` that are measured.
        options: further options of ``attar.quantize``.
    """

    module: nn.Module
    figure: str
    larger: bool
    calibration: Arrays
    test: Arrays
    groups: NDArray[np.int64]
    reduced: Callable[[NDArray[np.float32], slice], NDArray[Any]]
    score: Callable[[NDArray[Any]], float]
    variants: tuple[str, ...] = tuple(VARIANTS)
    options: Mapping[str, Any] = field(default_factory=dict)


def resnet(name: str, calibrated: int = CALIBRATED, seed: int | None = None) -> Task:
    """Return a ResNet of ``examples/resnet.py`` and the 10,000 test images of CIFAR-10.

    It is calibrated on the first training images, or on some that the seed draws.
    """
    net: nn.Module = load_object(f"{HERE / 'examples' / 'resnet.py'}:{name}")()
    net.load_state_dict(read_state(_data() / "weights" / f"cifar10_{name}.safetensors", net))
    how = find_preprocessing("imagenet")
    assert how is not None
    train, test = (load_dataset("cifar10", split) for split in ("train", "test"))
    labels = test.y
    assert labels is not None

    def right(logits: NDArray[np.float32], part: slice) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = logits.argmax(1) == labels[part]
        return found

    return Task(
        net.eval(),
        "right, %",
        True,
        {"x": preprocess(how, train.x[:calibrated] if seed is None else train.subset(calibrated, seed).x)},
        {"x": preprocess(how, test.x)},
        np.arange(len(labels)) // 100,
        right,
        lambda hits: 100 * float(hits.mean()),
        ("static 8/8",),  # of convolutions the others have weights in 8 bits alone
    )


class CharacterGru(nn.Module):
    """Characters ``(N, T)`` -> scores of the next one ``(N, T, 100)``: two layers of GRU, 200 units each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(100, 200)
        self.rnn = nn.GRU(200, 200, 2, batch_first=True)
        self.decoder = nn.Linear(200, 100)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the scores."""
        made: Tensor = self.decoder(self.rnn(self.encoder(characters))[0])
        return made


def characters(calibrated: int = CALIBRATED) -> Task:
    """Return a GRU that writes Shakespeare, and the last tenth of tinyshakespeare in pieces of 200 characters."""
    net = CharacterGru()
    net.load_state_dict(read_state(_data() / "weights" / "char_gru_2x200.npz", net))
    text = gzip.decompress((_data() / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode()
    codes = np.array([string.printable.index(each) for each in text], np.int64)
    pieces = codes[: len(codes) // 201 * 201].reshape(-1, 201)
    test = pieces[-len(pieces) // 10 :]
    return _language(net, "characters", pieces[:calibrated], test, "bits per character")


class Llama(nn.Module):
    """Tokens ``(N, T)`` -> scores of the next one ``(N, T, vocabulary)``, with the weights of a file of llama2.c."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        header = np.fromfile(path, np.int32, 7).tolist()
        width, hidden, layers, self.heads, self.kv_heads, vocabulary, length = header
        size = width // self.heads
        numbers = torch.from_numpy(np.fromfile(path, np.float32, offset=28))
        self.embedding = nn.Embedding(vocabulary, width)
        self.norms = nn.ParameterList(torch.ones(width) for _ in range(2 * layers + 1))
        keys = size * self.kv_heads
        shapes = [(width, width), (keys, width), (keys, width), (width, width)]
        gates = [(hidden, width), (width, hidden), (hidden, width)]
        self.products = nn.ModuleList(
            nn.Linear(inputs, outputs, bias=False) for _ in range(layers) for outputs, inputs in shapes + gates
        )
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        places = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
        self.cosine, self.sine = nn.Buffer(places.cos()), nn.Buffer(places.sin())
        of = [self.products[i :: len(shapes + gates)] for i in range(len(shapes + gates))]
        order = [self.embedding.weight, *self.norms[:layers]]
        order += [each.weight for kind in of[:4] for each in kind]
        order += self.norms[layers : 2 * layers]
        order += [each.weight for kind in of[4:] for each in kind]
        with torch.no_grad():
            for parameter in [*order, self.norms[-1]]:
                parameter.copy_(numbers[: parameter.numel()].view_as(parameter))
                numbers = numbers[parameter.numel() :]

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores."""
        return self.continued(tokens, {})

    def continued(self, tokens: Tensor, before: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        """Return the scores of tokens behind others, whose keys and values ``before`` has by layer; they are added."""
        x, layers = self.embedding(tokens), len(self.norms) // 2
        for layer in range(layers):
            query, key, value, out, gate, down, up = self.products[7 * layer : 7 * layer + 7]
            read = _normed(x, self.norms[layer])
            x = x + out(self._attended(layer, query(read), key(read), value(read), before))
            read = _normed(x, self.norms[layers + layer])
            x = x + down(nn.functional.silu(gate(read)) * up(read))
        made: Tensor = self.head(_normed(x, self.norms[-1]))
        return made

    def _attended(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, before: dict[int, tuple[Tensor, Tensor]]
    ) -> Tensor:
        q, k, v = (each.unflatten(2, (heads, -1)).transpose(1, 2) for each, heads in zip(
            (query, key, value), (self.heads, self.kv_heads, self.kv_heads), strict=True
        ))  # fmt: skip
        start = before[layer][0].shape[2] if layer in before else 0
        q, k = self._turned(q, start), self._turned(k, start)
        if layer in before:
            k, v = (torch.cat(each, 2) for each in zip(before[layer], (k, v), strict=True))
        before[layer] = k, v
        more = self.heads // self.kv_heads
        k, v = k.repeat_interleave(more, 1), v.repeat_interleave(more, 1)
        made = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=not start)
        return made.transpose(1, 2).flatten(2)

    def _turned(self, x: Tensor, start: int) -> Tensor:
        """Return heads turned by their places from ``start`` on (rotary embedding), neighbours in pairs."""
        places = slice(start, start + x.shape[2])
        cosine, sine = self.cosine[places], self.sine[places]
        one, other = x[..., 0::2], x[..., 1::2]
        return torch.stack([one * cosine - other * sine, one * sine + other * cosine], -1).flatten(3)


def stories(length: int = 64, calibrated: int = 32, tested: int = 128) -> Task:
    """Return the Llama of 260,032 parameters that tells stories, and stories that it tells itself."""
    net = Llama(_data() / "weights" / "stories260K.bin").eval()
    draw, told = torch.Generator().manual_seed(0), torch.ones(calibrated + tested, 1, dtype=torch.int64)
    with torch.no_grad():
        while told.shape[1] <= length:
            likely = net(told)[:, -1].softmax(1)
            told = torch.cat([told, torch.multinomial(likely, 1, generator=draw)], 1)
    return _language(net, "tokens", told[:calibrated].numpy(), told[calibrated:].numpy(), "bits per token")


def studied(name: str, **options: Any) -> Task:
    """Return a task of ``studies/trained``."""
    folder = str(HERE / "studies" / "trained")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    study: Any = importlib.import_module(name)
    calibration, test = study.inputs()
    if not isinstance(test, dict):
        calibration, test = {"mels": calibration}, {"mels": test}
    count = len(next(iter(test.values())))
    # A speaker has a run of utterances; a sentence and its paraphrase lie half the sentences apart.
    groups = np.arange(count) // study.UTTERANCES if name == "speaker" else np.arange(count) % (count // 2) // 50
    return Task(
        study.module(),
        study.METRIC,
        "found" in study.METRIC,
        {key: each[:CALIBRATED] for key, each in calibration.items()},
        test,
        groups,
        lambda embedded, _: embedded,
        study.score,
        options=options,
    )


def _language(net: nn.Module, argument: str, calibration: NDArray[Any], test: NDArray[Any], figure: str) -> Task:
    """Return the task to foretell each element of pieces ``(N, T + 1)`` but the first."""

    def bits(scores: NDArray[np.float32], part: slice) -> NDArray[np.float64]:
        wide = scores.astype(np.float64)
        wide -= wide.max(2, keepdims=True)
        likely = wide - np.log(np.exp(wide).sum(2, keepdims=True))
        found: NDArray[np.float64] = -np.take_along_axis(likely, test[part, 1:, None], 2).mean((1, 2)) / np.log(2)
        return found

    return Task(
        net.eval(),
        figure,
        False,
        {argument: calibration[:, :-1]},
        {argument: test[:, :-1]},
        np.arange(len(test)),
        bits,
        lambda each: float(each.mean()),
    )


def _normed(x: Tensor, factor: Tensor) -> Tensor:
    return factor * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def _data() -> Path:
    return Path(os.environ["ATTAR_DATA"])


#: Name -> what loads it.
TASKS: dict[str, Callable[[], Task]] = {
    "ResNet-20": partial(resnet, "resnet20"),
    "ResNet-56": partial(resnet, "resnet56"),
    "character GRU": characters,
    "stories Llama": stories,
    "sentence encoder": partial(studied, "sentences"),
    "speaker LSTM": partial(studied, "speaker"),
    "speaker LSTM, advice followed": partial(studied, "speaker", keep=("lstm.weight_ih_l0",)),
}
