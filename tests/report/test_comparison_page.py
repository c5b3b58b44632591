"""The page of a comparison, of figures as ``compare.json`` has them."""

from attar._src.report.comparison_page import COLUMNS, comparison_cells, untried_methods, write_comparison_page


def row(method, **more):
    return {
        "method": method,
        "holds": True,
        "tries": 2,
        "why": "",
        "file": f"files/{method}.attar",
        "file_bytes": 40_000,
        "drop": 0.25,
        "noise": 0.1,
        "unit": "points of accuracy",
        "metric": 0.91,
        "ms": 0.5,
        "against_floating": [0.5, 0.6, 0.7],
        "peak_memory_bytes": 60_000_000,
        "joules": None,
        "hardware": "integer kernels for 2 of 3 layers",
        "seconds": 3.2,
        "tuning_seconds": 20.5,
        "training_examples": 0,
        "options": {"quantize": {"max_bytes": 40_000}},
        "failed": "",
        **more,
    }


def result(*rows):
    target = {"what": "bytes", "most": 40_000, "words": "40,000 bytes", "rows": rows, "recommended": "quantization"}
    return {
        "unit": "points of accuracy",
        "validation": 2000,
        "energy": "no counters",
        "floating": row("floating point", file_bytes=1_000_000),
        "targets": [{**target, "answer": ["At 40,000 bytes, use quantization.", "It is fast."]}],
        "tries": [each for each in rows if each["holds"]],
        "ended": "every method was tuned",
        "left_out": {"trained": "trains"},
        "skipped": ["pruned channels, at 40,000 bytes"],
    }


MISSED = {"method": "<b>layers</b>", "holds": False, "tries": 1, "why": "90,000 bytes at least"}


def test_the_page_has_the_answer_every_method_and_what_was_left_out(tmp_path):
    path = write_comparison_page(tmp_path, result(row("quantization"), MISSED))
    page = path.read_text()
    assert "At 40,000 bytes, use quantization. It is fast." in page
    assert "&lt;b&gt;layers&lt;/b&gt;" in page
    assert "<b>layers" not in page
    assert "90,000 bytes at least" in page
    assert "not readable here (no counters)" in page
    assert "left out: trained: trains. no time for: pruned channels" in page
    assert "integer kernels for 2 of 3 layers" in page
    assert len(page) < 100_000
    assert write_comparison_page(tmp_path, result(row("quantization"), MISSED)).read_text() == page


def test_what_was_not_tried_is_told_once_with_its_reason(tmp_path):
    untried = [{"method": each, "holds": False, "tries": 0, "why": "no time"} for each in ("one, two", "three")]
    told = result(row("quantization"), *untried)
    told["targets"] *= 2
    told["left_out"] = {"a": "trains", "b": "needs labels", "c": "trains"}
    told["skipped"] = ["one, two, at 40,000 bytes", "one, two, at a loss", "three, at a loss"]
    assert untried_methods(told) == [
        "left out: a; c: trains",
        "left out: b: needs labels",
        "no time for: one, two; three (at a loss)",
    ]
    assert write_comparison_page(tmp_path, told).read_text().count("one, two") == 1


def test_what_loses_far_more_does_not_hide_what_loses_little(tmp_path):
    few = write_comparison_page(tmp_path, result(row("quantization"), row("pruned weights"))).read_text()
    far = write_comparison_page(
        tmp_path, result(row("quantization"), row("pruned weights"), row("pruned channels", drop=80.0))
    ).read_text()
    assert few.count('<svg class="drawing"') == 1
    assert far.count('<svg class="drawing"') == 2


def test_cells_are_as_many_as_columns():
    target = {"recommended": "quantization"}
    assert len(comparison_cells(target, row("quantization"))) == len(COLUMNS)
    assert comparison_cells(target, row("quantization"))[1] == "use this"
    assert comparison_cells(target, MISSED)[:2] == ["<b>layers</b>", "90,000 bytes at least"]
    assert len(comparison_cells(target, MISSED)) == len(COLUMNS)
