"""What every augmentation owes."""

import pytest
import torch
from pydantic import TypeAdapter

from attar._src.core.errors import DataError, SpecError
from attar._src.train.augment import (
    AUGMENTATIONS,
    AugmentationChoice,
    Crop,
    CutMix,
    Finite,
    Flip,
    Noise,
    apply_endless,
    apply_finite,
    count_finite_variants,
    count_variants,
)

CHOICE = TypeAdapter(AugmentationChoice)
FINITE = [name for name in AUGMENTATIONS if issubclass(AUGMENTATIONS[name], Finite)]
ENDLESS = [name for name in AUGMENTATIONS if name not in FINITE]


def images(*shape, dtype=torch.uint8):
    # No zeros, so that padding and picture differ.
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def slow_crop(image, padding, choice):
    """One image, pixel by pixel."""
    side = 2 * padding + 1
    place = (choice + side * side // 2) % (side * side)
    down, right = place // side - padding, place % side - padding
    out = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                out[..., i, j] = image[..., i + down, j + right]
    return out


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_it_is_chosen_by_name_and_its_json_is_itself(name):
    spec = CHOICE.validate_python(name)
    assert spec == AUGMENTATIONS[name]()
    assert CHOICE.validate_python(CHOICE.dump_python(spec, mode="json")) == spec


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 6, 6)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_finite_one_makes_each_of_its_variants(name, shape, dtype):
    spec, image = AUGMENTATIONS[name](), images(1, *shape, dtype=dtype)
    every = spec.apply(image.expand(spec.variants, *shape), torch.arange(spec.variants))
    assert (every.dtype, every.shape) == (dtype, (spec.variants, *shape))
    assert torch.equal(every[:1], image)
    assert len({each.numpy().tobytes() for each in every}) == spec.variants
    few = torch.tensor([spec.variants - 1, 0])
    assert torch.equal(spec.apply(image.expand(2, *shape), few), every[few])
    assert spec.apply(image[:0], few[:0]).shape == (0, *shape)


@pytest.mark.parametrize("name", FINITE)
def test_a_finite_one_is_for_images(name):
    with pytest.raises(DataError, match=f"{name} is for images"):
        AUGMENTATIONS[name]().apply(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_one_is_as_its_generator_is(name):
    spec, x = AUGMENTATIONS[name](), torch.randn(4, 3, 5)
    once, again, other = (spec.draw(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert once.shape == x.shape
    assert once.dtype == x.dtype


@pytest.mark.parametrize("padding", [1, 2])
def test_crop_against_one_image_after_another(padding):
    crop = Crop(padding=padding)
    x = images(crop.variants, 2, 5, 4)
    choice = torch.randperm(crop.variants, generator=torch.Generator().manual_seed(1))
    slow = [slow_crop(image, padding, int(c)) for image, c in zip(x, choice, strict=True)]
    assert torch.equal(crop.apply(x, choice), torch.stack(slow))


def test_flip_exchanges_left_and_right():
    x = torch.tensor([[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]])
    assert Flip().apply(x, torch.tensor([0, 1])).tolist() == [[[[1, 2], [3, 4]]], [[[6, 5], [8, 7]]]]


def numbered(n, *shape):
    """Images each of one number, so that every pixel says whose it is."""
    return torch.arange(n, dtype=torch.float32).reshape(n, *[1] * len(shape)).expand(n, *shape)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (12, 20)])
def test_cutmix_pastes_one_rectangle_of_one_other_image_at_its_own_place(height, width):
    n = 64
    mine = numbered(n, 2, height, width)
    x = mine * 1e4 + torch.arange(height * width).reshape(height, width)
    made = CutMix(share=1).draw(x, torch.Generator().manual_seed(3))
    assert torch.equal(made % 1e4, x % 1e4)  # every pixel stays where it is
    whose = (made / 1e4).floor()
    assert torch.equal(whose[:, 0], whose[:, 1])
    pasted = whose[:, 0] != mine[:, 0]
    givers = {}
    for i in range(n):
        inside = pasted[i].nonzero()
        if not len(inside):
            continue
        (top, left), (bottom, right) = inside.amin(0).tolist(), inside.amax(0).tolist()
        assert pasted[i, top : bottom + 1, left : right + 1].all()
        assert len(inside) == (bottom + 1 - top) * (right + 1 - left)
        assert (bottom + 1 - top) / height == pytest.approx((right + 1 - left) / width, abs=1 / min(height, width))
        (givers[i],) = set(whose[i, 0][pasted[i]].tolist())
    assert len(givers) > n / 2
    assert len(set(givers.values())) == len(givers)  # nobody gives twice
    assert all(giver != i for i, giver in givers.items())


def test_cutmix_takes_the_share_of_images_and_the_area_asked_for():
    x = numbered(4000, 1, 32, 32)
    for share, area in ((0.5, 0.5), (0.25, 1.0)):
        made = CutMix(share=share, area=area).draw(x, torch.Generator().manual_seed(0))
        pasted = (made != x).float().mean((1, 2, 3))
        assert float(pasted.max()) <= area
        assert float(pasted.max()) > 0.9 * area
        # Sides are rounded down to whole pixels, so that small rectangles vanish and others lose a little.
        assert float((pasted > 0).float().mean()) == pytest.approx(share, rel=0.07)
        assert float(pasted[pasted > 0].mean()) == pytest.approx(area / 2, rel=0.07)
        covered = (made != x).float().mean((0, 1))
        assert torch.allclose(covered, covered.flip(-1), atol=0.03)
        assert torch.allclose(covered, covered.T, atol=0.03)


def test_cutmix_leaves_a_batch_of_one_and_refuses_what_is_no_image():
    x = images(1, 3, 8, 8, dtype=torch.float32)
    assert torch.equal(CutMix(share=1).draw(x, torch.Generator().manual_seed(0)), x)
    with pytest.raises(DataError, match="cutmix is for images"):
        CutMix().draw(torch.zeros(2, 3), torch.Generator())
    with pytest.raises(DataError, match="2x2 pixels and more; 1x100 arrived"):
        CutMix().draw(torch.zeros(2, 1, 1, 100), torch.Generator())
    assert CutMix(share=1).draw(x[:0], torch.Generator()).shape == (0, 3, 8, 8)


def test_cutmix_puts_rectangles_at_every_place_alike():
    x = numbered(30_000, 8, 8)
    made = CutMix(share=1, area=1).draw(x, torch.Generator().manual_seed(0)) != x
    four = made[made.sum((1, 2)) == 16]  # of 4x4 pixels
    corners = four.flatten(1).int().argmax(1)
    found = torch.bincount(corners, minlength=64).reshape(8, 8)
    assert int(found[5:].sum() + found[:, 5:].sum()) == 0
    # A share of (5/8)^2 - (4/8)^2 of all, in 25 places: 169 each, with a standard deviation of 13.
    assert float((found[:5, :5] - 168.75).abs().max()) < 5 * 13


def test_the_usual_crop_and_flip_are_162_variants_in_mixed_radix():
    both = (Crop(padding=4), Flip())
    assert count_variants(both) == count_finite_variants(both) == 162
    x = images(1, 3, 8, 8)
    every = apply_finite(both, x.expand(162, 3, 8, 8), torch.arange(162))
    assert len({each.numpy().tobytes() for each in every}) == 162
    expected = Flip().apply(Crop(padding=4).apply(x, torch.tensor([5])), torch.tensor([1]))
    assert torch.equal(every[81 + 5 : 81 + 6], expected)


def test_lists_with_endless_ones():
    mixed = (Noise(sd=0.5), Crop(padding=1), lambda x, generator: -x)
    mixed = tuple(CHOICE.validate_python(each) for each in mixed)
    assert count_variants(mixed) is None
    assert count_finite_variants(mixed) == 9
    assert count_variants(()) == 1
    x = torch.zeros(1000, 1, 4, 4)
    noisy = apply_endless(mixed, x, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, -apply_endless(mixed[:1], x, torch.Generator().manual_seed(0)))
    assert float(noisy.std()) == pytest.approx(0.5, rel=0.02)
    assert torch.equal(apply_finite(mixed, x + 1, torch.zeros(1000, dtype=torch.int64)), x + 1)


def test_a_users_own_by_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def half(x, generator):\n    return x[: len(x) // 2]\ndef twice(x, generator):\n    return 2 * x\n"
    )
    own = CHOICE.validate_python(f"{path}:twice")
    assert apply_endless((own,), torch.ones(2), torch.Generator()).tolist() == [2, 2]
    assert CHOICE.validate_python(CHOICE.dump_python(own, mode="json")) == own
    with pytest.raises(SpecError, match=r"half returned \(2, 3\) for inputs \(4, 3\)"):
        apply_endless((CHOICE.validate_python(f"{path}:half"),), torch.ones(4, 3), torch.Generator())
