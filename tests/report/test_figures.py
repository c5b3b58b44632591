import json

import pytest
from tests.report import runs

from attar._src.report.figures.bytes import MOST_ROWS
from attar._src.report.figures.classes import MOST_CLASSES, shown_classes
from attar._src.report.figures.plots import plots
from attar._src.report.story import read_story

HOSTILE = "</script><b onmouseover=alert(1)>&amp;"


def told(folder):
    return plots(read_story(folder))


def as_plotly_has_it(figure):
    """Make the figure with Plotly itself, which refuses what it does not know; colours are filled in as on the page."""
    go = pytest.importorskip("plotly.graph_objects")
    text = json.dumps({"data": figure.data, "layout": figure.layout}, allow_nan=False)
    for name in ("muted", "alarm", *(f"series-{i}" for i in range(6))):
        text = text.replace(f'"--{name}"', '"#123456"')
    assert '"--' not in text
    return go.Figure(json.loads(text))


@pytest.mark.parametrize("name", ["trade", "bytes", "weights", "curves", "classes"])
def test_every_figure_is_one_of_plotlys_and_says_what_it_shows(tmp_path, name):
    plot = told(runs.demo(tmp_path, collapsed=True))[name]
    assert plot.name == name
    for figure in plot.figures:
        as_plotly_has_it(figure)
        assert len(figure.labels) == len(plot.levels)
        assert figure.alt
    assert len({figure.labels for figure in plot.figures}) == len(plot.figures)


def test_every_model_is_a_point_at_its_files_length(tmp_path):
    story = read_story(runs.demo(tmp_path))
    (figure,) = plots(story)["trade"].figures
    assert [trace["x"] for trace in figure.data] == [[model.file_bytes] for model in story.models]
    assert figure.layout["xaxis"]["type"] == "log"
    student = figure.data[2]
    assert student["y"] == [pytest.approx(97.88)]
    assert student["error_y"]["array"] == [pytest.approx(0.3)]
    assert student["error_y"]["arrayminus"] == [pytest.approx(0.4)]


def test_a_model_without_a_metric_is_named_not_drawn(tmp_path):
    (figure,) = told(runs.small(tmp_path, models=[{}, {"metric_mean": None}]))["trade"].figures
    assert len(figure.data) == 1
    assert "Without a measured accuracy, not drawn: b." in figure.note


@pytest.mark.parametrize("mean", [None, float("nan")])
def test_without_any_metric_there_is_no_trade(tmp_path, mean):
    assert "trade" not in told(runs.small(tmp_path, models=[{"metric_mean": mean}]))


def test_the_bars_add_up_to_the_file(tmp_path):
    story = read_story(runs.demo(tmp_path))
    sizes = {model.name: model.file_bytes for model in story.models}
    for figure in plots(story)["bytes"].figures:
        assert sum(sum(trace["x"]) for trace in figure.data) == sizes[figure.labels[0]]


def test_many_layers_are_cut_and_the_page_says_so(tmp_path):
    shapes = {f"layer{i}": (4, 8 + i) for i in range(MOST_ROWS + 30)}
    story = read_story(runs.small(tmp_path, shapes=shapes))
    (figure,) = plots(story)["bytes"].figures
    assert len(figure.layout["yaxis"]["ticktext"]) <= MOST_ROWS + 5
    assert "30 other layers" in figure.layout["yaxis"]["ticktext"]
    assert f"The {MOST_ROWS} largest of {MOST_ROWS + 30} layers" in figure.note
    assert sum(sum(trace["x"]) for trace in figure.data) == story.main.file_bytes


def test_names_reach_plotly_as_text_and_never_as_a_template(tmp_path):
    folder = runs.small(tmp_path, models=[{"name": HOSTILE}], shapes={HOSTILE: (10, 8)}, baseline=HOSTILE)
    for plot in told(folder).values():
        for figure in plot.figures:
            text = json.dumps([figure.data, figure.layout])
            assert "hovertemplate" not in text
            assert "<b" not in text.replace("<br>", "")
            assert "</script" not in text


def test_equal_short_names_stay_apart(tmp_path):
    shapes = {"x" * 60 + str(i) + "y" * 60: (4, 8) for i in range(3)}
    (figure,) = told(runs.small(tmp_path, shapes=shapes))["bytes"].figures
    weights = next(trace for trace in figure.data if trace["name"] == "weights")
    assert weights["y"] == [0, 1, 2]
    assert len(set(figure.layout["yaxis"]["ticktext"][:3])) == 1


def test_a_collapsed_class_is_marked_by_shape_as_well_as_by_colour(tmp_path):
    (figure,) = told(runs.demo(tmp_path, collapsed=True))["classes"].figures
    student = figure.data[2]
    assert [i for i, symbol in enumerate(student["marker"]["symbol"]) if symbol == "x"] == [8]
    assert student["marker"]["color"][8] == "--alarm"
    assert "collapsed" in student["hovertext"][8]
    assert figure.alt.endswith("Collapsed: 8 of student.")


def test_of_many_classes_those_that_lost_most_are_shown(tmp_path):
    count = MOST_CLASSES + 60
    before = {str(label): 0.9 for label in range(count)}
    after = before | {"77": 0.2}
    story = read_story(runs.small(tmp_path, models=[{"per_class": before}, {"per_class": after}]))
    assert len(shown_classes(story)) == MOST_CLASSES
    assert "77" in shown_classes(story)
    assert f"The {MOST_CLASSES} classes that changed most, of {count}" in plots(story)["classes"].figures[0].note


def test_without_classes_there_is_no_figure_of_them(tmp_path):
    assert "classes" not in told(runs.small(tmp_path, models=[{"per_class": {}}, {"per_class": None}]))
