from tests.report import runs

from attar._src.report.figures.curves import curves
from attar._src.report.story import read_story


def figure(folder, rows):
    plot = curves(read_story(runs.small(folder, models=[{"curves": rows}])))
    return plot.figures[0] if plot.figures else None


def row(stage, epoch, **figures):
    return {"stage": stage, "epoch": epoch, "loss": 1.0 / epoch, "validation_accuracy": 0.5, "seconds": 2.0, **figures}


def test_losses_are_above_and_validation_below(tmp_path):
    found = figure(tmp_path, [row("train", 1), row("train", 2)])
    assert {trace["name"]: trace["yaxis"] for trace in found.data} == {"loss": "y", "validation accuracy": "y2"}
    assert found.data[0]["x"] == [1, 2]
    assert found.data[0]["y"] == [1.0, 0.5]
    assert found.note == "2 epochs in 4 s."


def test_stages_are_marked_where_they_begin(tmp_path):
    found = figure(tmp_path, [row("distill", 1), row("distill", 2), row("finetune", 1)])
    assert [(label["text"], label["x"]) for label in found.layout["annotations"]] == [
        ("distill", 0.5),
        ("finetune", 2.5),
    ]
    assert [line["x0"] for line in found.layout["shapes"]] == [2.5]
    assert "2 stages (distill, finetune)" in found.alt


def test_a_stage_that_follows_one_of_its_kind_begins_anew(tmp_path):
    found = figure(tmp_path, [row("finetune", 1), row("finetune", 2), row("finetune", 1)])
    assert [line["x0"] for line in found.layout["shapes"]] == [2.5]


def test_other_figures_sleep_in_the_legend_and_the_note_says_so(tmp_path):
    found = figure(tmp_path, [row("train", 1, lr=0.1, kl=2.0)])
    shown = {trace["name"]: trace["visible"] for trace in found.data}
    assert shown == {"loss": True, "lr": "legendonly", "kl": "legendonly", "validation accuracy": True}
    assert "grey in the legend" in found.note


def test_a_validation_loss_is_a_loss(tmp_path):
    found = figure(tmp_path, [row("train", 1, validation_loss=2.0)])
    assert {trace["name"]: trace["yaxis"] for trace in found.data}["validation loss"] == "y"


def test_a_training_without_validation_is_one_panel(tmp_path):
    found = figure(tmp_path, [{"stage": "train", "epoch": 1, "loss": 1.0}])
    assert "yaxis2" not in found.layout
    assert found.note == "1 epoch."


def test_gaps_and_what_is_no_number_are_gaps(tmp_path):
    found = figure(tmp_path, [row("a", 1), {"stage": "b", "epoch": 1, "loss": float("nan"), "lr": "high"}, {}])
    assert found.data[0]["y"] == [1.0, None, None]
    assert [trace["name"] for trace in found.data] == ["loss", "validation accuracy"]


def test_no_training_no_figure(tmp_path):
    assert figure(tmp_path, []) is None
    assert figure(tmp_path, [{"stage": "prune", "epoch": 1}]) is None
