"""The fuzzer's first 2,000 cases; ``python -m tests.attacks.fuzz --cases 100000`` for more."""

from tests.attacks.fuzz import make, run


def test_no_mutated_file_does_harm():
    outcomes, faults = run(cases=2000, seed=2024)
    assert not faults
    assert outcomes["refused"] > 1000
    assert outcomes["ran"] > 50


def test_a_case_is_the_same_each_time():
    assert make(7, 3) == make(7, 3)
    assert make(7, 3) != make(7, 4)
