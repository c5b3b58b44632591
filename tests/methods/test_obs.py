"""Remaining weights that make up for removed ones, against brute force in double precision."""

import itertools

import numpy as np
import pytest
import torch

from attar._src.methods.prune.scores import SCORES, ScoredWeight
from attar._src.methods.prune.units import PruningUnit, WeightRows
from attar._src.methods.prune.weights import row_pruning
from attar._src.methods.prune.weights.obs import remaining_rows, row_curvature, sweep
from attar._src.methods.prune.weights.row_pruning import RowPruning, SeenInputs
from attar._src.model.weights import Window


def correlated(groups=1, columns=6, seed=0, mixed=1.0):
    made = torch.Generator().manual_seed(seed)
    x = torch.randn((groups, 200, columns), generator=made, dtype=torch.float64)
    mixing = torch.randn((groups, columns, columns), generator=made, dtype=torch.float64)
    x = x @ (mixed * mixing + (1 - mixed) * torch.eye(columns))
    return 2 / 200 * x.mT @ x + 0.05 * torch.eye(columns, dtype=torch.float64)


def best(row, left, hessian):
    """The least error with these elements alone, and the row that has it: least squares on its square root."""
    root = np.linalg.cholesky(hessian).T
    found = np.zeros(len(row))
    found[left] = np.linalg.lstsq(root[:, left], root @ row, rcond=None)[0]
    return float((found - row) @ hessian @ (found - row) / 2), found


def error(rows, made, hessian):
    left = rows - made
    return (left * (left @ hessian)).sum(-1) / 2


def test_remaining_weights_are_the_least_squares():
    hessian, rows = correlated(2), torch.randn((2, 3, 6), dtype=torch.float64)
    pruned = torch.rand((2, 3, 6)) < 0.5
    made = remaining_rows(rows, pruned, hessian)
    for group, row in itertools.product(range(2), range(3)):
        left = (~pruned[group, row]).nonzero().flatten().numpy()
        _, wanted = best(rows[group, row].numpy(), left, hessian[group].numpy())
        np.testing.assert_allclose(made[group, row].numpy(), wanted, atol=1e-9)
        assert (made[group, row][pruned[group, row]] == 0).all()


def test_the_score_is_the_error_that_is_left():
    hessian, rows = correlated(), torch.randn((1, 2, 6), dtype=torch.float64)
    pruned = torch.zeros((1, 2, 6), dtype=torch.bool)
    pruned[0, 0, 2] = pruned[0, 1, 4] = True
    now = remaining_rows(rows, pruned, hessian)
    curvature = row_curvature(pruned, hessian)
    scores = SCORES["obs"].score(ScoredWeight(now, curvature=curvature))
    for row in range(2):
        before, _ = best(rows[0, row].numpy(), (~pruned[0, row]).nonzero().flatten().numpy(), hessian[0].numpy())
        for column in (~pruned[0, row]).nonzero().flatten().tolist():
            left = [j for j in range(6) if j != column and not pruned[0, row, j]]
            after, _ = best(rows[0, row].numpy(), left, hessian[0].numpy())
            assert float(scores[0, row, column]) == pytest.approx(after - before, rel=1e-6)


def pruner(update="obs", unit="weight", score="obs", shape=(1, 8)):
    rows = WeightRows(shape, Window(1, shape[1]))
    return RowPruning(rows, PruningUnit.parse(unit), SCORES[score], update, False, ScoredWeight(torch.zeros(shape)))


def seen(hessian):
    return SeenInputs(hessian, hessian.diagonal(dim1=1, dim2=2) / 2)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_one_by_one_it_is_near_the_best_of_all_masks(count, monkeypatch):
    """As many steps as elements are the optimal brain surgeon; all masks of a row are tried."""
    monkeypatch.setattr(row_pruning, "REMOVAL_STEPS", 8)
    ratios = []
    for seed in range(8):
        hessian = correlated(columns=8, seed=seed)
        value = torch.randn((1, 8), generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
        made, pruned = pruner().prune(value, count, seen(hessian))
        assert int(pruned.sum()) == count
        found = float(error(value, made, hessian[0])[0])
        masks = itertools.combinations(range(8), 8 - count)
        every = [best(value[0].numpy(), [*left], hessian[0].numpy())[0] for left in masks]
        assert found >= min(every) - 1e-9
        ratios.append((found + 1e-9) / (min(every) + 1e-9))
        assert found <= np.median(every)
    if count == 1:
        assert max(ratios) < 1 + 1e-6
    assert np.median(ratios) < 1.3


def test_updates_lose_less_one_after_the_other():
    shape = (16, 40)
    hessian = correlated(columns=40, seed=3, mixed=0.1)
    value = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    lost = {}
    for update, score in (("none", "l1"), ("none", "wanda"), ("obs", "l1"), ("sparsegpt", "obs"), ("obs", "obs")):
        made, pruned = pruner(update, score=score, shape=shape).prune(value, 320, seen(hessian))
        assert int(pruned.sum()) == 320
        assert (made[pruned] == 0).all()
        lost[update, score] = float(error(value, made, hessian[0]).sum())
    assert lost["obs", "obs"] < lost["sparsegpt", "obs"] < lost["none", "wanda"] < lost["none", "l1"], lost
    assert lost["obs", "obs"] < lost["obs", "l1"] < lost["none", "l1"], lost


def test_a_sweep_with_a_given_mask_is_sparsegpt():
    """Each column alone: the others behind it make up for it by the inverse of what remains (algorithm 1)."""
    hessian, rows = correlated(columns=7, seed=1), torch.randn((1, 3, 7), dtype=torch.float64)
    pruned = torch.rand((1, 3, 7), generator=torch.Generator().manual_seed(0)) < 0.5
    made = sweep(rows, hessian, lambda values, curvature, at: pruned[..., at], block=3)
    wanted = rows[0].clone()
    for column in range(7):
        inverse = torch.linalg.inv(hessian[0, column:, column:])
        lost = torch.where(pruned[0, :, column], wanted[:, column], 0.0)
        wanted[:, column:] -= lost[:, None] * inverse[0] / inverse[0, 0]
    np.testing.assert_allclose(made[0].numpy(), wanted.masked_fill(pruned[0], 0).numpy(), atol=1e-9)


@pytest.mark.parametrize("update", ["none", "obs", "sparsegpt"])
@pytest.mark.parametrize("unit", ["weight", "2:4", "2x1", "1x4"])
@pytest.mark.parametrize("score", [name for name in SCORES if name != "movement"])
def test_every_score_unit_and_update_prunes_the_exact_number(score, unit, update):
    shape = (8, 24)
    value = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    job = pruner(update, unit, score, shape)
    job = RowPruning(job.rows, job.unit, job.score, update, False, ScoredWeight(value, gradient=value + 1))
    units = job.unit.count(job.rows)
    count = round(0.5 * units)
    (made, pruned), (again, _) = (job.prune(value, count, seen(correlated(columns=24))) for _ in range(2))
    if score != "random":
        assert torch.equal(made, again)
    assert made.dtype == torch.float32
    assert made.shape == shape
    assert torch.isfinite(made).all()
    assert int(pruned.sum()) == 96
    assert torch.equal(made == 0, pruned)
    if unit == "2:4":
        assert ((~pruned).unflatten(1, (6, 4)).sum(-1) == 2).all()
    kept = ~pruned
    assert torch.equal(made[kept], value[kept]) == (update == "none")


def test_zeros_stay_and_count():
    value = torch.randn((4, 8))
    value[:, 3] = 0
    for update in ("none", "obs", "sparsegpt"):
        made, pruned = pruner(update, shape=(4, 8)).prune(value, 16, seen(correlated(columns=8)))
        assert pruned[:, 3].all()
        assert (made[:, 3] == 0).all()
        assert int(pruned.sum()) == 16


def test_inputs_that_are_never_there_go_first():
    hessian = correlated(columns=8)
    hessian[:, 5], hessian[:, :, 5] = 0, 0
    hessian[:, 5, 5] = 1e-6
    value = torch.randn((4, 8))
    _, pruned = pruner(shape=(4, 8)).prune(value, 4, seen(hessian))
    assert pruned[:, 5].all()
