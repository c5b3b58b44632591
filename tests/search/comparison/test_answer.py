"""Which method to use, in words: the fault guarded is a word that no figure stands behind."""

import pytest

from attar._src.search.comparison.answer import answer, equals

FLOATING = {
    "file_bytes": 1_000_000,
    "peak_memory_bytes": 60_000_000,
    "joules": 0.002,
    "ms": 1.0,
}
ABOUT = {"unit": "points of accuracy", "calibration": 512, "validation": 2000, "energy": ""}


def row(method, size, drop, ratio=(0.98, 1.0, 1.02), **more):
    return {
        "method": method,
        "holds": True,
        "tries": 1,
        "why": "",
        "nearest": size,
        "file_bytes": size,
        "drop": drop,
        "noise": 0.2,
        "ruined": False,
        "ms": ratio[1],
        "against_floating": list(ratio),
        "peak_memory_bytes": 60_000_000,
        "joules": 0.001,
        "hardware": "nothing",
        "seconds": 3.0,
        "tuning_seconds": 20.0,
        "training_examples": 0,
        **more,
    }


def target(*rows, what="bytes", most=100_000):
    words = f"{most:,} bytes" if what == "bytes" else "a loss"
    return {"what": what, "most": most, "words": words, "rows": rows, "kept": None}


def test_the_least_loss_is_recommended_with_its_figures():
    said = " ".join(answer(target(row("a", 99_000, 0.3), row("b", 99_500, 4.0)), FLOATING, ABOUT))
    assert "At 100,000 bytes, use a: 99,000 bytes, 10.1 times fewer than in floating point, 0.3 points" in said
    assert "(standard error 0.2)" in said
    assert "As good" not in said
    assert "No file here is faster" in said
    assert "1 mJ of the processor, in floating point 2 mJ" in said
    assert "nothing was trained" in said


def test_what_the_examples_cannot_tell_apart_is_as_good_and_the_faster_comes_first():
    """Guards against a method that is recommended for the draw of the validation examples."""
    slow, fast = row("slow", 99_000, 0.3), row("fast", 99_000, 0.4, (0.5, 0.55, 0.6), hardware="integer kernels")
    assert [each["method"] for each in equals("bytes", [slow, fast])] == ["fast", "slow"]
    said = " ".join(answer(target(slow, fast), FLOATING, ABOUT))
    assert "use fast" in said
    assert "As good within one standard error of the 2,000 validation examples: slow." in said
    assert "needs integer kernels" in said


def test_a_file_is_called_faster_only_if_three_of_four_rounds_were():
    """Guards against a recommendation for speed that is noise."""
    wobbling = row("wobbling", 99_000, 0.1, (0.7, 0.9, 1.01))
    said = " ".join(answer(target(wobbling), FLOATING, ABOUT))
    assert "The fastest is" not in said
    assert "No file here is faster than that in floating point in three of four rounds." in said


def test_the_fastest_is_told_beside_the_best():
    best, fast = row("best", 99_000, 0.1), row("fast", 99_000, 3.0, (0.4, 0.45, 0.5))
    said = " ".join(answer(target(best, fast), FLOATING, ABOUT))
    assert "use best" in said
    assert "The fastest is fast, 0.45 ms and 0.45 times as long as in floating point, with 3 lost" in said


def test_at_equal_loss_the_fewest_bytes_are_recommended():
    found = equals("drop", [row("large", 120_000, 0.0), row("small", 60_000, 0.4), row("other", 60_900, 0.1)])
    assert {each["method"] for each in found} == {"small", "other"}


def test_training_is_told_to_gain_what_it_gained_and_no_more():
    trained = row("trained", 99_000, 0.1, training_examples=50_000, seconds=300.0)
    said = " ".join(answer(target(row("a", 99_000, 2.0), trained), FLOATING, ABOUT))
    assert "gradient steps saw 50,000 examples" in said
    assert "Gradient steps gain 1.9 points of accuracy: trained against a, 300 s against 3 s." in said
    useless = row("trained", 99_000, 2.5, training_examples=50_000)
    assert "No method with gradient steps is better than a." in " ".join(
        answer(target(row("a", 99_000, 2.0), useless), FLOATING, ABOUT)
    )


def test_what_cannot_be_read_is_said_to_be_unreadable():
    rows = row("a", 99_000, 0.1, peak_memory_bytes=None, joules=None)
    said = " ".join(answer(target(rows), FLOATING, {**ABOUT, "energy": "no counters"}))
    assert "Memory is not readable here." in said
    assert "Energy is not readable here: no counters." in said


@pytest.mark.parametrize(("own", "words"), [(59_500_000, "as much memory"), (40_000_000, "20.0 MB less memory")])
def test_memory_that_differs_by_the_noise_is_the_same(own, words):
    assert words in " ".join(answer(target(row("a", 99_000, 0.1, peak_memory_bytes=own)), FLOATING, ABOUT))


def test_no_method_is_recommended_where_none_reaches_the_target():
    missed = {"method": "a", "holds": False, "tries": 3, "why": "120,000 bytes at least", "nearest": 120_000}
    assert answer(target(missed), FLOATING, ABOUT) == [
        "No method reaches 100,000 bytes. The nearest is a, with 120,000 bytes."
    ]
    some = " ".join(answer(target(row("b", 99_000, 60.0), missed), FLOATING, ABOUT))
    assert "Only 1 of 2 methods that were tried made a file of use there." in some
    untried = {**missed, "tries": 0, "nearest": None}
    assert "Only" not in " ".join(answer(target(row("b", 99_000, 6.0), untried), FLOATING, ABOUT))
    assert "None is needed" in answer(target(row("a", 1, 0), most=2_000_000), FLOATING, ABOUT)[0]


KEPT = {"method": "8 bits", "file_bytes": 270_000, "drop": 0.1}


def test_a_network_that_lost_what_it_knew_is_never_recommended_at_equal_bytes():
    """Guards against the answer that a ruined network is the one to use, as no other is so small."""
    ruined = row("pruned", 99_000, 119.0, ruined=True)
    asked = {**target(ruined), "kept": KEPT}
    assert equals("bytes", [ruined]) == []
    (said,) = answer(asked, FLOATING, {**ABOUT, "unit": "% of bits"})
    assert said == (
        "None of the methods that were tried keeps the network at 100,000 bytes, where pruned loses 119 % of bits; "
        "the nearest that does is 8 bits, with 270,000 bytes and 0.1 % of bits lost."
    )
    assert answer(target(ruined), FLOATING, ABOUT)[0].endswith("; no file that was made does.")
    fast = row("fast", 99_000, 80.0, (0.1, 0.2, 0.3), ruined=True)
    said = " ".join(answer({**target(fast, row("a", 99_000, 3.0)), "kept": KEPT}, FLOATING, ABOUT))
    assert "use a" in said
    assert "Only 1 of 2 methods that were tried made a file of use there." in said
    assert "fast," not in said
    # A loss was agreed to.
    assert len(equals("drop", [ruined])) == 1


def test_the_nearest_is_a_file_that_keeps_the_network():
    missed = {"method": "a", "holds": False, "tries": 3, "why": "loses 80 with 120,000 bytes", "nearest": 120_000}
    assert answer({**target(missed), "kept": KEPT}, FLOATING, ABOUT) == [
        "No method reaches 100,000 bytes. The nearest is 8 bits, with 270,000 bytes and 0.1 points of accuracy lost."
    ]
