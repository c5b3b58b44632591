import json

import pytest
from tests.report import runs

from attar._src.core.errors import AttarError
from attar._src.report.story import read_story


def changed(folder, change):
    """Change what a run says of itself."""
    path = folder / "report.json"
    known = json.loads(path.read_text())
    change(known["run"])
    path.write_text(json.dumps(known))
    return folder


def test_sizes_are_those_of_the_files_whatever_the_report_says(tmp_path):
    told = {"file_bytes": 1, "times_smaller": 1000.0, "bits_per_weight": 0.1}
    story = read_story(runs.small(tmp_path, models=[{}, told]))
    size = (tmp_path / "b.attar").stat().st_size
    assert story.main.file_bytes == size
    assert story.main.times_smaller == pytest.approx(4 * 90 / size)
    assert story.main.contents["bits_per_weight"] == pytest.approx((size - story.main.contents["graph_bytes"]) * 8 / 90)


def test_the_main_model_is_the_smallest_that_is_not_the_baseline(tmp_path):
    story = read_story(runs.demo(tmp_path))
    assert [model.name for model in story.main_first] == ["student", "teacher", "alone"]
    assert [model.name for model in story.others] == ["alone", "student"]
    assert story.baseline.name == "teacher"
    assert story.data == "digits"


def test_one_model_is_its_own_baseline(tmp_path):
    story = read_story(runs.small(tmp_path))
    assert story.main is story.baseline
    assert story.others == ()
    assert story.changes == {}


def test_times_faster_is_the_ratio_of_medians_where_the_run_does_not_say(tmp_path):
    story = read_story(runs.small(tmp_path, models=[{}, {}, {"times_faster": 7.5}, {"latency": None}]))
    found = [model.times_faster for model in story.models]
    assert found == [1.0, pytest.approx(2.0), 7.5, None]


def test_a_collapsed_class_is_found(tmp_path):
    story = read_story(runs.demo(tmp_path, collapsed=True))
    assert {name: [change.label for change in all_] for name, all_ in story.collapsed.items()} == {"student": ["8"]}


def test_classes_are_taken_to_be_equally_large_where_they_were_not_counted(tmp_path):
    story = read_story(changed(runs.demo(tmp_path, collapsed=True), lambda run: run.pop("class_examples")))
    assert list(story.collapsed) == ["student"]


@pytest.mark.parametrize("data", [{"source": "mnist", "seed": 0}, "mnist"])
def test_the_data_set_is_named_in_either_form(tmp_path, data):
    assert read_story(runs.small(tmp_path, recipe={"data": data})).data == "mnist"


@pytest.mark.parametrize("recipe", [{}, {"data": {"source": {"train": 1}}}, {"data": None}])
def test_a_data_set_may_have_no_name(tmp_path, recipe):
    assert read_story(runs.small(tmp_path, recipe=recipe)).data == ""


def test_what_is_not_known_is_passed_over_and_what_is_not_measured_may_be_missing(tmp_path):
    bare = {"metric_mean": None, "metric_per_seed": [], "per_class": None, "latency": None, "layers": [], "curves": []}
    story = read_story(runs.small(tmp_path, models=[{**bare, "something": {"new": 1}}], examples=None, other=[1]))
    assert story.main.measured.metric_mean is None


def test_a_metric_may_be_nan(tmp_path):
    nan = float("nan")
    story = read_story(runs.small(tmp_path, models=[{"metric_mean": nan, "metric_per_seed": [nan]}]))
    assert story.main.measured.metric_mean != story.main.measured.metric_mean


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(AttarError, match="is not a folder: name the folder of a run"):
        read_story(tmp_path / "nowhere")
    runs.small(tmp_path)
    with pytest.raises(AttarError, match=f"the run's folder may be {tmp_path}"):
        read_story(tmp_path / "a.attar")


def test_a_run_that_has_not_ended_says_how_to_go_on(tmp_path):
    with pytest.raises(AttarError, match=r"has no report\.json.*--resume"):
        read_story(tmp_path)


def test_a_report_of_files_alone_tells_of_no_run(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"1" * 64: {"file": "a.attar"}}))
    with pytest.raises(AttarError, match=r"has measurements of files but not of a run; `attar run RECIPE\.yaml"):
        read_story(tmp_path)


def test_a_missing_file_is_named_with_its_model(tmp_path):
    runs.small(tmp_path, models=[{}, {}])
    (tmp_path / "b.attar").unlink()
    with pytest.raises(AttarError, match=r"b\.attar is missing: report\.json names it as the file of 'b'"):
        read_story(tmp_path)


def test_a_file_that_is_not_the_one_measured_is_refused(tmp_path):
    runs.small(tmp_path, models=[{}, {}])
    (tmp_path / "b.attar").write_bytes((tmp_path / "a.attar").read_bytes())
    with pytest.raises(AttarError, match=r"b\.attar is not the file that was measured: its SHA-256 is [0-9a-f]{64}"):
        read_story(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    runs.small(tmp_path)
    (tmp_path / "a.attar").write_bytes(b"no model at all")
    with pytest.raises(AttarError, match=r"a\.attar: header"):
        read_story(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.update(baseline="x"), r"run\.baseline: no model named 'x'; known: a, b"),
        (lambda run: run.update(models=[]), r"run\.models should hold one model or more"),
        (lambda run: run["models"][1].update(name="a"), r"each of its own name; got \['a', 'a'\]"),
        (lambda run: run["models"][1].pop("sha256"), r"run\.models\.1\.sha256: Field required"),
        (lambda run: run["models"][0].update(parameters="many"), r"run\.models\.0\.parameters: .*\(got 'many'\)"),
        (lambda run: run.pop("models"), r"run\.models: Field required"),
    ],
)
def test_a_report_that_does_not_fit_says_where(tmp_path, change, message):
    folder = changed(runs.small(tmp_path, models=[{}, {}]), change)
    with pytest.raises(AttarError, match=message):
        read_story(folder)
