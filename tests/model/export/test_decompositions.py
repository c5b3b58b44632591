import pytest
import torch
from torch.nn import functional

from attar._src.model.export import decompositions

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(3, 7, 10, generator=GENERATOR)
TABLE = torch.randn(12, 5, generator=GENERATOR)
IDS = torch.randint(0, 12, (6, 4), generator=GENERATOR)
IDS[0] = 3
MODES = {0: "sum", 1: "mean", 2: "max"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [None, -1, 3])
def test_bags(mode, padding):
    known = None if padding == -1 else padding
    weights = torch.rand(6, 4) if mode == 0 else None
    wanted = functional.embedding_bag(IDS, TABLE, mode=MODES[mode], padding_idx=known, per_sample_weights=weights)
    torch.testing.assert_close(decompositions.bags_of_rows(TABLE, IDS, mode, weights, padding)[0], wanted)
    flat, starts = IDS.flatten(), torch.tensor([0, 2, 2, 9, 24])
    flat_weights = None if weights is None else weights.flatten()
    for last in (False, True):
        wanted = functional.embedding_bag(
            flat,
            TABLE,
            starts,
            mode=MODES[mode],
            padding_idx=known,
            per_sample_weights=flat_weights,
            include_last_offset=last,
        )
        torch.testing.assert_close(
            decompositions.bags(TABLE, flat, starts, mode, flat_weights, last, padding)[0], wanted
        )


@pytest.mark.parametrize("shape", [(3, 7, 10), (3, 7), (3,)])
def test_one_value_under_a_mask(shape):
    mask, value = torch.rand(shape) > 0.5, torch.tensor([2.5])
    wanted = X.clone()
    wanted[mask] = 2.5
    assert torch.equal(decompositions.put(X, mask, value), wanted)


def test_one_value_under_a_mask_of_the_last_axes():
    mask, wanted = torch.rand(X.shape[1:]) > 0.5, X.clone()
    wanted[:, mask] = 2.5
    assert torch.equal(decompositions.put(X, mask, torch.tensor([2.5]), 1), wanted)


@pytest.mark.parametrize("dim", [-1, 1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_order_statistics(dim, keepdim):
    for found, wanted in (
        (decompositions.median(X, dim, keepdim), X.median(dim, keepdim)),
        (decompositions.kth(X, 2, dim, keepdim), X.kthvalue(2, dim, keepdim)),
    ):
        assert torch.equal(found[0], wanted.values)
        assert torch.equal(found[1], wanted.indices)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances(p):
    other = X[:, :4] + 1
    torch.testing.assert_close(decompositions.distances(X, other, p), torch.cdist(X, other, p))


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "padding", "stride"),
    [
        ((8, 8), (2, 2), (1, 1), (0, 0), (2, 2)),
        ((9, 7), (3, 2), (1, 2), (1, 1), (2, 1)),
        ((10, 11), (3, 3), (1, 1), (0, 0), (2, 3)),
    ],
)
def test_columns_to_an_image(size, kernel, dilation, padding, stride):
    image = torch.randn(2, 3, *size, generator=GENERATOR)
    columns = functional.unfold(image, kernel, dilation, padding, stride)
    wanted = functional.fold(columns, size, kernel, dilation, padding, stride)
    torch.testing.assert_close(
        decompositions.columns_to_image(columns, size, kernel, dilation, padding, stride), wanted
    )
    torch.testing.assert_close(
        decompositions.columns_to_image(columns[0], size, kernel, dilation, padding, stride), wanted[0]
    )


def test_maxima_of_uneven_windows():
    assert torch.equal(decompositions.adaptive_maximum(X, (3,))[0], functional.adaptive_max_pool1d(X, 3))
    assert torch.equal(decompositions.adaptive_maximum(X, (3, 4))[0], functional.adaptive_max_pool2d(X, (3, 4)))
