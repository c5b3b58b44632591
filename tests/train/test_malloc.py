"""The heap keeps what training frees."""

import os
import platform
import subprocess
import sys
from functools import partial

import pytest

STEPS = """
import resource, sys
import torch
from attar._src.train.malloc import keep_freed_memory

if int(sys.argv[1]):
    keep_freed_memory()

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        kept = [torch.ones(n << 18) for n in (1, 5, 40)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(20)  # until the heap is large enough
print(faults(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_pages_are_not_asked_for_anew_at_every_step():
    # As the library is by itself.
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    ran = partial(subprocess.run, env=plain, check=True, capture_output=True, text=True)
    found = [int(ran([sys.executable, "-c", STEPS, kept]).stdout) for kept in "01"]
    assert found[1] < found[0] / 4, found
