"""Recurrent networks and transformers after training: what files lose of what the floating networks foretell or find.

    ATTAR_DATA=... python studies/post-training/sequences.py [ROW ...] [--seed 0]     adds rows to sequences.json
    python studies/post-training/sequences.py --table                                 prints the table of README.md

No row sees labels. All weights are rounded, tables of embeddings and heads too. A figure is that of the decoded file on
ONNX Runtime, one thread, on text that calibration does not see. Rows that are in sequences.json already are left alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import string
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import AutoTokenizer

import attar
from attar._src.cli import show
from attar._src.deploy.checkpoint import read_state

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "benchmarks"), str(HERE.parent / "trained")]

import sentences  # noqa: E402

import trained  # noqa: E402

RESULTS = HERE / "sequences.json"
Batch = dict[str, NDArray[Any]]
Run = Callable[[Batch], NDArray[np.float32]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """A trained network and its text.

    Attributes:
        module: in evaluation mode.
        calibration: batches without labels.
        measured: what the figure needs of a model's outputs for the test.
        figure: this of a file and of the floating network -> the figure.
    """

    module: nn.Module
    calibration: list[Batch]
    measured: Callable[[Run], Floats]
    figure: Callable[[Floats, Floats], float]


def characters(seed: int, count: int) -> Network:
    """Return the character GRU, calibrated on pieces of 64 characters of Shakespeare and judged on the last tenth."""
    net = trained.CharacterGru()
    net.load_state_dict(read_state(_data() / "weights" / "char_gru_2x200.npz", net))
    text = gzip.decompress((_data() / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode()
    codes = np.array([string.printable.index(each) for each in text], np.int64)
    learn, test = _pieces(codes[: len(codes) * 8 // 10], 64), _pieces(codes[-len(codes) // 10 :], 201)
    drawn = learn[np.random.default_rng(seed).permutation(len(learn))[:count]]
    return _language(net, "characters", drawn, test, 1 / np.log(2))


def stories(seed: int, count: int) -> Network:
    """Return the Llama of 260,032 parameters, calibrated and judged on stories of 128 tokens that it tells itself."""
    net = trained.Llama(_data() / "weights" / "stories260K.bin")
    return _language(net, "tokens", told(net, count, seed)[:, :-1], told(net, 128, 1000), 1.0)


def told(net: trained.Llama, count: int, seed: int, length: int = 128) -> NDArray[np.int64]:
    """Return stories ``(count, length + 1)``, drawn from a Llama token by token."""
    draw, tokens = torch.Generator().manual_seed(seed), torch.ones(count, 1, dtype=torch.int64)
    before: dict[int, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for _ in range(length):
            scores = net.continued(tokens[:, -1:], before)[:, -1]
            tokens = torch.cat([tokens, torch.multinomial(scores.softmax(1), 1, generator=draw)], 1)
    return tokens.numpy()


def encoder(seed: int, count: int) -> Network:
    """Return all-MiniLM-L6-v2, calibrated on captions of Multi30k and judged on those of its test of 2016.

    A batch has sentences of about one length.
    """
    calibration = _tokens(sentences.folder(), "train.en.gz")
    test = _tokens(sentences.folder(), "test_2016_flickr.en.gz")
    drawn = np.random.default_rng(seed).permutation(len(calibration))[:count]
    parts = _sorted_batches([calibration[k] for k in drawn])

    def similarities(run: Run) -> Floats:
        embedded = np.concatenate([run(each) for each in _sorted_batches(test)]).astype(np.float64)
        return (embedded @ embedded.T)[np.triu_indices(len(embedded), 1)]

    return Network(sentences.module(), parts, similarities, lambda ours, floating: spearmanr(ours, floating).statistic)


def _tokens(folder: Path, split: str) -> list[list[int]]:
    with gzip.open(_data() / "multi30k" / split, "rt", encoding="utf-8") as file:
        found: list[list[int]] = AutoTokenizer.from_pretrained(folder)([line.strip() for line in file])["input_ids"]
    return found


def _sorted_batches(tokens: list[list[int]], size: int = 32) -> list[Batch]:
    ordered, made = sorted(tokens, key=len), []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        ids, mask = np.zeros((2, len(part), len(part[-1])), np.int64)
        for row, each in enumerate(part):
            ids[row, : len(each)], mask[row, : len(each)] = each, 1
        made.append({"input_ids": ids, "attention_mask": mask})
    return made


def _language(net: nn.Module, argument: str, learn: NDArray[np.int64], test: NDArray[np.int64], unit: float) -> Network:
    """Return the network that foretells each element of pieces ``(N, T + 1)`` but the first."""

    def costs(run: Run) -> Floats:
        found = []
        for part in np.array_split(test, -(-len(test) // 64)):
            scores = torch.from_numpy(run({argument: part[:, :-1]})).double()
            likely = scores.log_softmax(2).gather(2, torch.from_numpy(part[:, 1:, None]))
            found.append(-unit * likely.numpy().mean((1, 2)))
        return np.concatenate(found)

    calibration = [{argument: part} for part in np.array_split(learn, -(-len(learn) // 64))]
    return Network(net.eval(), calibration, costs, lambda ours, floating: float((ours - floating).mean()))


def _pieces(codes: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return codes[: len(codes) // length * length].reshape(-1, length)


def _data() -> Path:
    return Path(os.environ["ATTAR_DATA"])


NETWORKS: dict[str, tuple[Callable[[int, int], Network], str]] = {
    "GRU": (characters, "bits a character more"),
    "Llama": (stories, "nats a token more"),
    "encoder": (encoder, "rank correlation of similarities"),
}
#: Codes, scales, biases and norms of the whole network are trained on its floating outputs.
LEARNED: dict[str, Any] = {"steps": 0, "network_steps": 200, "lr": 0.004, "batch": 32}
#: Layers are rounded again for what they read by then.
AGAIN: dict[str, Any] = {"steps": 0, "network_steps": 0, "reround": True}
LANGUAGE: dict[str, Any] = {"scales": "gptq", "symmetric": False, "task": "classification"}
#: What turns symbols into vectors, and vectors into scores: one tensor in the Llama.
ENDS: dict[str, dict[str, int]] = {"GRU": {"encoder*": 8, "decoder*": 8}, "Llama": {"head*": 8}}
#: Row -> examples of the calibration, options of ``attar.quantize``.
ROWS: dict[str, tuple[int, dict[str, Any]]] = {
    **{
        f"{net} w{bits} {words}": (count, {"bits": bits, "dynamic": axes, **LANGUAGE, **more})
        for net, count, axes in (("GRU", 2048, (0, 1)), ("Llama", 512, (0,)))
        for bits in (4, 3)
        for words, more in (
            ("gptq", {}),
            ("reconstruct", {"reconstruct": LEARNED}),
            ("reconstruct, ends 8", {"reconstruct": LEARNED, "overrides": ENDS[net]}),
        )
    },
    "encoder w4 gptq": (512, {"bits": 4, "scales": "gptq", "symmetric": False}),
    **{
        f"encoder w{bits} reround": (512, {"bits": bits, "scales": "gptq", "symmetric": False, "reconstruct": AGAIN})
        for bits in (4, 3)
    },
    "encoder w8a8 dynamic": (128, {"bits": 8, "activations": "dynamic"}),
    "encoder 3 bits a weight": (512, {"size": 3, "scales": "gptq"}),
}


def measure(row: str, seed: int) -> dict[str, Any]:
    """Return the figure, bytes and processor time of one row."""
    count, options = ROWS[row]
    network = NETWORKS[row.split()[0]][0](seed, count)
    begun = time.process_time()
    data = [{name: torch.from_numpy(each) for name, each in batch.items()} for batch in network.calibration]
    result = attar.quantize(network.module, data, examples=count, tolerance=None, **options)
    with tempfile.TemporaryDirectory() as folder:
        report = result.save(Path(folder) / "m.attar")
        seconds = time.process_time() - begun
        session = attar.Session(Path(folder) / "m.attar", threads=1)
        ours = network.measured(lambda batch: session.run(batch)[session.main_output])
        floating = network.measured(lambda batch: _floating(network.module, batch))
    weights = sum(each.numel() for each in network.module.parameters())
    return {
        "row": row,
        "seed": seed,
        "figure": round(network.figure(ours, floating), 4),
        "file_bytes": report["file_bytes"],
        "file_bits_a_weight": round(8 * report["file_bytes"] / weights, 2),
        "processor_seconds": round(seconds),
    }


def _floating(module: nn.Module, batch: Batch) -> NDArray[np.float32]:
    with torch.no_grad():
        made: NDArray[np.float32] = module(**{name: torch.from_numpy(each) for name, each in batch.items()}).numpy()
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of README.md: means over seeds."""
    lines = [
        "| row | seeds | figure | | file, bytes | bits a weight | processor time, s |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for row in (each for each in ROWS if any(found["row"] == each for found in rows)):
        group = [each for each in rows if each["row"] == row]
        figure, size, bits, seconds = (
            float(np.mean([each[key] for each in group]))
            for key in ("figure", "file_bytes", "file_bits_a_weight", "processor_seconds")
        )
        unit = NETWORKS[row.split()[0]][1]
        lines.append(f"| {row} | {len(group)} | {figure:.4f} | {unit} | {size:,.0f} | {bits:.2f} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of: {', '.join(ROWS)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="only print the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", attar.AttarWarning)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["row"], each["seed"]) for each in rows}
    for row in () if given.table else given.rows or ROWS:
        if (row, given.seed) not in known:
            rows.append(measure(row, given.seed))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            show.say("measured", json.dumps(rows[-1]))
    Console(soft_wrap=True).print(table(rows), markup=False)


if __name__ == "__main__":
    main()
