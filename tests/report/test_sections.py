import re

from tests.report import runs

from attar._src.report.content import MOST_ROWS_SHOWN, PageTable
from attar._src.report.figures.plots import plots
from attar._src.report.headline import alarms, tiles
from attar._src.report.page import TEMPLATES, render
from attar._src.report.sections import sections
from attar._src.report.story import read_story

HOSTILE = "</script><img src=x onerror=alert(1)> & \"'"
MACROS = TEMPLATES.get_template("macros.html").module


def told(folder):
    story = read_story(folder)
    return {section.anchor: str(MACROS.section(section)) for section in sections(story, plots(story))}


def cells(markup, row):
    """Return the words of a row of a table, found by the words of its first cell."""
    found = re.search(rf"<tr[^>]*><th scope=\"row\"[^>]*>{re.escape(row)}</th>(.*?)</tr>", markup)
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td[^>]*>(.*?)</td>", found[1])]


def test_a_whole_run_has_every_section(tmp_path):
    assert list(told(runs.demo(tmp_path))) == [
        *("results", "trade", "bytes", "weights", "curves", "classes", "integers", "floats", "again")
    ]


def test_a_bare_run_has_those_it_has_something_to_say_in(tmp_path):
    bare = {"metric_mean": None, "metric_per_seed": [], "per_class": None, "latency": None, "layers": [], "curves": []}
    found = told(
        runs.small(tmp_path, models=[{**bare, "left_in_floating_point": {}, "record": []}], recipe_yaml="", command="")
    )
    assert list(found) == ["results", "bytes", "weights", "floats", "again"]


def test_the_table_has_a_row_for_each_model(tmp_path):
    folder = runs.demo(tmp_path)
    student = read_story(folder).main
    assert cells(told(folder)["results"], "student") == [
        "97.88 %",
        "97.48 % to 98.18 %",
        "15,338",
        "40.4 %",
        f"{student.contents['bits_per_weight']:.4g}",
        f"{student.file_bytes:,}",
        f"{student.times_smaller:.1f}×",
        "0.083 ms (spread 6 %)",
        "4.96×",
    ]
    assert cells(told(folder)["results"], "teacher")[-1] == "1.00×"


def test_what_was_not_measured_is_a_dash(tmp_path):
    bare = {"metric_mean": None, "metric_per_seed": [], "latency": None, "nonzero_share": None}
    row = cells(told(runs.small(tmp_path, models=[{}, bare]))["results"], "b")
    assert [row[i] for i in (0, 1, 3, 7, 8)] == ["–"] * 5


def test_collapsed_classes_raise_an_alarm_that_names_them(tmp_path):
    lost = render(read_story(runs.demo(tmp_path / "a", collapsed=True)), {})
    assert "<strong>student</strong>: lost class 8 (99.0 % to 61.0 %)." in lost
    assert 'role="alert"' in lost
    whole = read_story(runs.demo(tmp_path / "b"))
    assert alarms(whole) == []
    assert 'role="alert"' not in render(whole, {})


def test_warnings_stand_before_the_figures_and_after_the_verdict(tmp_path):
    folder = runs.small(tmp_path, models=[{}, {"warnings": ["<b>half</b> is in floating point", "at chance"]}])
    page = render(read_story(folder), {})
    assert "but there are 2 warnings." in page
    places = [page.index(each) for each in ("<h2>2 warnings</h2>", "<strong>b</strong>: &lt;b&gt;half", "at chance")]
    assert page.index('class="verdict"') < places[0] < places[1] < places[2] < page.index('class="tiles"')
    assert '<tr class="marked"><th scope="row">b</th>' in page
    assert "warning" not in render(read_story(runs.small(tmp_path / "none", models=[{}, {}])), {})


def test_files_are_shown_beside_floating_point(tmp_path):
    scores = {"kind": "scores", "signal_to_noise_db": 16.04, "relative_error": 0.15, "cosine": 0.98}
    fidelity = {
        "compared_with": "the model after stage 0, train",
        "examples": 512,
        "trained_since": True,
        "outputs": {
            "logits": {**scores, "equal_predictions": 0.963},
            "embedding": {**scores, "kind": "values"},
            "best": {"kind": "integers", "equal": 0.5},
            "same": {"kind": "values", "signal_to_noise_db": None, "relative_error": 0.0, "cosine": None},
        },
        "metric": {"name": "accuracy", "floating": 0.9121, "file": 0.8965},
    }
    story = read_story(runs.small(tmp_path, models=[{}, {"fidelity": fidelity}]))
    (table,) = next(each.tables for each in sections(story, plots(story)) if each.anchor == "fidelity")
    rows = table.rows
    since = "the model after stage 0, train, and was trained since"
    assert rows[0] == [
        "b",
        "logits",
        "96.30 % equal predictions, signal to noise 16.0 dB",
        "91.21 % to 89.65 %",
        "512",
        since,
    ]
    assert rows[1][2] == "signal to noise 16.0 dB, cosine 0.98000, relative error 15.00 %"
    assert [row[2] for row in rows[2:]] == ["50.00 % equal integers", "no difference"]
    assert [row[3] for row in rows[1:]] == ["–"] * 3
    assert "fidelity" not in told(runs.small(tmp_path / "none", models=[{}, {}]))


def test_a_collapsed_class_is_marked_in_its_table(tmp_path):
    found = told(runs.demo(tmp_path, collapsed=True))["classes"]
    assert cells(found, "8")[-1] == "−38.0 collapsed"
    assert found.count('class="marked"') == 1
    assert "1 class collapsed." in found
    assert "equally many" not in found


def test_classes_that_were_not_counted_are_said_to_be_taken_as_equal(tmp_path):
    per_class = {"per_class": {"0": 0.9, "1": 0.9}}
    assert "assumed to be equally many" in told(runs.small(tmp_path, models=[per_class, per_class]))["classes"]


def test_classes_are_called_what_the_file_calls_them(tmp_path):
    shapes = {"fc": (10, 8)}
    folder = runs.small(tmp_path, shapes=shapes, models=[{"per_class": {"0": 0.5, "cat": 0.5}}])
    assert cells(told(folder)["classes"], "cat") == ["50.0 %"]


def test_tiles_show_what_was_measured(tmp_path):
    def found(folder):
        return {tile.name: (tile.value, tile.detail) for tile in tiles(read_story(folder))}

    assert found(runs.demo(tmp_path / "a"))["faster"] == ("4.96×", "than teacher, median")
    slow = found(runs.small(tmp_path / "b", models=[{}, {"times_faster": 0.25}]))
    assert slow["slower"] == ("4.00×", "than a, median")
    alone = found(runs.small(tmp_path / "c"))
    assert set(alone) == {"whole file", "smaller", "test accuracy"}
    assert alone["test accuracy"] == ("90.00 %", "on 359 test examples")


def test_layers_say_what_they_ran_in_and_why(tmp_path):
    found = told(runs.demo(tmp_path))["integers"]
    assert "<strong>student</strong>: 4 of 4 layers ran in integers" in found
    assert "<strong>teacher</strong>: 0 of 4 layers ran in integers" in found
    assert cells(found, "stem") == ["Conv", "float", "its weight is in floating point"]


def test_long_tables_are_cut_and_say_so(tmp_path):
    layer = {"kernel": "Conv", "integer": False, "reason": "x"}
    many = MOST_ROWS_SHOWN + 7
    changes = {
        "layers": [{**layer, "name": f"layer{i}"} for i in range(many)],
        "left_in_floating_point": {f"layer{i}": "why" for i in range(many)},
    }
    found = told(runs.small(tmp_path, models=[changes]))
    for section in (found["integers"], found["floats"]):
        assert f"The first {MOST_ROWS_SHOWN} of {many}; all are in report.json." in section
        assert section.count("<tr>") == MOST_ROWS_SHOWN + 1


def test_nothing_left_in_floating_point_is_said_too(tmp_path):
    found = told(
        runs.small(tmp_path, models=[{"left_in_floating_point": {}, "notes": {"size": "3.1 bits per weight"}}])
    )["floats"]
    assert "left nothing in floating point" in found
    assert cells(found, "size") == ["3.1 bits per weight"]


def test_the_last_section_is_enough_to_do_it_again(tmp_path):
    folder = runs.demo(tmp_path)
    found = told(folder)["again"]
    assert "attar run examples/digits.yaml --out runs/demo" in found
    assert cells(found, "Seeds") == ["0, 1, 2"]
    assert cells(found, "torch") == ["2.13.0"]
    for model in read_story(folder).models:
        assert cells(found, model.measured.file) == [f"{model.file_bytes:,}", model.measured.sha256]
    assert "source: {factory: digits.py:net}" in found
    assert "What each stage did to student" in found


def test_without_its_text_the_recipe_is_shown_as_json(tmp_path):
    assert "&#34;data&#34;: &#34;digits&#34;" in told(runs.small(tmp_path, recipe_yaml=""))["again"]


def test_a_table_says_what_its_headings_head_and_escapes_its_cells():
    made = MACROS.table(
        PageTable("What <it> shows", ["Name", "Bytes"], [["a<b", "1"], ["c", HOSTILE]], numbers=[1], marked=[1])
    )
    assert "<caption>What &lt;it&gt; shows</caption>" in made
    assert '<th scope="col">Name</th><th scope="col" class="n">Bytes</th>' in made
    assert '<tr><th scope="row">a&lt;b</th><td class="n">1</td></tr>' in made
    assert '<tr class="marked"><th scope="row">c</th>' in made
    assert 'tabindex="0" role="region" aria-label="What &lt;it&gt; shows"' in made
    assert "<img" not in made
