"""The rate of codes against its formula, code by code, in float64."""

import math

import pytest
import torch

from attar._src.methods.quantize.coded_rate import code_prices, interpolated_bits


def formula(at, low, high):
    """R and its gradient: (1 - f) c(floor v) + f c(ceil v), with c = log2(total / count), one added to each count."""
    clamped = [min(max(each, low), high) for each in at]
    counts = dict.fromkeys(range(low, high + 1), 1)
    for each in clamped:
        counts[round(each)] += 1
    total = sum(counts.values())
    bits = {code: math.log2(total / count) for code, count in counts.items()}
    below = [max(min(math.floor(each), high - 1), low) for each in clamped]
    slopes = [bits.get(code + 1, bits[code]) - bits[code] for code in below]
    value = sum(bits[code] + (v - code) * slope for v, code, slope in zip(clamped, below, slopes, strict=True))
    inside = [low <= v <= high for v in at]
    rounded = sum((count - 1) * bits[code] for code, count in counts.items())
    return value, [slope if each else 0.0 for slope, each in zip(slopes, inside, strict=True)], rounded


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (-1, 1), (-8, 7), (-128, 127)])
@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_rate_is_its_formula(low, high, count):
    draw = torch.Generator().manual_seed(count)
    at = torch.randn(count, generator=draw, dtype=torch.float64) * (high - low + 1) / 2
    at[: min(count, 2)] = torch.tensor([float(low), float(high)], dtype=torch.float64)[: min(count, 2)]
    at.requires_grad_()
    value, rounded = interpolated_bits(at, low, high)
    (gradient,) = torch.autograd.grad(3 * value, at)
    wanted, slopes, taken = formula(at.tolist(), low, high)
    assert float(value.detach()) == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert float(rounded) == pytest.approx(taken, rel=1e-12, abs=1e-12)
    assert not rounded.requires_grad
    torch.testing.assert_close(gradient, 3 * torch.tensor(slopes, dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_prices_nothing_else(value):
    """Guards prices that a broken weight makes of all others: the loss says what is wrong, if it is no number."""
    at = torch.tensor([value, 0.2, 1.4, 1.6], requires_grad=True)
    bits, rounded = interpolated_bits(at, -2, 2)
    assert bool(torch.isfinite(bits.detach())) == math.isinf(value)
    assert torch.isfinite(rounded)
    (gradient,) = torch.autograd.grad(bits, at)
    assert gradient[0] == 0
    assert torch.isfinite(gradient).all()


def test_no_codes_take_no_bits():
    bits, rounded = interpolated_bits(torch.empty(0, requires_grad=True), -2, 2)
    assert (float(bits.detach()), float(rounded)) == (0, 0)
    assert code_prices(torch.empty(0), -2, 2)[0].tolist() == [0] * 5
