"""GPTQ against its definition, against every choice of codes of small problems, and on what stages give it."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.coding.entropy import entropy_bits
from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import round_to_grid
from attar._src.methods.quantize.ptq.solvers import columns, gptq
from attar._src.methods.quantize.ptq.solvers.absmax import Absmax
from attar._src.methods.quantize.ptq.solvers.code_grid import CodeGrid
from attar._src.methods.quantize.ptq.solvers.columns import HessianFactor, descend, round_columns
from attar._src.methods.quantize.ptq.solvers.gptq import Gptq, code_bits, damped, ordered_spans
from attar._src.methods.quantize.ptq.solvers.mse import Mse
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.statistics import InputHessian
from attar._src.model.trace import trace
from attar._src.model.weights import Window
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


def hessian_of(x, window=None):
    found = InputHessian(window or Window(1, x.shape[-1]))
    found.add(torch.as_tensor(x))
    return found


def correlated(count, length, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.3, 1, (count, length)) @ rng.normal(size=(length, length))


def cost(weight, tensor, matrix):
    error = weight.astype(np.float64) - tensor.dense()
    return np.einsum("ri,ij,rj->r", error, matrix, error)


def unit_grid(shape, bits=3):
    return CodeGrid(np.ones(shape), np.zeros(shape), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)


def test_the_factor_is_that_of_the_matrix():
    matrix = np.stack([damped(hessian_of(correlated(40, 7, seed)).matrix)[0] for seed in range(3)])
    factor = HessianFactor.of(matrix)
    np.testing.assert_allclose(factor.unit * factor.weights[:, None] @ factor.unit.mT, matrix, rtol=1e-10, atol=1e-9)
    assert np.array_equal(np.triu(factor.unit), factor.unit)
    # What GPTQ divides by: the diagonal of the inverse of the columns that are left.
    for start in range(7):
        inverse = np.linalg.inv(matrix[:, start:, start:])[:, 0, 0]
        np.testing.assert_allclose(factor.weights[:, start], 1 / inverse, rtol=1e-8)


@pytest.mark.parametrize("block", [1, 3, 32])
def test_it_is_the_algorithm_of_the_paper(block, monkeypatch):
    """Algorithm 1 with its inverse and Cholesky factor, weights updated after each column."""
    monkeypatch.setattr(columns, "_BLOCK", block)
    rng = np.random.default_rng(1)
    matrix = damped(hessian_of(correlated(30, 10)).matrix)
    weight = 2 * rng.normal(size=(1, 10, 6))
    grid = unit_grid(weight.shape)
    rows, upper = weight[0].T.copy(), np.linalg.cholesky(np.linalg.inv(matrix[0])).T
    wanted = np.empty_like(rows)
    for column in range(10):
        wanted[:, column] = np.clip(np.rint(rows[:, column]), -3, 3)
        error = (rows[:, column] - wanted[:, column]) / upper[column, column]
        rows[:, column:] -= error[:, None] * upper[column, column:]
    codes, errors = round_columns(weight, grid, HessianFactor.of(matrix))
    assert np.array_equal(codes[0].T, wanted)
    left = weight[0].T - wanted
    np.testing.assert_allclose(errors[0].sum(0), np.einsum("ri,ij,rj->r", left, matrix[0], left), rtol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_against_every_choice_of_codes(seed):
    """Three or four columns, all codes tried: between the best and rounding to nearest, and near the best."""
    length, bits = (3, 3) if seed % 2 else (4, 2)
    matrix = damped(hessian_of(correlated(40, length, seed)).matrix)
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(1, length, 20)) * 2 ** (bits - 1) / 2
    grid = unit_grid(weight.shape, bits)
    every = np.array(list(product(range(grid.low, grid.high + 1), repeat=length)), np.float64)
    left = weight[0].T[:, None] - every
    best = np.einsum("rci,ij,rcj->rc", left, matrix[0], left).min(1)

    def costs(codes):
        error = (weight - codes)[0]
        return np.einsum("ir,ij,jr->r", error, matrix[0], error)

    rounded, _ = round_columns(weight, grid, HessianFactor.of(matrix))
    found, nearest = costs(descend(weight, rounded, grid, matrix, 10)), costs(grid.nearest(weight, slice(None)))
    assert (found >= best - 1e-9).all()
    assert found.sum() <= costs(rounded).sum() <= nearest.sum()
    assert found.sum() <= 1.35 * best.sum()


def test_descending_ends_where_no_single_code_could_be_better():
    matrix = damped(hessian_of(correlated(40, 8)).matrix)
    weight = np.random.default_rng(0).normal(size=(1, 8, 5)) * 2
    grid = unit_grid(weight.shape)
    codes = descend(weight, grid.nearest(weight, slice(None)), grid, matrix, 50)

    def costs(each):
        return np.einsum("gir,gij,gjr->r", weight - each, matrix, weight - each)

    for column, step in product(range(8), (-1, 1)):
        other = codes.copy()
        other[:, column] = np.clip(other[:, column] + step, -3, 3)
        assert (costs(other) >= costs(codes) - 1e-9).all()


GRANULARITIES = [PerChannel(), PerTensor(), PerGroup(size=6), PerGroup(size=7), PerBucket(size=10), PerBucket(size=48)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_outputs_are_better_than_with_the_weight_alone(granularity, symmetric):
    weight = np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)
    hessian = hessian_of(correlated(200, 24))
    scheme = Scheme(bits=3, granularity=granularity, symmetric=symmetric)
    found = Gptq().solve(weight, scheme, {InputHessian: hessian})
    assert found.scheme == scheme
    other = min(cost(weight, each.solve(weight, scheme), hessian.matrix[0]).sum() for each in (Absmax(), Mse()))
    assert cost(weight, found, hessian.matrix[0]).sum() < 0.8 * other


def test_spans_follow_the_scales():
    diagonal = np.array([[1.0, 9, 2, 3, 8, 7]])

    def spans(granularity):
        index = np.broadcast_to(granularity.index((2, 6)), (2, 6)).T[None]
        return [span.tolist() for span in ordered_spans(index, diagonal)]

    assert spans(PerChannel()) == spans(PerTensor()) == spans(PerBucket(size=4)) == [[[1, 4, 5, 3, 2, 0]]]
    assert spans(PerGroup(size=2)) == [[[4, 5]], [[1, 0]], [[3, 2]]]
    assert spans(PerGroup(size=4)) == [[[4, 5]], [[1, 3, 2, 0]]]


def test_inputs_that_are_always_zero_leave_their_columns_rounded_to_nearest():
    x = correlated(100, 6)
    x[:, [1, 4]] = 0
    weight = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    scheme = Scheme(bits=4)
    found = Gptq().solve(weight, scheme, {InputHessian: hessian_of(x)})
    nearest = round_to_grid(weight, found.scale, None, scheme)
    assert np.array_equal(found.codes[:, [1, 4]], nearest.codes[:, [1, 4]])


def test_a_hessian_of_zeros_rounds_to_nearest_as_mse():
    weight = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    found = Gptq().solve(weight, Scheme(bits=3), {InputHessian: hessian_of(np.zeros((4, 12)))})
    assert np.array_equal(found.codes, round_to_grid(weight, found.scale, None, found.scheme).codes)
    error = ((found.dense() - weight) ** 2).sum()
    assert error <= 1.02 * ((Mse().solve(weight, Scheme(bits=3)).dense() - weight) ** 2).sum()


def test_fewer_inputs_than_columns():
    weight, x = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32), correlated(4, 30)
    hessian = hessian_of(x)
    found = Gptq().solve(weight, Scheme(bits=4), {InputHessian: hessian})
    nearest = Absmax().solve(weight, Scheme(bits=4))
    assert cost(weight, found, hessian.matrix[0]).sum() < 0.3 * cost(weight, nearest, hessian.matrix[0]).sum()


def test_pruned_weights_stay_zero_and_the_others_make_up_for_them():
    weight = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    weight[np.abs(weight) < 0.7] = 0
    hessian = hessian_of(correlated(100, 20))
    for symmetric in (True, False):
        scheme = Scheme(bits=3, symmetric=symmetric)
        found = Gptq().solve(weight, scheme, {InputHessian: hessian})
        assert (found.dense()[weight == 0] == 0).all()
        assert (
            cost(weight, found, hessian.matrix[0]).sum()
            < cost(weight, Mse().solve(weight, scheme), hessian.matrix[0]).sum()
        )


def test_without_statistics_it_is_mse():
    weight = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    found, other = (each.solve(weight, Scheme(bits=3)) for each in (Gptq(), Mse()))
    assert np.array_equal(found.codes, other.codes)


def test_groups_of_a_convolution_are_solved_as_if_each_were_alone():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 2, 3, 3)).astype(np.float32)
    window = Window(2, 18, (3, 3), (1, 1), (1, 1), (1, 1))
    x = rng.normal(size=(6, 4, 7, 7)).astype(np.float32)
    whole = hessian_of(x, window)
    found = Gptq().solve(weight, Scheme(bits=3), {InputHessian: whole})
    for group in range(2):
        part = hessian_of(x[:, 2 * group : 2 * group + 2], Window(1, 18, (3, 3), (1, 1), (1, 1), (1, 1)))
        rows = slice(4 * group, 4 * group + 4)
        alone = Gptq().solve(weight[rows], Scheme(bits=3), {InputHessian: part})
        assert np.array_equal(found.codes[rows], alone.codes)
        assert np.array_equal(found.scale[rows], alone.scale)


def entropy(codes):
    return entropy_bits(np.bincount(codes.reshape(-1).astype(int) + 128, minlength=256))


def test_a_rate_trades_errors_for_bits():
    """Of several weights together, as the search of scales is off by some percent for one."""
    weights = np.random.default_rng(0).normal(size=(6, 32, 40)).astype(np.float32)
    hessian = hessian_of(correlated(300, 40))

    def solved(rate, bits):
        tensors = [Gptq().at_rate(rate).solve(each, Scheme(bits=bits), {InputHessian: hessian}) for each in weights]
        costs = [cost(each, made, hessian.matrix[0]).sum() for each, made in zip(weights, tensors, strict=True)]
        return sum(entropy(each.codes) for each in tensors), sum(costs)

    bits, errors = zip(*(solved(rate, 4) for rate in (0, 1e-6, 1e-5, 1e-4)), strict=True)
    assert list(bits) == sorted(bits, reverse=True)
    assert list(errors) == sorted(errors)
    assert bits[-1] < 0.75 * bits[0]
    # At the same error it takes fewer bits than a grid of fewer bits does.
    assert all(priced < nearest for priced, nearest in zip(solved(2.3e-5, 4), solved(0, 3), strict=True))


def test_the_code_that_is_chosen_is_the_best_of_those_compared():
    rng = np.random.default_rng(0)
    aims, prices = rng.normal(size=(1, 50)) * 2, rng.uniform(0, 3, 7)
    grid = CodeGrid(np.ones((1, 1, 50)), np.zeros((1, 1, 50)), -3, 3, prices)
    codes = grid.choose(aims, 0, np.full((1, 1), 2.0))
    for aim, code in zip(aims[0], codes[0], strict=True):
        nearest = np.clip(np.rint(aim), -3, 3)
        among = {nearest, max(nearest - 1, -3), min(nearest + 1, 3), 0.0}
        assert code == min(among, key=lambda q: 2 * (aim - q) ** 2 + prices[int(q) + 3])


def test_bits_of_codes():
    scheme = Scheme(bits=2)
    bits = code_bits(np.array([[0, 0, 0, 1]]), scheme)
    np.testing.assert_allclose(bits, -np.log2(np.array([0.5, 3.5, 1.5]) / 5.5))


def test_a_stage_shares_one_rate_among_layers_and_others_refuse_it():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 8))
    model = CompressedModel.of(trace(net, (torch.zeros(2, 12),)))
    real = Context(CalibrationInputs(((torch.randn(200, 12),),)))
    plain, priced = (PostTrainingQuantize(scales="gptq", rate=rate).run(model, real) for rate in (0, 0.01))
    size = {name: plain.tensors[name].codes.size for name in ("0.weight", "2.weight")}
    assert all(entropy(priced.tensors[name].codes) < entropy(plain.tensors[name].codes) for name in size)
    assert priced.record[0]["rate"] == 0.01
    # The price of a bit does not depend on which other weights are chosen.
    alone = PostTrainingQuantize(scales="gptq", rate=0.01, layers=("0",)).run(model, real)
    assert np.array_equal(alone.tensors["0.weight"].codes, priced.tensors["0.weight"].codes)
    with pytest.raises(SpecError, match="solver 'mse' minimizes no bits; use gptq"):
        PostTrainingQuantize(scales="mse", rate=0.01).run(model, real)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.up, self.head = nn.Embedding(9, 6), nn.ConvTranspose1d(6, 6, 2), nn.Linear(6, 9)

    def forward(self, x):
        return self.head(torch.relu(self.up(self.table(x).transpose(1, 2))).transpose(1, 2))


def test_what_it_cannot_see_is_rounded_without_and_told():
    torch.manual_seed(0)
    model = CompressedModel.of(trace(Words(), (torch.zeros(16, 5, dtype=torch.int64),)))
    tokens = CalibrationInputs(((torch.randint(9, (16, 5)),),))
    done = PostTrainingQuantize(scales="gptq", bits=3).run(model, Context(tokens))
    assert done.tensors.keys() >= {"table.weight", "up.weight", "head.weight"}
    assert done.record[0]["without_inputs"] == ["up.weight"]
    (warning,) = done.warnings
    assert "'gptq' rounded without seeing what they multiply: 'up.weight' (it is read by" in warning
    plain = PostTrainingQuantize(scales="mse", bits=3).run(model, Context(tokens))
    assert np.array_equal(done.tensors["up.weight"].codes, plain.tensors["up.weight"].codes)
    for name in ("table.weight", "head.weight"):
        assert not np.array_equal(done.tensors[name].codes, plain.tensors[name].codes)


def test_a_rate_counts_without_inputs_too():
    """Guards against a table whose codes cost what they did, though its file was to be smaller."""
    torch.manual_seed(0)
    weight = torch.randn(30, 8).numpy()
    for granularity in (PerChannel(), PerTensor()):
        scheme = Scheme(bits=4, granularity=granularity)
        costs = []
        for rate in (0.0, 3e-5, 1e-3):
            tensor = Gptq().at_rate(rate).solve(weight, scheme)
            error = float(np.square(weight - tensor.dense()).sum() / np.square(weight).sum())
            costs.append((entropy(tensor.codes), -error))
        assert costs == sorted(costs, reverse=True)
        assert costs[2][0] < 0.9 * costs[0][0]
    plain, priceless = Mse().solve(weight, scheme), Gptq().solve(weight, scheme)
    assert np.array_equal(plain.codes, priceless.codes)


def table_of(kind):
    """Return weights ``(3000, 8)`` whose rows differ."""
    rng = np.random.default_rng(0)
    if kind == "heavy tails":
        return rng.standard_t(4, (3000, 8)).astype(np.float32)
    weight = rng.normal(size=(3000, 8)).astype(np.float32)
    # In order of size, or every third row strong, as those of a transposed convolution.
    return weight * (np.linspace(0.2, 2, 3000) if kind == "sizes" else np.tile([0.05, 0.05, 1], 1000))[:, None].astype(
        "f4"
    )


@pytest.mark.parametrize("granularity", [PerChannel(axis=0), PerTensor()])
@pytest.mark.parametrize("kind", ["sizes", "periods", "heavy tails"])
@pytest.mark.parametrize(("bits", "rate"), [(4, 1e-6), (2, 1e-5), (4, 1e-9)])
def test_prices_of_a_table_are_those_of_some_rows(monkeypatch, granularity, kind, bits, rate):
    """Guards against a table whose codes cost more, or err more, because only some of its rows told the prices."""
    weight, scheme = table_of(kind), Scheme(bits=bits, granularity=granularity)
    hessian, found = hessian_of(correlated(100, 8)), []
    signal = np.einsum("ri,ij,rj->", weight, hessian.matrix[0], weight)
    for rows, price in ((3000, rate), (200, rate), (200, 0.0)):
        monkeypatch.setattr(gptq, "PRICING_ROWS", rows)
        made = Gptq(price).solve(weight, scheme, {InputHessian: hessian})
        error = cost(weight, made, hessian.matrix[0]).sum() / signal
        found.append((error + rate * entropy(made.codes) * weight.size, error))
    (whole, _), (sampled, error), (_, nearest) = found
    # Where bits cost next to nothing, the one search of all rows errs some percent more than three after another.
    assert sampled < (1.05 if rate == 1e-9 else 1.02) * whole
    if rate == 1e-9:
        assert error < 1.05 * nearest, "no error is added beside what bits save"


@pytest.mark.parametrize("granularity", [PerChannel(axis=0), PerGroup(axis=0, size=8), PerTensor()])
def test_rows_are_rounded_in_parts_as_they_are_together(monkeypatch, granularity):
    """Guards against scales and zero points of one part of the rows that are lost, or taken for those of another."""
    weight = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    scheme = Scheme(bits=3, symmetric=False, granularity=granularity)
    found, hessian = [], {InputHessian: hessian_of(correlated(100, 16))}
    for rows, threads in ((100, 1), (16, 1), (16, 3)):
        monkeypatch.setattr(gptq, "ROUNDED_ROWS", rows)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append([Gptq(rate).solve(weight, scheme, hessian) for rate in (0.0, 1e-4)])
    for whole, parts, threaded in zip(*found, strict=True):
        for name in ("codes", "scale", "zero_point"):
            assert np.array_equal(getattr(whole, name), getattr(parts, name))
            assert np.array_equal(getattr(parts, name), getattr(threaded, name))
