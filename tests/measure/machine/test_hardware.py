"""What a file needs of a processor, from the layers that ran and the flags that Linux shows."""

import pytest

from attar._src.measure.machine.hardware import NOTHING, dot_product_instructions, hardware_needed
from attar._src.runtime.session import Layer


def layer(plan):
    return Layer("a", ("n",), "kernel", plan in ("integers", "dynamic integers"), "", plan)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni avx_vnni\nflags: none", "AVX-512 VNNI"),
        ("flags : fpu avx2", ""),
        ("Features : fp asimd asimddp", "dot products"),
        ("model name : x", None),
    ],
)
def test_instructions_are_those_of_the_flags(tmp_path, flags, words):
    (tmp_path / "cpuinfo").write_text(flags)
    assert dot_product_instructions(tmp_path / "cpuinfo") == words


def test_a_system_that_does_not_tell_is_unknown(tmp_path):
    assert dot_product_instructions(tmp_path / "none") is None


def test_hardware_is_that_of_the_layers_that_ran():
    assert hardware_needed([layer("float32")], "AVX-512 VNNI") == NOTHING
    mixed = [layer("integers"), layer("dynamic integers"), layer("float32")]
    assert hardware_needed(mixed, "AVX-512 VNNI") == "integer kernels for 2 of 3 layers; here AVX-512 VNNI"
    assert hardware_needed(mixed, "").endswith("here without VNNI")
    assert hardware_needed(mixed, None) == "integer kernels for 2 of 3 layers"
    assert hardware_needed([layer("packed weights")], None) == "kernels for packed weights for 1 of 1 layers"
