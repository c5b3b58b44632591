"""What every solver promises; parametrised over the registry."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Dense, round_to_grid
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.model.statistics import InputHessian
from attar._src.model.weights import Window

WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=7),
    elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=True),
)
GRANULARITIES = st.sampled_from([PerTensor(), PerChannel(), PerGroup(size=3), PerBucket(size=5)])
#: Solvers whose grids run from the least to the greatest, wherever zero lies.
SPANNING = ("minmax",)
SCHEMES = st.builds(Scheme, bits=st.integers(2, 8), symmetric=st.booleans(), granularity=GRANULARITIES)


@pytest.fixture(params=list(SOLVERS))
def solver(request):
    return SOLVERS[request.param]


def seen_by(solver, weight, seed=0):
    """Correlated inputs of a linear layer with this weight, as the statistics that a solver wants; None if none."""
    if not solver.inputs or not weight.size:
        return None
    assert solver.inputs == (InputHessian,)
    length = weight.size // weight.shape[0]
    rng = np.random.default_rng(seed)
    hessian = InputHessian(Window(1, length))
    hessian.add(torch.from_numpy(rng.normal(0.5, 1, (50, length)) @ rng.normal(size=(length, length))))
    return {InputHessian: hessian}


def solve(solver, weight, scheme):
    """As a stage calls a solver: with the statistics that it wants."""
    return solver.solve(weight, scheme, seen_by(solver, weight))


@settings(max_examples=25)
@given(weight=WEIGHTS, scheme=SCHEMES)
@pytest.mark.parametrize("name", list(SOLVERS))
def test_the_error_is_within_the_range_and_zero_stays_zero(name, weight, scheme):
    found = solve(SOLVERS[name], weight, scheme)
    assert found.shape == weight.shape
    dense = found.dense()
    assert np.isfinite(dense).all()
    reach = np.abs(weight).max(initial=0)
    assert np.abs(dense - weight).max(initial=0) <= reach * 1.01 + 1e-30
    if name not in SPANNING:
        assert (dense[weight == 0] == 0).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(size=9), PerBucket(size=16)])
def test_weights_on_a_full_grid_survive_exactly(solver, bits, granularity):
    rng = np.random.default_rng(bits)
    scheme = Scheme(bits=bits, granularity=granularity, symmetric=solver.name not in SPANNING)
    codes = rng.integers(scheme.qmin, scheme.qmax + 1, (8, 36)).astype(np.float32)
    # Every group reaches both ends, so its range is that of its grid.
    index = np.broadcast_to(granularity.index(codes.shape), codes.shape)
    for group in range(granularity.count(codes.shape)):
        places = np.argwhere(index == group)
        codes[tuple(places[0])], codes[tuple(places[1])] = scheme.qmin, scheme.qmax
    weight = codes * np.float32(0.25)
    assert np.array_equal(solve(solver, weight, scheme).dense(), weight)


@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_are_better(solver, symmetric):
    weight = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    errors = [
        float(((solve(solver, weight, Scheme(bits=bits, symmetric=symmetric)).dense() - weight) ** 2).mean())
        for bits in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(solver, value):
    with pytest.raises(SpecError, match="NaN or infinities"):
        solve(solver, np.array([[1.0, value]], np.float32), Scheme(bits=4))


def test_a_channel_of_zeros_and_denormals_has_a_scale(solver):
    weight = np.array([[0.0, 0.0], [1e-42, -1e-42], [1.0, 0.5]], np.float32)
    found = solve(solver, weight, Scheme(bits=4))
    assert np.isfinite(found.scale).all()
    assert (found.scale > 0).all() or solver.name in SPANNING
    assert found.dense()[2, 0] == pytest.approx(1.0, rel=0.2)


def test_an_empty_weight(solver):
    assert solve(solver, np.zeros((0, 3), np.float32), Scheme(bits=4)).shape == (0, 3)


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(size=9), PerBucket(size=16)])
def test_the_same_weight_gives_the_same_codes(solver, granularity):
    weight = np.random.default_rng(0).normal(size=(6, 18)).astype(np.float32)
    scheme = Scheme(bits=3, granularity=granularity)
    one, other = (solve(solver, weight.copy(), scheme) for _ in range(2))
    assert one.codes.tobytes() == other.codes.tobytes()
    assert one.scale.tobytes() == other.scale.tobytes()


@pytest.mark.parametrize("shape", [(1, 9), (5, 1), (1, 1)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_one_channel_and_one_input(solver, shape, symmetric):
    weight = np.linspace(-0.3, 1, shape[0] * shape[1]).reshape(shape).astype(np.float32)
    dense = solve(solver, weight, Scheme(bits=8, symmetric=symmetric)).dense()
    np.testing.assert_allclose(dense, weight, atol=0.02)


def test_a_constant_weight(solver):
    weight = np.full((4, 9), 0.75, np.float32)
    np.testing.assert_allclose(solve(solver, weight, Scheme(bits=4)).dense(), weight, rtol=0.02)


def test_mse_is_never_worse_than_absmax():
    weight = np.random.default_rng(0).standard_t(3, size=(8, 200)).astype(np.float32)
    for bits in (2, 3, 4):
        errors = {
            name: ((SOLVERS[name].solve(weight, Scheme(bits=bits)).dense() - weight) ** 2).sum() for name in SOLVERS
        }
        assert errors["mse"] < errors["absmax"]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in SPANNING])
def test_scales_are_powers_of_two_where_the_scheme_says_so(name, symmetric):
    """Guards the constraint in every solver: a single scale between two powers needs a multiplication."""
    weight = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    weight[3] = 0
    scheme = Scheme(bits=4, symmetric=symmetric, power_of_two=True)
    found = solve(SOLVERS[name], weight, scheme)
    assert (np.frexp(found.scale)[0] == 0.5).all()
    assert ((found.dense() - weight) ** 2).mean() < 0.05


def test_percentile_leaves_out_whole_weights_at_each_end():
    """Guards against a clip where a scale has too few weights for one to be left out."""
    weight = np.arange(-1000, 1001, dtype=np.float32)[None]
    found = SOLVERS["percentile"].solve(weight, Scheme(bits=8, symmetric=False)).dense()
    assert (found.min(), found.max()) == pytest.approx((-996, 996), abs=8)
    few = weight[:, 900:1100]
    scales = [SOLVERS[name].solve(few, Scheme(bits=8)).scale.tolist() for name in ("percentile", "absmax")]
    assert scales[0] == scales[1]


@pytest.mark.parametrize("symmetric", [True, False])
def test_hqq_lets_few_large_weights_not_decide(symmetric):
    """Guards the norm that is minimized, p = 0.7: of weights with heavy tails."""
    weight = np.random.default_rng(0).standard_t(2, size=(8, 64)).astype(np.float32)
    scheme = Scheme(bits=4, symmetric=symmetric, granularity=PerGroup(size=32))
    errors = {
        name: (np.abs(SOLVERS[name].solve(weight, scheme).dense() - weight) ** 0.7).sum() for name in ("hqq", "absmax")
    }
    assert errors["hqq"] < 0.99 * errors["absmax"]


@pytest.mark.parametrize("symmetric", [True, False])
def test_minmax_spans_each_bucket_from_its_least_to_its_greatest(symmetric):
    weight = np.array([1.0, 1.5, 2.4, 4.0, -2.0, 0.0, 7.0], np.float32)
    scheme = Scheme(bits=2, symmetric=symmetric, granularity=PerBucket(size=4))
    found = SOLVERS["minmax"].solve(weight, scheme)
    assert isinstance(found, Codebook)
    assert (found.scale.tolist(), found.offset.tolist()) == ([3, 9], [1, -2])
    assert found.codes.tolist() == [0, 0, 1, 3, 0, 1, 3]
    assert found.dense().tolist() == [1, 1, 2, 4, -2, 1, 7]


def test_absmax_puts_the_largest_weight_on_the_last_code():
    weight = np.array([[0.1, -0.7], [0.2, 0.1]], np.float32)
    found = SOLVERS["absmax"].solve(weight, Scheme(bits=4))
    assert found.codes.tolist() == [[1, -7], [7, 3]]
    assert found.scale.tolist() == [1.609375 / 16, 1.84375 / 64]  # 0.1 and 0.0286, rounded up to six binary digits


def test_asymmetric_absmax_spans_low_to_high():
    found = SOLVERS["absmax"].solve(
        np.array([-1.0, 0.0, 3.0], np.float32), Scheme(bits=2, symmetric=False, granularity=PerTensor())
    )
    assert found.scale.tolist() == [1.34375]
    assert found.zero_point.tolist() == [1]
    assert found.codes.tolist() == [0, 1, 3]


def test_a_users_own_solver(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "from attar.extend import Dense, Solver\n"
        "class Keep(Solver):\n"
        "    name = 'keep'\n"
        "    def solve(self, weight, scheme, inputs=None):\n"
        "        return Dense(np.ascontiguousarray(weight))\n"
        "keep = Keep()\n"
        "class Alien:\n"
        "    solve = Keep.solve\n"
    )
    for name in ("Keep", "keep"):
        assert isinstance(SOLVERS[f"{path}:{name}"].solve(np.ones((2, 2), np.float32), Scheme(bits=4)), Dense)
    with pytest.raises(SpecError, match=r"of class Alien; give a subclass of attar\.extend\.Solver"):
        SOLVERS[f"{path}:Alien"]


def test_rounding_is_half_to_even():
    scheme = Scheme(bits=4, granularity=PerTensor())
    codes = round_to_grid(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), np.ones(1, np.float32), None, scheme).codes
    assert codes.tolist() == [0, 2, 2, 0, -2]
