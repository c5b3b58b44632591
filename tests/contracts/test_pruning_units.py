"""What every unit and every scope of weight pruning must do: exact counts, patterns that hold, the lowest first."""

import numpy as np
import pytest
import torch

from attar._src.core.errors import SpecError
from attar._src.methods.prune.scopes import SCOPES, WeightUnits
from attar._src.methods.prune.units import PruningUnit, WeightRows, lowest
from attar._src.model.weights import Window

UNITS = ("weight", "1:2", "2:4", "3:8", "4x1", "1x4", "2x2", "3x5")
#: Linear, turned linear, convolution in two groups, transposed convolution, table.
WEIGHTS = {
    "linear": WeightRows((6, 8), Window(1, 8)),
    "turned": WeightRows((8, 6), Window(1, 8, turned=True)),
    "convolution": WeightRows((6, 8, 3, 3), Window(2, 72, (3, 3), (1, 1), (1, 1), (1, 1))),
    "transposed": WeightRows((8, 6, 2, 2), axis=1),
    "table": WeightRows((10, 8)),
}


def elements(rows, seed=0):
    return rows.rows(torch.rand(rows.shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", WEIGHTS)
def test_rows_and_weights_are_inverse(name):
    rows = WEIGHTS[name]
    value = torch.randn(rows.shape)
    assert torch.equal(rows.weight(rows.rows(value)), value)
    if rows.window is not None:
        assert np.array_equal(rows.window.rows(value.numpy()), rows.rows(value).numpy())


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("text", UNITS)
def test_units_cover_a_weight_and_their_number_is_exact(text, name):
    unit, rows = PruningUnit.parse(text), WEIGHTS[name]
    labels = unit.labels(rows)
    assert labels.unique().tolist() == list(range(unit.count(rows)))
    scores = unit.scores(elements(rows), rows, lambda sums: sums)
    assert scores.numel() == unit.count(rows)
    if unit.of:
        return
    for count in (0, 1, unit.count(rows) // 3, unit.count(rows) - 1):
        chosen = unit.lowest(scores, count)
        assert int(chosen.sum()) == count
        if count:
            assert scores[chosen].max() <= scores[~chosen].min()
        spread = unit.spread(chosen, rows)
        assert spread.shape == labels.shape
        assert all(len(spread[labels == each].unique()) == 1 for each in labels.unique())


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("text", ["1:2", "2:4", "3:8"])
def test_patterns_hold_along_the_input_channels(text, name):
    unit, rows = PruningUnit.parse(text), WEIGHTS[name]
    scores = unit.scores(elements(rows), rows, lambda sums: sums)
    pruned = rows.weight(unit.spread(unit.lowest(scores, round(unit.share * scores.numel())), rows))
    # The axis of the input channels, last.
    axis = {"linear": 1, "turned": 0, "convolution": 1, "transposed": 0, "table": 1}[name]
    along = (~pruned).movedim(axis, -1).unflatten(-1, (-1, unit.of)).sum(-1)
    assert (along == unit.keep).all()
    value = rows.weight(elements(rows))
    cut = value.movedim(axis, -1).unflatten(-1, (-1, unit.of))
    gone = pruned.movedim(axis, -1).unflatten(-1, (-1, unit.of))
    assert (cut.masked_fill(~gone, -1).amax(-1) <= cut.masked_fill(gone, 2).amin(-1)).all()


def test_a_block_of_a_convolution_is_at_one_place_of_the_kernel():
    rows = WEIGHTS["convolution"]
    labels = rows.weight(PruningUnit.parse("3x2").labels(rows))
    assert (labels[:3, :2, 1, 1] == labels[0, 0, 1, 1]).all()
    assert len(labels[0, 0].unique()) == 9
    assert labels[0, 0, 0, 0] != labels[3, 0, 0, 0]


def test_each_row_loses_the_same():
    rows, unit = WEIGHTS["linear"], PruningUnit.parse("weight")
    scores = torch.arange(48.0).reshape(1, 6, 8, 1)
    assert unit.lowest(scores, 18, each_row=True).sum((2, 3)).tolist() == [[3] * 6]
    assert unit.lowest(scores, 18).sum((2, 3)).tolist() == [[8, 8, 2, 0, 0, 0]]
    assert unit.count(rows) == 48


@pytest.mark.parametrize("text", ["", "2:2", "0:4", "4:2", "x", "0x4", "4x", "weights", "2:4:8"])
def test_units_that_are_none_are_refused(text):
    with pytest.raises(SpecError, match=r"unit .*(write|remain)"):
        PruningUnit.parse(text)


def test_a_pattern_needs_a_multiple_of_channels():
    rows = WeightRows((4, 3, 3, 3), Window(1, 27, (3, 3), (1, 1), (1, 1), (1, 1)))
    assert PruningUnit.parse("2:4").misfit(rows) == "its 3 input channels are no multiple of 4"
    assert not PruningUnit.parse("2:4").misfit(WEIGHTS["convolution"])
    assert not PruningUnit.parse("4x1").misfit(rows)


def test_the_first_of_equal_scores_go():
    assert lowest(torch.tensor([1.0, 0, 1, 0, 1]), 3).tolist() == [True, True, False, True, False]


@pytest.fixture(scope="module")
def weights():
    made = torch.Generator().manual_seed(0)
    found = {}
    for name, shape, scale in (("small", (4, 4), 3.0), ("wide", (8, 40), 1.0), ("kernel", (8, 4, 3, 3), 0.5)):
        value = scale * torch.randn(shape, generator=made)
        found[name] = WeightUnits(value.abs(), value.square(), shape)
    return found


@pytest.mark.parametrize("share", [0.0, 0.31, 0.5, 0.9])
@pytest.mark.parametrize("name", [*SCOPES])
def test_a_scope_prunes_the_share_of_all(name, share, weights):
    counts = SCOPES[name].counts(weights, share)
    sizes = {key: each.scores.numel() for key, each in weights.items()}
    assert counts.keys() == sizes.keys()
    assert all(0 <= counts[key] <= size for key, size in sizes.items())
    total, wanted = sum(counts.values()), share * sum(sizes.values())
    assert abs(total - wanted) <= (0.5 if SCOPES[name].ranks or name == "erdos_renyi" else 1.5)
    assert SCOPES[name].counts(weights, share) == counts
    assert SCOPES[name].counts({}, share) == {}


def test_scopes_are_those_of_their_papers(weights):
    values = {key: each.squares.flatten().double() for key, each in weights.items()}
    ranked = []
    for key, own in values.items():
        ordered = own.sort().values
        ranked += [(float(ordered[i] / ordered[i:].sum()), key) for i in range(len(ordered))]
    ranked.sort()
    pruned = ranked[: round(0.5 * len(ranked))]
    assert SCOPES["lamp"].counts(weights, 0.5) == {key: sum(of == key for _, of in pruned) for key in weights}
    together = sorted((float(each), key) for key, own in weights.items() for each in own.scores.flatten())
    lowest_half = together[: round(0.5 * len(together))]
    assert SCOPES["global"].counts(weights, 0.5) == {key: sum(of == key for _, of in lowest_half) for key in weights}
    counts = SCOPES["erdos_renyi"].counts(weights, 0.8)
    density = {key: 1 - counts[key] / each.scores.numel() for key, each in weights.items()}
    raw = {key: sum(each.shape) / each.scores.numel() for key, each in weights.items()}
    assert density["wide"] / density["kernel"] == pytest.approx(raw["wide"] / raw["kernel"], rel=0.05)
    assert density["small"] > density["wide"]
    assert SCOPES["erdos_renyi"].counts(weights, 0.3)["small"] == 0
