"""The heap keeps what training frees."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from attar.train.heap import keep_freed

assert not int(sys.argv[1]) or keep_freed()

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        kept = [torch.ones(n << 18) for n in (1, 5, 40)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(faults(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_pages_are_not_asked_for_anew_at_every_step():
    found = [
        int(subprocess.run([sys.executable, "-c", STEPS, str(kept)], check=True, capture_output=True, text=True).stdout)
        for kept in (0, 1)
    ]
    assert found[1] < found[0] / 4, found
