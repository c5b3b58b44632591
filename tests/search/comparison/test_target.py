"""The search for a strength: faults guarded are bytes that are called equal and are not, and searches without end."""

import math

import pytest

from attar._src.search.comparison.comparison_try import ComparisonTry
from attar._src.search.comparison.target import EqualTarget, next_strength
from attar._src.search.comparison.tuned import TUNED_OPTIONS

FLOATING = 1_000_000


def made(strength, size, drop, variant=0):
    return ComparisonTry(
        method="m", variant=variant, strength=strength, options={}, file="f", file_bytes=size, drop=drop, unit="points"
    )


def failed(strength):
    return ComparisonTry(method="m", variant=0, strength=strength, options={}, failed="too strong")


def search(option, target, outcome, tries=()):
    """Return the tries of a search; ``outcome``: value of the option -> bytes and drop, None where it fails."""
    tries = list(tries)
    for _ in range(40):
        strength = next_strength(option, target, tries, FLOATING)
        if strength is None:
            return tries
        value = option.value(strength, FLOATING)
        found = outcome(value)
        tries.append(failed(strength) if found is None else made(strength, *found))
    raise AssertionError("the search does not end")


def pruned(share):
    """A file with a mask of an eighth of a byte for each weight, which loses more and more."""
    return round(FLOATING * (1 - share) + FLOATING / 32 + 3000), 100 * share**8


@pytest.mark.parametrize("most", [700_000, 250_000, 60_000, 40_000])
def test_a_share_is_found_that_gives_equal_bytes(most):
    target = EqualTarget("bytes", most)
    tries = search(TUNED_OPTIONS["sparsity"], target, pruned)
    best = target.best(tries)
    assert 0.98 * most <= best.file_bytes <= most
    assert len(tries) <= 10
    assert target.why(best, tries) == ""


def test_bytes_that_no_share_gives_end_with_the_nearest():
    target = EqualTarget("bytes", 20_000)
    tries = search(TUNED_OPTIONS["sparsity"], target, pruned)
    assert target.best(tries) is None
    assert target.why(None, tries) == f"{min(each.file_bytes for each in tries):,} bytes at least"
    assert tries[-1].strength == pytest.approx(TUNED_OPTIONS["sparsity"].strongest)


def test_bytes_of_the_integer_program_are_asked_for_once():
    target = EqualTarget("bytes", 90_000)
    tries = search(TUNED_OPTIONS["max_bytes"], target, lambda size: (size - 200, 0.3))
    assert [each.file_bytes for each in tries] == [89_800]
    few = search(TUNED_OPTIONS["max_bytes"], EqualTarget("bytes", 900_000), lambda size: (270_000, 0.0))
    assert EqualTarget("bytes", 900_000).why(few[0], few) == "has 270,000 bytes at its largest"


@pytest.mark.parametrize("name", ["sparsity", "channels", "macs", "layers"])
def test_a_loss_is_sought_from_what_modules_stand(name):
    """Guards against a comparison that begins with nine of ten weights at zero."""
    option = TUNED_OPTIONS[name]
    first = next_strength(option, EqualTarget("drop", 1.0), [], FLOATING)
    assert option.value(first, FLOATING) in (0.5, 0.2, 1)
    second = next_strength(option, EqualTarget("drop", 1.0), [made(first, 800_000, 0.1)], FLOATING)
    assert first < second <= max(1.5 * first, 2)
    back = next_strength(option, EqualTarget("drop", 1.0), [made(first, 800_000, 9.0)], FLOATING)
    assert back is None or 0 < back < first


def test_a_file_that_is_ruined_and_too_large_ends_the_search_for_bytes():
    """Guards against tries of ever more zeros, before methods that would do are tried."""

    def outcome(share):
        return pruned(share)[0], 90.3

    target, option = EqualTarget("bytes", 40_000), TUNED_OPTIONS["sparsity"]
    tries = search(option, target, outcome)
    assert len(tries) > 2
    told = [each.model_copy(update={"ruined": True}) for each in tries[:1]]
    assert next_strength(option, target, told, FLOATING) is None
    assert target.why(None, told) == f"loses 90.3 with {told[0].file_bytes:,} bytes already"
    assert next_strength(option, EqualTarget("drop", 1.0), told, FLOATING) is not None
    small = told[0].model_copy(update={"file_bytes": 39_900})
    assert target.why(small, [small]) == "ruined: loses 90.3"


def test_a_size_that_is_asked_for_is_what_the_option_gets():
    """Guards against a file of one byte more than was asked for, by rounding of a logarithm."""
    option = TUNED_OPTIONS["max_bytes"]
    for size in (9, 12_345, 40_001, 999_999):
        assert option.value(option.strength(size, FLOATING), FLOATING) == size


@pytest.mark.parametrize("most", [0.5, 5.0])
def test_the_smallest_file_that_holds_a_loss_is_found(most):
    target = EqualTarget("drop", most)
    tries = search(TUNED_OPTIONS["sparsity"], target, pruned)
    limit = (most / 100) ** (1 / 8)
    best = target.best(tries)
    assert best.drop <= most
    assert best.file_bytes <= 1.1 * pruned(limit)[0]
    assert len(tries) <= 7


def test_layers_are_counted():
    def outcome(count):
        return (FLOATING - 100_000 * count, 0.3 * count) if count <= 6 else None

    option = TUNED_OPTIONS["layers"]
    tries = search(option, EqualTarget("drop", 1.0), outcome)
    assert EqualTarget("drop", 1.0).best(tries).strength == 3
    assert [each.strength for each in tries] == [1, 2, 3, 4]
    bytes_of = EqualTarget("bytes", 450_000)
    tries = search(option, bytes_of, outcome)
    assert bytes_of.best(tries).file_bytes == 400_000
    assert bytes_of.why(bytes_of.best(tries), tries) == "has 400,000 bytes at its largest"
    assert all(each.strength == round(each.strength) for each in tries)


def test_what_was_tried_for_one_target_serves_the_other():
    first = search(TUNED_OPTIONS["sparsity"], EqualTarget("bytes", 250_000), pruned)
    both = search(TUNED_OPTIONS["sparsity"], EqualTarget("drop", 5.0), pruned, first)
    alone = search(TUNED_OPTIONS["sparsity"], EqualTarget("drop", 5.0), pruned)
    assert len(both) - len(first) <= len(alone)
    assert both[: len(first)] == first


def test_the_same_tries_give_the_same_next_strength():
    """Guards against a comparison that goes on otherwise after it was cut."""
    target, option = EqualTarget("drop", 1.0), TUNED_OPTIONS["sparsity"]
    tries = search(option, target, pruned)
    for count in range(len(tries)):
        assert next_strength(option, target, tries[:count], FLOATING) == tries[count].strength


def test_nothing_is_tried_where_floating_point_holds_or_there_is_one_file_only():
    assert next_strength(TUNED_OPTIONS["sparsity"], EqualTarget("bytes", 2e6), [], FLOATING) is None
    assert next_strength(None, EqualTarget("bytes", 1e5), [], FLOATING) == 0.0
    assert next_strength(None, EqualTarget("bytes", 1e5), [made(0.0, 500_000, 1.0)], FLOATING) is None


def test_a_loss_that_is_not_a_number_holds_nothing():
    assert not EqualTarget("drop", 1.0).holds(failed(1.0))
    assert EqualTarget("drop", 1.0).nearest([failed(1.0)]) is None
    assert EqualTarget("drop", 1.0).why(None, [failed(1.0)]) == "too strong"


def test_at_equal_bytes_the_least_loss_counts_and_smaller_files_are_none_of_them():
    tries = [made(1.0, 99_500, 0.5), made(1.1, 98_500, 0.4, 1), made(2.0, 60_000, 0.1, 1), made(0.5, 120_000, 0.0)]
    assert EqualTarget("bytes", 100_000).best(tries).drop == 0.4
    assert EqualTarget("drop", 0.45).best(tries).file_bytes == 60_000
    assert math.isclose(TUNED_OPTIONS["sparsity"].strength(0.75, FLOATING), math.log(4))
