"""What every registered score of pruning must do."""

import pytest
import torch

from attar._src.methods.prune.scores import SCORES, ScoredWeight
from attar._src.methods.prune.units import PruningUnit, WeightRows


def scored(shape, seed=0):
    """A weight with all that a score may read."""
    made = torch.Generator().manual_seed(seed)
    value, gradient, movement = (torch.randn(shape, generator=made) for _ in range(3))
    squares, curvature, spread = (torch.rand(shape, generator=made) + 0.1 for _ in range(3))
    random = torch.Generator().manual_seed(3)
    return ScoredWeight(value, gradient, gradient.square() + spread, squares, curvature, movement, random)


@pytest.mark.parametrize("score", [SCORES[name] for name in SCORES], ids=list(SCORES))
def test_a_score_is_a_figure_for_each_element(score):
    for shape in [(3, 4), (2, 3, 3, 3), (0, 3), (1,)]:
        found = score.score(scored(shape))
        assert found.shape == shape
        assert torch.isfinite(found).all()
        assert torch.equal(score.score(scored(shape)), found)
        units = score.of_units(found)
        assert units.shape == shape
        if score.name != "movement":
            assert (units >= 0).all()


@pytest.mark.parametrize("name", [name for name in SCORES if name not in ("movement", "random")])
def test_what_is_zero_scores_zero(name):
    given = scored((3, 4))
    given.value[1] = 0
    assert (SCORES[name].score(given)[1] == 0).all()


@pytest.mark.parametrize("name", [*SCORES])
def test_what_is_not_seen_counts_as_one(name):
    value = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    found = SCORES[name].of_units(SCORES[name].score(ScoredWeight(value)))
    if name not in ("movement", "random"):
        assert torch.equal(found.flatten().argsort(), value.abs().flatten().argsort())


def test_formulas():
    given = ScoredWeight(
        value=torch.tensor([2.0, -3.0]),
        gradient=torch.tensor([0.5, 1.0]),
        gradient_squares=torch.tensor([0.25, 2.0]),
        squares=torch.tensor([4.0, 9.0]),
        curvature=torch.tensor([0.5, 2.0]),
        movement=torch.tensor([-1.0, 7.0]),
    )
    found = {name: SCORES[name].score(given).tolist() for name in SCORES if name != "random"}
    assert found == {
        "l1": [2, 3],
        "l2": [4, 9],
        "wanda": [4, 9],
        "obs": [1, 9],
        "taylor": [1, 18],
        "gradient_weight": [1, 3],
        "movement": [-1, 7],
    }


def test_first_order_changes_do_not_cancel_within_a_block():
    rows = WeightRows((2, 2))
    unit = PruningUnit.parse("2x1")
    value = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    given = ScoredWeight(value, gradient=torch.ones(2, 2), gradient_squares=torch.ones(2, 2))
    found = {
        name: unit.scores(rows.rows(SCORES[name].score(given)), rows, SCORES[name].of_units).flatten().tolist()
        for name in ("taylor", "gradient_weight")
    }
    assert found == {"taylor": [1, 4], "gradient_weight": [1, 2]}
