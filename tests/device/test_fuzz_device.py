"""500 cases of the fuzzer of whole files in C; ``python -m tests.device.fuzz_device --cases 100000`` for more."""

from tests.device.fuzz_device import make, run


def test_c_and_python_agree_on_mutated_files(program):
    outcomes, faults = run(program, seed=2026, start=0, cases=500)
    assert not faults
    assert outcomes["OK"] > 50
    assert outcomes["tensor read"] > 300
    assert outcomes["tensor refused"] > 20
    for status in ("BAD_MANIFEST", "BAD_LAYOUT", "BAD_DEFLATE", "BAD_JSON"):
        assert outcomes[status] > 10


def test_a_crash_is_noticed_and_named(tmp_path):
    crashing = tmp_path / "device"
    crashing.write_text("#!/bin/sh\necho out of bounds >&2\nexit 1\n")
    crashing.chmod(0o755)
    assert run(crashing, seed=3, start=7, cases=5)[1] == ["--seed 3 --case 7: out of bounds\n"]


def test_a_difference_is_noticed(tmp_path, program):
    lying = tmp_path / "device"
    lying.write_text(f"#!/bin/sh\n{program} | tr '\\176' '\\175'\n")
    lying.chmod(0o755)
    assert run(lying, seed=3, start=0, cases=50)[1]


def test_a_case_is_the_same_each_time():
    assert make(7, 3) == make(7, 3)
    assert make(7, 3) != make(7, 4)
