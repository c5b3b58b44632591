import pytest
import torch
from torch import nn

from attar._src.core.errors import UnknownName
from attar._src.model.trace import trace
from attar._src.work.value_globs import layer_reading, matching_values


class Net(nn.Module):
    """Two layers that read one value, and one behind them."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = torch.tanh(x)
        return self.last(torch.relu(self.query(y) + self.key(y)))


@pytest.fixture(scope="module")
def graph():
    return trace(Net(), (torch.rand(2, 4),)).graph


@pytest.mark.parametrize(
    ("globs", "values"),
    [
        ((), set()),
        (("query",), {"tanh"}),
        (("key.weight", "last"), {"tanh", "relu"}),
        (("tan*",), {"tanh"}),
    ],
)
def test_values_by_layer_and_by_name(graph, globs, values):
    assert matching_values({"main": graph}, globs) == {"main": frozenset(values)}


def test_a_glob_may_match_in_one_graph_of_several(graph):
    other = trace(nn.Linear(4, 2), (torch.rand(2, 4),)).graph
    assert matching_values({"a": graph, "b": other}, ("query",)) == {"a": frozenset({"tanh"}), "b": frozenset()}


def test_a_glob_that_matches_nothing_lists_near_names(graph):
    with pytest.raises(UnknownName, match=r"'qeury'.*query"):
        matching_values({"main": graph}, ("last", "qeury"))


def test_the_layer_that_reads_a_value(graph):
    assert layer_reading(graph, ["tanh"]) == "query"
    assert layer_reading(graph, ["linear"]) == ""
