"""The search of the character GRU for goals.py: as many bits a character as are said, no training.

    ATTAR_DATA=... python studies/search/gru.py FOLDER BITS [--resume] [--minutes 20]

Pieces of 64 characters of the first eight tenths of tinyshakespeare calibrate; pieces of 200 of the ninth tenth judge.
The drop of a metric of which less is better is in per cent, so the bound is BITS over those of the floating network.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import os
import string
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attar
from attar._src.cli import show
from attar._src.deploy.checkpoint import read_state

ROOT = Path(__file__).resolve().parents[2]
CALIBRATED, JUDGED = 512, 256


def bits_per_character(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean of -log2 of the probability of each character ``(N, T)``, of scores ``(N, T, 100)``."""
    wide = outputs.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    likely = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return float(-np.take_along_axis(likely, targets[..., None], -1).mean() / np.log(2))


bits_per_character.larger_is_better = False  # type: ignore[attr-defined]


def pieces(first: float, last: float, length: int) -> NDArray[np.int64]:
    """Return pieces of a share of the text, each with one character more to foretell."""
    packed = (Path(os.environ["ATTAR_DATA"]) / "tinyshakespeare" / "input.txt.gz").read_bytes()
    codes = np.array([string.printable.index(each) for each in gzip.decompress(packed).decode()], np.int64)
    part = codes[round(first * len(codes)) : round(last * len(codes))]
    return part[: len(part) // (length + 1) * (length + 1)].reshape(-1, length + 1)


def network() -> torch.nn.Module:
    """Return the trained GRU: two layers of 200 units."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    net: torch.nn.Module = importlib.import_module("trained").CharacterGru()
    net.load_state_dict(read_state(Path(os.environ["ATTAR_DATA"]) / "weights" / "char_gru_2x200.npz", net))
    return net.eval()


def tested(file: Path) -> float:
    """Return the bits a character of a file on the last tenth of the text."""
    test, session = pieces(0.9, 1.0, 200), attar.Session(file, threads=1)
    parts = [session.run({"characters": each})[session.main_output] for each in np.array_split(test[:, :-1], 10)]
    return bits_per_character(np.concatenate(parts), test[:, 1:])


def main() -> None:
    """Search."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bits", type=float, help="that a file may lose")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--minutes", type=float, default=20.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    drawn = np.random.default_rng(0)
    learn, judge = pieces(0, 0.8, 64), pieces(0.8, 0.9, 200)
    seen = drawn.permutation(learn)[:CALIBRATED, :-1]
    held = drawn.permutation(judge)[:JUDGED]
    net = network()
    with torch.no_grad():
        floating = bits_per_character(net(torch.from_numpy(held[:, :-1])).numpy(), held[:, 1:])
    attar.compress(
        net,
        {"characters": seen},
        given.folder,
        max_drop=100 * given.bits / floating,
        minutes=given.minutes,
        resume=given.resume,
        validation=({"characters": held[:, :-1]}, held[:, 1:]),
        metric=f"{Path(__file__).resolve()}:bits_per_character",
        dynamic=[0, 1],
        on_step=lambda line: show.say("", line),
    )


if __name__ == "__main__":
    main()
