"""The section of pruned models.

Guards zeros that are told as fewer multiplications, and models that are told to be pruned as their codes have zeros.
"""

import pytest
from tests.report import runs
from tests.report.test_sections import cells, told

from attar._src.report.pruning import pruned_by

RULE = {"stage": "finetune", "constraints": [{"name": "prune", "sparsity": 0.5}, {"name": "quantize"}]}
CHANNELS = {"stage": "prune_channels", "macs": [1000, 400], "parameters": [90, 50], "removed": {}}
LAYERS = {"stage": "prune_layers", "macs": [400, 100], "parameters": [50, 20], "removed": {}}


def test_a_row_for_each_pruned_model_beside_the_baseline(tmp_path):
    models = [{}, {"record": [CHANNELS, LAYERS, {"stage": "train"}]}, {"record": [RULE]}, {"record": []}]
    markup = told(runs.small(tmp_path, models=models))["pruning"]
    assert "multiplied like others" in markup
    dense, smaller, zeros = (cells(markup, name) for name in "abc")
    assert dense[:3] == ["nothing", "90", "90 (100.0 %)"]
    assert dense[-1] == "1.00×"
    assert (smaller[0], smaller[3]) == ("channels and layers", "100 of 1,000")
    assert (zeros[0], zeros[3]) == ("weights", "all")
    assert int(zeros[2].split()[0]) < 90
    assert zeros[-1] == "3.00×"
    assert ">d<" not in markup


def test_a_run_without_pruning_has_no_such_section(tmp_path):
    """The codes of a quantized model have zeros, too."""
    assert "pruning" not in told(runs.small(tmp_path, models=[{}, {"record": [{"stage": "quantize", "bits": 4}]}]))


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ((), []),
        (({"stage": "prune", "sparsity": 0.5},), ["weights"]),
        (({"stage": "prune_weights", "sparsity": 0.5}, RULE), ["weights"]),
        (({"stage": "train", "constraints": ["prune"]}, "text"), []),
    ],
)
def test_what_the_record_says(record, found):
    assert pruned_by(record) == found
