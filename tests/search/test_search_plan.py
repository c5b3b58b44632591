"""What a search tries, and which file it takes: faults guarded are sizes that are never tried, and tried for ever."""

import pytest

from attar._src.core.errors import SpecError
from attar._src.core.spec import build_spec
from attar._src.search.goal import Goal
from attar._src.search.plan import FIRST, chosen_activations, next_step
from attar._src.search.recommended import front_of, recommended
from attar._src.search.tried_file import TriedFile, pareto

#: Bytes, points lost and milliseconds of the first files.
USUAL = {
    "floating point": (1_000_000, 0.0, 1.0),
    "8 bits": (250_000, 0.0, 1.0),
    "8 bits, dynamic": (250_000, 0.02, 0.8),
    "8 bits, static": (251_000, 0.1, 0.5),
    "4 bits": (120_000, 0.1, 1.0),
    "4 bits, static": (121_000, 0.2, 0.5),
    "2 bits": (60_000, 20.0, 1.0),
}


def file(name, size, drop, ms, **options):
    ruined = drop > 45
    return TriedFile(name=name, options=options, file_bytes=size, drop=drop, unit="points", ms=ms, ruined=ruined)


def search(goal, needs, improved_needs=None, least=0):
    """Return the files of a network that loses 2 points for each time it is half as large as ``needs``."""
    files, failed = [], {}
    for _ in range(60):
        step = next_step(goal, files, failed)
        if step is None:
            return files, failed
        options = dict(step.options)
        if step.name in USUAL:
            size, drop, ms = USUAL[step.name]
        else:
            size = options["max_bytes"]
            limit = (improved_needs or needs) if "reconstruct" in options else needs
            drop, ms = max(0.0, 2 * (limit / size - 1)), {None: 1.0, 8: 0.5, "dynamic": 0.8}[options.get("activations")]
            if size < least:
                failed[step.name] = "no file of so few bytes"
                continue
        files.append(file(step.name, size, drop, ms, **options))
    raise AssertionError("the search does not end")


def best(goal, files):
    return min((each for each in files if goal.holds(each)), key=goal.value)


def test_cheap_files_come_first():
    files, _ = search(Goal(max_drop=0.5), 50_000)
    assert [each.name for each in files[: len(FIRST)]] == [each.name for each in FIRST]
    assert all("max_bytes" in each.options for each in files[len(FIRST) :])


@pytest.mark.parametrize("needs", [2_000, 50_000, 110_000])
def test_the_smallest_size_that_holds_is_found_to_4_percent(needs):
    goal = Goal(max_drop=0.5)
    files, _ = search(goal, needs)
    least = needs / 1.25  # where 0.5 points are lost
    assert least <= best(goal, files).file_bytes <= 1.05 * least
    assert len(files) < 30


def test_reconstruction_goes_on_below_what_does_not_hold_without():
    goal = Goal(max_drop=0.5)
    files, _ = search(goal, 50_000, improved_needs=30_000)
    assert "reconstruct" in best(goal, files).options
    assert 24_000 <= best(goal, files).file_bytes <= 1.1 * 24_000


def test_a_size_that_no_file_has_ends_the_descent():
    goal = Goal(max_drop=50)
    files, failed = search(goal, 1, least=40_000)
    assert failed
    none, _ = search(Goal(max_bytes=900), 1, least=40_000)
    assert not any("reconstructed" in each.name for each in none)
    assert none[-1].name == "2 bits", "the nearest"
    assert 40_000 <= best(goal, files).file_bytes <= 1.05 * 40_000


def test_a_ruined_file_holds_no_goal_unless_the_loss_was_agreed_to():
    """Guards against a file that lost most of what the network knows as the best one, for its few bytes alone."""
    goal = Goal(max_bytes=10_000)
    files, _ = search(goal, 400_000)
    sized = [each for each in files if each.file_bytes == 10_000]
    assert [each.ruined for each in sized] == [True, True]
    assert not any(map(goal.holds, files))
    # The nearest that keeps the network, made for that.
    assert recommended(goal, files).name == "2 bits" == files[-1].name
    # Of files that are all ruined one that lost less is nearer, which samplers follow.
    assert goal.score(sized[0]) > goal.score(sized[0].model_copy(update={"drop": 46.0}))
    agreed = Goal(max_bytes=10_000, max_drop=90, minimise="drop")
    assert agreed.holds(sized[0])
    # Where nothing holds, a ruined file is not the nearest either.
    strict = Goal(max_bytes=10_000, max_drop=44, minimise="bytes")
    assert strict.excess(sized[0]) < strict.excess(files[0])
    assert recommended(strict, [files[0], sized[0]]) is files[0]


def test_bytes_that_are_ruined_before_reconstruction_are_reconstructed():
    goal = Goal(max_bytes=10_000)
    files, _ = search(goal, 400_000, improved_needs=100_000)
    assert recommended(goal, files).name == "10,000 bytes, reconstructed"
    assert "2 bits" not in [each.name for each in files]


@pytest.mark.parametrize(("why", "nearest"), [("no file of 900 bytes: with ...", True), ("is not finite", False)])
def test_a_step_that_cannot_hold_the_goal_says_so(why, nearest):
    files = [file(each.name, *USUAL[each.name], **each.options) for each in FIRST]
    step = next_step(Goal(max_bytes=900), files, {"900 bytes": why})
    assert (step.name, step.nearest) == ("2 bits", nearest)


def test_a_drop_that_only_floating_point_holds_is_sought_above_8_bits():
    goal = Goal(max_drop=0)
    files, _ = search(goal, 800_000)
    assert best(goal, files).file_bytes <= 250_000  # 8 bits, as they lose nothing here
    assert len(files) < 30


def test_bytes_are_used_up_for_the_least_drop():
    goal = Goal(max_bytes=60_000)
    assert goal.aim == "drop"
    files, _ = search(goal, 100_000, improved_needs=80_000)
    assert [each.file_bytes for each in files[len(FIRST) :]] == [60_000, 60_000]
    assert "reconstruct" in best(goal, files).options


def test_bytes_that_no_cheap_file_holds_are_tried():
    """Guards against a search for the smallest file that ends before the first size it was asked for."""
    goal = Goal(max_drop=0.5, max_bytes=60_000, minimise="bytes")
    files, _ = search(goal, 50_000)
    assert 40_000 <= best(goal, files).file_bytes <= 1.05 * 40_000
    files, _ = search(goal, 80_000, improved_needs=50_000)
    assert "reconstruct" in best(goal, files).options
    assert all(each.options["max_bytes"] <= 60_000 for each in files[len(FIRST) :])


def test_a_size_for_which_there_was_no_time_tells_nothing_of_others():
    """Guards against sizes, and their reconstruction, that follow from files that were never made."""
    goal = Goal(max_drop=0.5)
    files, _ = search(goal, 50_000)
    first = next_step(goal, files[: len(FIRST)], {})
    assert next_step(goal, files[: len(FIRST)], {}, [first.name]) is None


def test_a_time_takes_the_activations_that_keep_it_and_lose_least():
    goal = Goal(max_ms=0.9, max_drop=0.5)
    files, _ = search(goal, 50_000)
    assert {each.options.get("activations") for each in files[len(FIRST) :]} == {"dynamic"}
    assert best(goal, files).ms <= 0.9


@pytest.mark.parametrize(
    ("quartile", "drop", "chosen"),
    [(0.5, 0.1, 8), (0.9, 0.1, None), (0.5, 0.2, None), (1.1, 0.0, None)],
)
def test_speed_that_takes_little_of_what_may_be_lost_is_taken(quartile, drop, chosen):
    """Guards against small files that are not fast where they could be; and against speed that costs bytes."""
    goal = Goal(max_drop=0.5)
    made = [
        file("floating point", 1000, 0.0, 1.0, keep=["*"]),
        file("8 bits", 250, 0.0, 1.0, bits=8),
        file("8 bits, static", 250, drop, 0.5, bits=8, activations=8).model_copy(
            update={"against_floating": (0.4, 0.45, quartile)}
        ),
    ]
    assert chosen_activations(goal, made) == chosen
    assert chosen_activations(Goal(max_bytes=300), made) == (chosen if drop == 0 else None)


def test_the_same_files_give_the_same_next_step():
    """Guards against a search that takes other steps when it goes on."""
    goal = Goal(max_drop=0.5)
    files, _ = search(goal, 50_000)
    for count in range(len(files)):
        assert next_step(goal, files[:count], {}).name == files[count].name


def test_the_front_has_what_no_other_file_beats():
    a, b, c = file("a", 100, 0.0, 1.0), file("b", 50, 0.5, 1.01), file("c", 60, 0.5, 1.0)
    assert pareto([b, a, c]) == [a, b]
    assert pareto([a]) == [a]
    assert not a.beats(a)


def timed(name, size, *quartiles):
    made = file(name, size, 0.0, quartiles[1])
    return made.model_copy(update={"against_floating": quartiles})


def test_a_time_is_another_only_where_rounds_say_so():
    """Guards against a front that follows the noise of a timing."""
    slow, noise = timed("a", 100, 1.0, 1.0, 1.0), timed("b", 110, 0.97, 0.99, 1.01)
    fast = timed("c", 120, 0.5, 0.6, 0.7)
    assert pareto([slow, noise, fast]) == [fast, slow]
    assert not noise.is_faster_than(slow)
    assert fast.is_faster_than(noise)
    assert timed("d", 100, 0.5, 0.6, 0.9).beats(timed("e", 100, 0.91, 0.95, 1.0))
    assert front_of(Goal(max_ms=1), [slow, noise, fast]) == [fast, slow]
    assert front_of(Goal(max_drop=1), [slow, noise, fast]) == [slow]


def test_a_goal_has_a_bound_or_an_aim():
    with pytest.raises(SpecError, match=r"max_drop=0.5 \(points\)"):
        build_spec(Goal, where="compress")
    assert Goal(max_ms=1, max_drop=1, max_bytes=1).aim == "bytes"
    assert Goal(max_drop=1, max_bytes=1).aim == "ms"
    assert Goal(max_ms=1).aim == "drop"  # the smallest file in time would be one that predicts nothing
    assert Goal(minimise="ms").holds(file("a", 1, 40, 1))
    assert Goal(max_drop=0).excess(file("a", 1, 0.5, 1)) == 0.5
