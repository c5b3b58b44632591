"""A processor whose newest vectors are AVX2, made of a newer one by hiding the rest (benchmarks/as_avx2.py)."""

import os
import platform

import pytest
from benchmarks import as_avx2

SCRIPT = """
from attar._src.runtime.engine import saturates
from benchmarks.as_avx2 import hidden
print(hidden(), saturates())
"""


def test_onnx_runtime_takes_the_kernels_that_saturate(run_on_avx2):
    assert run_on_avx2("-c", SCRIPT).split() == ["True", "True"]


def test_a_process_that_sees_avx2_is_left_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("LD_PRELOAD", "/elsewhere/as_avx2.so")
    assert as_avx2.environment(tmp_path) == os.environ
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(as_avx2.missing() != "", reason="needs what is taken away")
def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="hidden: gcc and objdump not found: apt-get install gcc binutils"):
        as_avx2.environment(tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(RuntimeError, match="x86-64 Linux is needed, not aarch64"):
        as_avx2.environment(tmp_path)


@pytest.mark.skipif(as_avx2.missing() != "", reason=as_avx2.missing())
def test_a_package_that_asks_nothing_is_refused(tmp_path, monkeypatch):
    """Its kernels would run as they are, and pass for others."""
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setitem(as_avx2.LIBRARIES, "onnxruntime", ("capi/libonnxruntime_providers_shared.so",))
    with pytest.raises(RuntimeError, match="no cpuid was found in"):
        as_avx2.environment(tmp_path, ("onnxruntime",))
