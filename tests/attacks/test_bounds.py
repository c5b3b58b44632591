"""Hostile files of all kinds in one process whose memory and processor time are bounded by the system."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOUNDED = """
import resource, sys
import numpy as np
from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError
from onnx import helper, numpy_helper
from tests.attacks.reseal import deflate, take_apart
from tests.attacks.test_graph_attacks import BOMBS, MODEL_EDITS, add
from tests.samples import conv_net

whole = pack(conv_net())
open_artifact(whole).verify()
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (768 << 20), now + (768 << 20)))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

files = []
for edit, _ in MODEL_EDITS.values():
    files.append(take_apart(whole).graph(edit).seal())
for nodes, constants in BOMBS.values():
    files.append(add(take_apart(whole), *nodes, **constants).seal())
for shape in ([2**48] * 16, [2**28, 1, 1, 1], [2**40], [0, 2**60], [2**27, 2]):
    parts = take_apart(whole)
    parts.manifest["tensors"][0]["shape"] = shape
    files.append(parts.seal())
for inflated in (2**24, 2**40, 2**63):
    parts = take_apart(whole)
    parts.footer = {"inflated": inflated}
    files.append(parts.seal())
many = b"[]," * 2**21
for text in (b"[" * 2**24, b'{"a":' + b"[]" * 100, b'{"tensors":[' + many + b"[]]}", b"[" + b"1," * 2**22 + b"1]"):
    parts = take_apart(whole)
    parts.manifest = text
    files.append(parts.seal())
for text in (bytes(2**26), b"\\x3a\\x00" * 2**24, b"\\xff" * 2**20):
    files.append(take_apart(whole).graph_bytes(text).seal())
refused = 0
for data in files:
    try:
        open_artifact(data).verify()
    except ArtifactError:
        refused += 1
print(refused, len(files))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are the system's own")
def test_hostile_files_in_bounded_memory_and_time():
    done = subprocess.run([sys.executable, "-c", BOUNDED], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, files = map(int, done.stdout.split())
    assert files > 130
    assert refused > files - 25  # a few bombs are small enough for the limits there are by default
