"""Augmentations: what is done to examples at random while training.

Finite ones choose among a counted number of variants and act on raw examples, before these are prepared as inputs; what
a teacher says of each variant can be kept. Endless ones act on prepared inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, field_serializer
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from attar._src.core.choice import spec_choice
from attar._src.core.errors import DataError, SpecError
from attar._src.core.registry import Registry, load_object
from attar._src.core.spec import Spec


class Augmentation(Spec):
    """An augmentation in a recipe."""

    name: str


class Finite(Augmentation):
    """One that makes a counted number of variants of an example; variant 0 is the example as it is."""

    @property
    def variants(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def apply(self, x: Tensor, choice: Tensor) -> Tensor:
        """Return variant ``choice[i]`` of each example ``x[i]``.

        Args:
            x: raw examples ``(n, ...)``, of any type.
            choice: int64 ``(n,)``, 0 to ``variants - 1``.
        """
        raise NotImplementedError


class Endless(Augmentation):
    """One that draws anew each time."""

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return inputs like ``x``, float ``(n, ...)``, changed as ``generator`` says."""
        raise NotImplementedError


class Crop(Finite):
    """A window as large as the image from the image with ``padding`` raw zeros on every side: ``(2 padding + 1)^2``.

    The usual augmentation of small photographs, with 4 (He et al. 2016, "Deep residual learning for image
    recognition", section 4.2). Padding is put around the *raw* image: it is black, not the mean, as in torchvision when
    RandomCrop comes before ToTensor and Normalize. Images are ``(n, ..., height, width)``.
    """

    name: Literal["crop"] = "crop"
    padding: Annotated[int, Field(ge=1)] = 4

    @property
    def variants(self) -> int:
        """One for each place of the window; place 0 is the middle, the others follow row by row and start over."""
        return (2 * self.padding + 1) ** 2

    def apply(self, x: Tensor, choice: Tensor) -> Tensor:
        """Return each image moved by its choice."""
        height, width = _image(x, "crop")
        side = 2 * self.padding + 1
        place = (choice + self.variants // 2) % self.variants
        padded = torch.nn.functional.pad(x, [self.padding] * 4)
        # Every window as a view, (n, ..., side, side, height, width); only the chosen ones are copied.
        windows = padded.unfold(-2, height, 1).unfold(-2, width, 1).movedim((-4, -3), (1, 2))
        return windows[torch.arange(len(x)), place // side, place % side]


class Flip(Finite):
    """The image or its mirror image, left and right exchanged. Not for digits or letters."""

    name: Literal["flip"] = "flip"

    @property
    def variants(self) -> int:
        """Two: as it is, mirrored."""
        return 2

    def apply(self, x: Tensor, choice: Tensor) -> Tensor:
        """Return each image, mirrored where its choice is 1."""
        _image(x, "flip")
        return torch.where(choice.reshape(-1, *[1] * (x.dim() - 1)) == 1, x.flip(-1), x)


class Noise(Endless):
    """Gaussian noise on every number of the prepared input: ``x + sd z``, z standard normal."""

    name: Literal["noise"] = "noise"
    sd: Annotated[float, Field(gt=0)] = 0.1

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noisy inputs."""
        return x + self.sd * torch.randn(x.shape, generator=generator, dtype=x.dtype)


class CutMix(Endless):
    """A rectangle of another image of the batch pasted in, at the same place (Yun et al. 2019, "CutMix: regularization
    strategy to train strong classifiers with localizable features", section 3.1).

    Against learning the training images by heart, where a network is large for its data. With probability ``share`` an
    image gets a rectangle of its own proportions that lies inside it, anywhere; its share of the image is uniform in 0
    to ``area``, sides rounded down to whole pixels. The paper has ``area`` 1, lets rectangles reach over the border,
    and weighs the labels of both images by their shares. Here targets stay as they are: with ``area`` 0.5 at most, one
    label for each image is that of its larger part. What tells the truth about such an image is a teacher that sees it
    too, so let one have most of the loss (as with mixup, which blends whole images, in Beyer et al. 2022, "Knowledge
    distillation: a good teacher is patient and consistent", section 3.1). Not for a target for each pixel.

    Images are ``(n, ..., height, width)``. The other image is one of the same rank's part of the batch; where that is
    alone, it stays as it is.
    """

    name: Literal["cutmix"] = "cutmix"
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    area: Annotated[float, Field(gt=0, le=1)] = 0.5

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images, a ``share`` of them on average with a rectangle of another one."""
        height, width = _image(x, self.name)
        if min(height, width) < 2:
            raise DataError(f"cutmix is for images of 2x2 pixels and more; {height}x{width} arrived")
        n = len(x)
        mixed, area, down, across = torch.rand(4, n, generator=generator)
        side = torch.where(mixed < self.share, area * self.area, 0.0).sqrt()
        # The other image of each is its neighbour in a circle in random order: never itself.
        circle = torch.randperm(n, generator=generator)
        other = torch.empty_like(circle).scatter_(0, circle, circle.roll(1))
        rows, columns = _band(side, down, height), _band(side, across, width)
        inside = (rows[:, :, None] & columns[:, None, :]).reshape(n, *[1] * (x.dim() - 3), height, width)
        return torch.where(inside, x[other], x)


class CustomAugmentation(Endless):
    """A user's own: ``file.py:name`` or a function ``(x, generator) -> x`` on prepared inputs ``(n, ...)``."""

    name: str | SkipJsonSchema[Callable[..., Any]]  # type: ignore[assignment]

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return what the user's own makes of ``x``."""
        own = load_object(self.name) if isinstance(self.name, str) else self.name
        made = own(x, generator)
        if not isinstance(made, Tensor) or len(made) != len(x):
            said = f"{tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise SpecError(f"augmentation {self._written(self.name)} made {said} of inputs {tuple(x.shape)}")
        return made

    @field_serializer("name")
    def _written(self, name: Any) -> str:
        return (
            name if isinstance(name, str) else f"{name.__module__}:{getattr(name, '__qualname__', type(name).__name__)}"
        )


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", Crop, Flip, Noise, CutMix)

if TYPE_CHECKING:
    AugmentationChoice = Augmentation
else:
    AugmentationChoice = spec_choice(AUGMENTATIONS, CustomAugmentation)


def count_variants(augment: Sequence[Augmentation]) -> int | None:
    """Return how many variants a list of augmentations makes of an example; None where they are endless."""
    if any(not isinstance(each, Finite) for each in augment):
        return None
    return count_finite_variants(augment)


def count_finite_variants(augment: Sequence[Augmentation]) -> int:
    """Return how many variants the finite ones of a list make together."""
    return math.prod(each.variants for each in augment if isinstance(each, Finite))


def apply_finite(augment: Sequence[Augmentation], x: Tensor, choice: Tensor) -> Tensor:
    """Apply the finite augmentations of a list to raw examples, in order.

    Args:
        augment: the list.
        x: raw examples ``(n, ...)``.
        choice: int64 ``(n,)``, below :func:`choices`: a number in mixed radix, the first augmentation its last digit.
    """
    for each in augment:
        if isinstance(each, Finite):
            x = each.apply(x, choice % each.variants)
            choice = choice // each.variants
    return x


def apply_endless(augment: Sequence[Augmentation], x: Tensor, generator: torch.Generator) -> Tensor:
    """Apply the endless augmentations of a list to prepared inputs ``(n, ...)``, in order."""
    for each in augment:
        if isinstance(each, Endless):
            x = each.draw(x, generator)
    return x


def _image(x: Tensor, what: str) -> tuple[int, int]:
    if x.dim() < 3:
        raise DataError(f"{what} is for images, (n, ..., height, width); examples of shape {tuple(x.shape)} arrived")
    return x.shape[-2], x.shape[-1]


def _band(side: Tensor, place: Tensor, size: int) -> Tensor:
    """Return which pixels lie in a band of ``side`` of ``size``, anywhere by ``place`` in 0 to 1: ``(n, size)``."""
    length = (side * size).floor()
    start = (place * (size - length + 1)).floor()
    pixel = torch.arange(size)
    return (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
