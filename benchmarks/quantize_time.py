"""Processor time of ``attar.quantize(...)`` and ``.save(...)``, by step: a sentence encoder, ResNet-20 and an LSTM.

    OMP_NUM_THREADS=1 python benchmarks/quantize_time.py [CASE ...] [--json] [--profile]

Cases: ``encoder`` is a BERT of 22 million parameters (6 layers, hidden 384, 1536 in between, a vocabulary of 30,522;
random weights; the package ``transformers``) on 64 sequences of 128 tokens, with 8-bit weights and activations;
``encoder4`` the same with 4-bit weights only; ``resnet20`` on 512 images of CIFAR-10's size, 8 bits; ``lstm`` three
layers of 128 on 64 sequences of 160 steps, 8-bit weights, any length. One thread. The first, untimed run of a small
linear layer compiles what the exporter and the coders compile once a process.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import pstats
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attar
from attar._src.core.registry import load_object

_HERE = Path(__file__).resolve().parent.parent
#: Step -> the functions that it is; time in a step inside another counts for the inner one.
STEPS = {
    "capture": ("model.trace.capture",),
    "export to ONNX": ("model.trace._export",),
    "dry run": ("deploy.quantize.check_deployable",),
    "weights and grids": ("methods.quantize.ptq.stage.PostTrainingQuantize.run",),
    "pack": ("deploy.package.pack", "deploy.dry_run.pack"),
    "open": ("deploy.package.open_artifact",),
    "lower and load": ("runtime.session.lower", "runtime.session.Engine.__init__"),
    "parity": ("deploy.package._compare",),
    "inspect": ("deploy.package.inspect_artifact",),
}


class Clock:
    """Processor seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys([*STEPS, "other"], 0.0)
        self._open, self._since = ["other"], time.process_time()

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def watch(self, step: str, path: str) -> None:
        """Count the time inside a function of Attar, given by its path below ``attar._src``."""
        words = path.split(".")
        depth = next(n for n in range(len(words), 0, -1) if _module(words[:n]) is not None)
        owner: Any = _module(words[:depth])
        for word in words[depth:-1]:
            owner = getattr(owner, word)
        function: Callable[..., Any] = getattr(owner, words[-1])

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._open.append(step)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._open.pop()

        setattr(owner, words[-1], timed)

    def lap(self) -> dict[str, float]:
        """Return what was counted since the last lap."""
        self._turn()
        counted, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return counted


def _module(words: list[str]) -> Any:
    try:
        return importlib.import_module(".".join(["attar", "_src", *words]))
    except ModuleNotFoundError:
        return None


def encoder(**options: Any) -> tuple[nn.Module, Any, dict[str, Any]]:
    """A BERT as sentence encoders are."""
    transformers = importlib.import_module("transformers")
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )

    class Encoder(nn.Module):
        """The last hidden state."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            """Return ``(batch, tokens, 384)``."""
            made: torch.Tensor = self.bert(input_ids, attention_mask).last_hidden_state
            return made

    tokens = torch.randint(config.vocab_size, (64, 128))
    return Encoder().eval(), (tokens, torch.ones_like(tokens)), {"dynamic": (0, 1), **options}


def resnet20() -> tuple[nn.Module, Any, dict[str, Any]]:
    """ResNet-20 of the examples."""
    net: nn.Module = load_object(f"{_HERE / 'examples' / 'resnet.py'}:resnet20")()
    return net.eval(), torch.rand(512, 3, 32, 32), {"bits": 8, "activations": 8}


class Tagger(nn.Module):
    """Three layers of LSTM and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(64, 128, 3, batch_first=True), nn.Linear(128, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, time, 32)``."""
        made: torch.Tensor = self.head(self.rows(x)[0])
        return made


def lstm() -> tuple[nn.Module, Any, dict[str, Any]]:
    """An LSTM over 160 steps."""
    return Tagger().eval(), torch.randn(64, 160, 64), {"bits": 8, "dynamic": (0, 1)}


CASES: dict[str, Callable[[], tuple[nn.Module, Any, dict[str, Any]]]] = {
    "encoder": lambda: encoder(bits=8, activations=8),
    "encoder4": lambda: encoder(bits=4),
    "resnet20": resnet20,
    "lstm": lstm,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print the slowest functions instead, by inclusive time")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.attar"
        attar.quantize(nn.Linear(64, 8), torch.randn(4, 64), activations=8).save(path)
        clock, found = Clock(), {}
        if not given.profile:
            for step, paths in STEPS.items():
                for each in paths:
                    clock.watch(step, each)
        for name in given.cases or CASES:
            net, data, options = CASES[name]()
            clock.lap()
            with cProfile.Profile() as profile:
                profile.disable()
                if given.profile:
                    profile.enable()
                attar.quantize(net, data, **options).save(path)
                profile.disable()
            found[name] = clock.lap()
            if given.profile:
                pstats.Stats(profile).sort_stats("cumtime").print_stats(90)
    print(json.dumps(found) if given.json else _table(found))


def _table(found: dict[str, dict[str, float]]) -> str:
    rows = [["seconds", *found]]
    rows += [[step, *(f"{found[name][step]:.2f}" for name in found)] for step in [*STEPS, "other"]]
    rows.append(["all", *(f"{sum(found[name].values()):.2f}" for name in found)])
    return "\n".join(f"{row[0]:20}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)


if __name__ == "__main__":
    main()
