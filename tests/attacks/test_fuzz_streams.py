"""20,000 cases of the fuzzer of ``attar.h``; ``python -m tests.attacks.fuzz_streams --cases 1000000`` for more."""

import shutil
import subprocess

import pytest
from tests.attacks.fuzz_streams import SANITIZERS, build, make, run


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("streams")
    try:
        return build(folder, *SANITIZERS)
    except subprocess.CalledProcessError as error:
        if b"sanitize" not in error.stderr and b"asan" not in error.stderr:
            raise  # the header does not compile without a warning
    return build(folder, "-O2")


def test_c_and_python_agree_on_mutated_streams(program):
    outcomes, faults = run(program, seed=2026, start=0, cases=20_000)
    assert not faults
    assert outcomes["refused"] > 8000
    assert outcomes["decoded"] > 4000
    assert outcomes["no room"] > 100


def test_a_crash_is_noticed_and_named(tmp_path):
    crashing = tmp_path / "streams"
    crashing.write_text("#!/bin/sh\necho out of bounds >&2\nexit 1\n")
    crashing.chmod(0o755)
    assert run(crashing, seed=3, start=7, cases=5)[1] == ["--seed 3 --case 7: out of bounds\n"]


def test_a_difference_is_noticed(tmp_path, program):
    lying = tmp_path / "streams"
    lying.write_text(f"#!/bin/sh\n{program} | tr '\\000' '\\001'\n")
    lying.chmod(0o755)
    outcomes, faults = run(lying, seed=3, start=0, cases=50)
    assert faults
    assert not outcomes["decoded"]


def test_a_case_is_the_same_each_time():
    assert make(7, 3) == make(7, 3)
    assert make(7, 3) != make(7, 4)
