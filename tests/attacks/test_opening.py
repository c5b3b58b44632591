"""What opening a path costs: nothing for what is no file of ours, and the dense weights once for what is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.reference import file_of, node
from tests.samples import conv_net

from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import Quantized

ROOT = Path(__file__).parents[2]
SIDE, LAYERS = 1600, 5  # 12.8 million weights, 51 MB as float32
OPEN = """
import json, sys, tracemalloc
from pathlib import Path
from attar import Session, open_artifact
from attar._src.measure.cold import peak_memory
from attar._src.runtime.engine import saturates

path = Path(sys.argv[1])
saturates()
open_artifact(path).tensor("w0")
Path("/proc/self/clear_refs").write_text("5")
if sys.argv[2] == "traced":
    tracemalloc.start()
before = peak_memory()
session = Session(path, threads=1)
print(json.dumps([tracemalloc.get_traced_memory()[1], peak_memory() - before]))
"""


def test_the_magic_is_read_before_the_file_is(tmp_path):
    for name in ("sparse.bin", "text.txt"):
        with open(tmp_path / name, "wb") as file:
            file.write(b"what is this?" if name == "text.txt" else b"")
            file.truncate(10 << 30)
        with pytest.raises(ArtifactError, match=f"{name}: header: this is not a .attar file"):
            open_artifact(tmp_path / name, limits=Limits(file_bytes=2**60))


@pytest.mark.skipif(sys.platform != "linux", reason="devices and FIFOs of Linux")
def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in ("/dev/zero", "/dev/full", tmp_path / "fifo", tmp_path / "link"):
        with pytest.raises(ArtifactError, match=f"^{path} is not a regular file$"):
            open_artifact(path)
    with pytest.raises(ArtifactError, match=r"cannot be read: Is a directory"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 79, 80])
def test_beginnings_of_a_file(tmp_path, length):
    (tmp_path / "m.attar").write_bytes(pack(conv_net())[:length])
    with pytest.raises(ArtifactError, match=r"m\.attar: (header|footer): "):
        open_artifact(tmp_path / "m.attar")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux reports it")
def test_opening_takes_the_dense_weights_once(tmp_path):
    rng = np.random.default_rng(0)
    scheme = Scheme(bits=8, granularity=PerChannel(axis=1))
    tensors, nodes, last = {}, [], "x"
    for layer in range(LAYERS):
        codes = rng.integers(-127, 128, (SIDE, SIDE)).astype(np.int8)
        tensors[f"w{layer}"] = Quantized(codes, np.full(SIDE, 1e-3, np.float32), scheme)
        nodes.append(node("MatMul", f"{last} w{layer}", last := f"h{layer}" if layer < LAYERS - 1 else "y"))
    (tmp_path / "m.attar").write_bytes(file_of(nodes, tensors, x=("batch", SIDE), y=("batch", SIDE)).data)
    dense = 4 * LAYERS * SIDE**2

    def run(how):
        command = [sys.executable, "-c", OPEN, str(tmp_path / "m.attar"), how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    # The file, its codes and one tensor on the way are a quarter each, or less.
    assert run("traced")[0] < 1.75 * dense
    # ONNX Runtime packs the weights of products for its kernels: a second copy that Attar does not make.
    assert run("plain")[1] < 4 * dense
