"""Code parameters with the reference program of ISO/IEC 15938-17 (NNC), in an environment of its own.

    python -m pip install nncodec==2.1.3            (wants numpy 1)
    python benchmarks/peer_nnc.py WEIGHTS.npz FOLDER --qp -32 -24 -20

Writes ``FOLDER/QP.npz``, the decoded parameters, and prints the bytes of each stream as JSON.
Settings are the program's own: trellis quantization with dependent states, contexts, norms and biases at a finer step.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from nncodec import nn


def main() -> None:
    """Code and decode."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qp", type=int, nargs="+", required=True)
    given = parser.parse_args()
    weights, folder = dict(np.load(given.weights)), given.folder.resolve()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # the program writes its stream into the working folder
        for qp in given.qp:
            stream = nn.encode(weights, {"qp": qp})
            np.savez(folder / f"{qp}.npz", **nn.decode(stream))
            found[qp] = len(stream)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
