"""Fixtures of this room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.as_avx2 import environment, missing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_on_avx2(tmp_path_factory):
    """Runs Python with arguments on ONNX Runtime's kernels for AVX2 and returns what it prints.

    They are the real ones, which this processor has beside its newer ones.
    """
    if why := missing():
        pytest.skip(f"AVX-512 and VNNI cannot be hidden: {why}")
    there = environment(tmp_path_factory.mktemp("avx2"), ("onnxruntime",))
    paths = [there["PYTHONPATH"], ROOT / "src", *sys.path]

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            env=there | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, paths)))},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    return run
