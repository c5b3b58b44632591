"""Random augmentations of training examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, PlainSerializer
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from attar._src.core.choice import spec_choice
from attar._src.core.errors import DataError, SpecError
from attar._src.core.registry import Registry, load_object
from attar._src.core.spec import Spec, reference_name


class Augmentation(Spec):
    """An augmentation in a recipe."""

    name: str


class Finite(Augmentation):
    """A choice among ``variants`` forms of a raw example, before preprocessing; variant 0 is the unchanged example.

    A teacher's outputs for each variant can be cached.
    """

    @property
    def variants(self) -> int:
        """The number of variants."""
        raise NotImplementedError

    def apply(self, x: Tensor, choice: Tensor) -> Tensor:
        """Return variant ``choice[i]``, int64 0 to ``variants - 1``, of each raw example ``x[i]`` of any type."""
        raise NotImplementedError


class Endless(Augmentation):
    """A random change of preprocessed inputs, a new one each time."""

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented inputs of the shape of ``x``, float ``(N, ...)``."""
        raise NotImplementedError


class Crop(Finite):
    """Random crop of the image's own size after zero padding: ``(2 padding + 1)^2`` variants (81 for padding 4).

    Padding 4 is usual for small photographs (He et al. 2016, "Deep residual learning for image recognition", section
    4.2). The *raw* image ``(N, ..., H, W)`` is padded, so the border is black, not the mean, as with torchvision's
    RandomCrop before ToTensor and Normalize.
    """

    name: Literal["crop"] = "crop"
    padding: Annotated[int, Field(ge=1)] = 4

    @property
    def variants(self) -> int:
        return (2 * self.padding + 1) ** 2

    def apply(self, x: Tensor, choice: Tensor) -> Tensor:
        height, width = _image(x, "crop")
        side = 2 * self.padding + 1
        # Variant 0 is the window in the centre; the others follow row by row and wrap around.
        place = (choice + self.variants // 2) % self.variants
        padded = torch.nn.functional.pad(x, [self.padding] * 4)
        # A view of every window, (N, side, side, ..., H, W); only the chosen ones are copied.
        windows = padded.unfold(-2, height, 1).unfold(-2, width, 1).movedim((-4, -3), (1, 2))
        return windows[torch.arange(len(x)), place // side, place % side]


class Flip(Finite):
    """Horizontal flip. Do not use it for digits or letters."""

    name: Literal["flip"] = "flip"

    @property
    def variants(self) -> int:
        return 2

    def apply(self, x: Tensor, choice: Tensor) -> Tensor:
        _image(x, "flip")
        return torch.where(choice.reshape(-1, *[1] * (x.dim() - 1)) == 1, x.flip(-1), x)


class Noise(Endless):
    """Gaussian noise on the preprocessed input: ``x + sd z``, z standard normal."""

    name: Literal["noise"] = "noise"
    sd: Annotated[float, Field(gt=0)] = 0.1

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.sd * torch.randn(x.shape, generator=generator, dtype=x.dtype)


class CutMix(Endless):
    """Paste a rectangle of another image of the batch, at the same position (Yun et al. 2019, "CutMix: regularization
    strategy to train strong classifiers with localizable features", section 3.1).

    It counters overfitting if a network is large for its data. With probability ``share`` an image ``(..., H, W)`` gets
    a rectangle of its own aspect ratio at a random position inside it, with an area uniform in 0 to ``area`` of the
    image and sides rounded down to whole pixels. The paper has ``area`` 1, lets rectangles cross the border, and mixes
    the labels of both images by area. Here targets do not change: with ``area`` of at most 0.5 the label is that of the
    larger part. A teacher that sees the mixed image gives the correct target, so the distillation loss should dominate
    (as with mixup in Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent", section
    3.1). Do not use it with per-pixel targets. Each rank mixes its own part of the batch.
    """

    name: Literal["cutmix"] = "cutmix"
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    area: Annotated[float, Field(gt=0, le=1)] = 0.5

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        height, width = _image(x, self.name)
        if min(height, width) < 2:
            raise DataError(f"cutmix is for images of 2x2 pixels and more; {height}x{width} arrived")
        n = len(x)
        mixed, area, down, across = torch.rand(4, n, generator=generator)
        side = torch.where(mixed < self.share, area * self.area, 0.0).sqrt()
        # Each image's partner is its successor in a random cycle, so never itself.
        circle = torch.randperm(n, generator=generator)
        other = torch.empty_like(circle).scatter_(0, circle, circle.roll(1))
        rows, columns = _band(side, down, height), _band(side, across, width)
        inside = (rows[:, :, None] & columns[:, None, :]).reshape(n, *[1] * (x.dim() - 3), height, width)
        return torch.where(inside, x[other], x)


class CustomAugmentation(Endless):
    """A user's own: ``file.py:name`` or a function ``(x, generator) -> x`` on preprocessed inputs ``(N, ...)``."""

    name: Annotated[str | SkipJsonSchema[Callable[..., Any]], PlainSerializer(reference_name)]  # type: ignore[assignment]

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        own = load_object(self.name) if isinstance(self.name, str) else self.name
        made = own(x, generator)
        if not isinstance(made, Tensor) or len(made) != len(x):
            said = f"{tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise SpecError(
                f"augmentation {reference_name(self.name)} returned {said} for inputs {tuple(x.shape)}; return a "
                "tensor with as many examples"
            )
        return made


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", Crop, Flip, Noise, CutMix)

if TYPE_CHECKING:
    AugmentationChoice = Augmentation
else:
    AugmentationChoice = spec_choice(AUGMENTATIONS, CustomAugmentation)


def count_variants(augment: Sequence[Augmentation]) -> int | None:
    """Return the number of variants of an example under all augmentations; None if one is endless."""
    return count_finite_variants(augment) if all(isinstance(each, Finite) for each in augment) else None


def count_finite_variants(augment: Sequence[Augmentation]) -> int:
    """Return the number of variants of an example under the finite augmentations."""
    return math.prod(each.variants for each in augment if isinstance(each, Finite))


def apply_finite(augment: Sequence[Augmentation], x: Tensor, choice: Tensor) -> Tensor:
    """Apply the finite augmentations of a list to raw examples ``(N, ...)``, in order.

    ``choice``, int64 ``(N,)`` below :func:`count_finite_variants`, is in mixed radix with the first augmentation as the
    lowest digit: for crop (81) then flip (2), 100 is crop 19 and flip 1.
    """
    for each in augment:
        if isinstance(each, Finite):
            x = each.apply(x, choice % each.variants)
            choice = choice // each.variants
    return x


def apply_endless(augment: Sequence[Augmentation], x: Tensor, generator: torch.Generator) -> Tensor:
    """Apply the endless augmentations of a list to preprocessed inputs ``(N, ...)``, in order."""
    for each in augment:
        if isinstance(each, Endless):
            x = each.draw(x, generator)
    return x


def _image(x: Tensor, what: str) -> tuple[int, int]:
    if x.dim() < 3:
        raise DataError(f"{what} is for images (N, ..., H, W); examples of shape {tuple(x.shape)} arrived")
    return x.shape[-2], x.shape[-1]


def _band(side: Tensor, place: Tensor, size: int) -> Tensor:
    """Return the mask ``(N, size)`` of bands of length ``side * size`` at the relative position ``place`` in 0 to 1."""
    length = (side * size).floor()
    start = (place * (size - length + 1)).floor()
    pixel = torch.arange(size)
    return (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
