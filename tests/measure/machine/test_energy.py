"""Energy counters, in a folder as Linux lays it out: the fault guarded is a figure that nobody measured."""

import itertools

import pytest

from attar._src.measure.machine.energy import EnergyCounters, energy_in_turns


def zone(root, number, name, microjoules, most=1_000_000):
    made = root / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (made / file).write_text(f"{value}\n")
    return made


def test_packages_are_counted_and_their_parts_are_not_counted_twice(tmp_path):
    zone(tmp_path, "0", "package-0", 100)
    zone(tmp_path, "0:0", "core", 50)
    zone(tmp_path, "1", "package-1", 200)
    zone(tmp_path, "2", "psys", 900)
    counters = EnergyCounters(tmp_path)
    assert counters.reason == ""
    assert sorted(counters.read().values()) == [100, 200]


def test_a_counter_that_begins_again_goes_on(tmp_path):
    energy = zone(tmp_path, "0", "package-0", 999_900) / "energy_uj"
    counters = EnergyCounters(tmp_path)
    before = counters.read()
    energy.write_text("400\n")
    assert counters.joules_between(before, counters.read()) == pytest.approx(500e-6)


def test_energy_of_one_run_is_that_of_a_turn_over_its_runs(tmp_path):
    energy, count = zone(tmp_path, "0", "package-0", 0, 10**15) / "energy_uj", itertools.count(1)

    def takes(microjoules):
        energy.write_text(f"{int(energy.read_text()) + microjoules}\n")
        next(count)

    runs = [lambda: takes(300), lambda: takes(700)]
    assert energy_in_turns(runs, EnergyCounters(tmp_path), turns=3, seconds=0.01) == pytest.approx([300e-6, 700e-6])


def test_a_machine_without_counters_says_so(tmp_path):
    assert "no energy counters" in EnergyCounters(tmp_path / "none").reason
    damaged = zone(tmp_path / "some", "0", "package-0", "secret")
    assert str(damaged / "energy_uj") in EnergyCounters(tmp_path / "some").reason


def test_counters_that_root_alone_may_read_are_not_readable(tmp_path):
    """Guards against a crash on most machines."""
    energy = zone(tmp_path, "0", "package-0", 5) / "energy_uj"
    energy.unlink()
    energy.mkdir()  # root reads every file, so that a folder stands for one that may not be read
    assert str(energy) in EnergyCounters(tmp_path).reason
