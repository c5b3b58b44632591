"""The heap keeps what training frees."""

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from attar._src.train.malloc import keep_freed_memory

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        kept = [torch.ones(n << 18) for n in (1, 5, 40)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults(4)
keep_freed_memory()
faults(4)  # until the heap is large enough
print(plain, faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_pages_are_not_asked_for_anew_at_every_step():
    # As the library is by itself.
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    done = subprocess.run([sys.executable, "-c", STEPS], env=plain, check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 4, done.stdout
