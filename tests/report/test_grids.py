import numpy as np
import pytest
from tests import samples
from tests.report import runs

from attar._src.core.tensors import Dense
from attar._src.report.figures.grids import MOST_TENSORS, grids
from attar._src.report.story import read_story


def figures(folder):
    return {figure.labels: figure for figure in grids(read_story(folder)).figures}


def by_name(figure):
    return {trace["name"]: trace for trace in figure.data}


def test_each_weight_has_a_histogram_and_biases_have_none(tmp_path):
    found = figures(runs.small(tmp_path, models=[{}, {}]))
    assert set(found) == {("a", "fc.weight"), ("b", "fc.weight")}


def test_a_grid_has_its_points_and_its_codes_below(tmp_path):
    figure = figures(runs.small(tmp_path, models=[{}, {}], shapes={"fc": (10, 80)}))["b", "fc.weight"]
    traces = by_name(figure)
    assert set(traces) == {"values", "exactly zero", "points of the grid", "codes"}
    assert traces["codes"]["x"] == list(range(-7, 8))
    assert sum(traces["codes"]["y"]) == 800
    assert sum(traces["values"]["y"]) + traces["exactly zero"]["y"][0] == 800
    assert min(traces["points of the grid"]["y"]) < 0
    assert "10x80, 4 bits, symmetric, 10 scales, one for each channel." in figure.note


def test_panels_lie_one_above_the_other(tmp_path):
    layout = figures(runs.small(tmp_path, models=[{}, {}]))["b", "fc.weight"].layout
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]


def test_a_tensor_without_a_grid_says_so(tmp_path):
    figure = figures(runs.small(tmp_path))["a", "fc.weight"]
    assert set(by_name(figure)) == {"values"}
    assert "no grid, stored as f32" in figure.note


def test_zeros_that_would_hide_the_rest_are_cut_and_counted(tmp_path):
    figure = figures(runs.small(tmp_path, models=[{}, {}], shapes={"fc": (10, 80)}))["b", "fc.weight"]
    zeros = by_name(figure)["exactly zero"]["y"][0]
    assert figure.layout["yaxis"]["range"][1] < zeros
    assert figure.layout["annotations"][0]["text"] == f"exactly zero: {zeros} ({zeros / 8:.1f} %)"
    assert figure.note.endswith("The bar of zeros is cut at the top.")


def test_many_tensors_are_cut_and_the_page_says_so(tmp_path):
    shapes = {f"layer{i}": (2, 4 + i) for i in range(MOST_TENSORS + 5)}
    found = figures(runs.small(tmp_path, shapes=shapes))
    assert len(found) == MOST_TENSORS
    assert ("a", "layer0.weight") not in found
    assert all(f"The {MOST_TENSORS} largest of {MOST_TENSORS + 5} tensors" in figure.note for figure in found.values())


@pytest.mark.parametrize("net", [samples.lstm, samples.transformer, samples.conv_net])
def test_every_kind_of_tensor_has_one(tmp_path, net):
    told = runs.model(tmp_path, "a", net(), accuracy=0.5)
    found = figures(runs.put(tmp_path, runs.run([told])))
    assert {name for _, name in found} == {
        name for name, tensor in net().tensors.items() if not isinstance(tensor, Dense)
    }


def test_empty_tensors_and_indices_are_left_out(tmp_path):
    tensors = {
        "none": Dense(np.zeros((0, 4), np.float32)),
        "index": Dense(np.zeros((2, 2), np.int64), "i64"),
        "half": Dense(np.ones((2, 2), np.float16), "f16"),
    }
    told = runs.model(tmp_path, "a", samples.relu(tensors, parameters=4), accuracy=0.5)
    assert list(figures(runs.put(tmp_path, runs.run([told])))) == [("a", "half")]
