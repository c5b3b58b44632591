"""Optimizers by name: specs that build a ``torch.optim.Optimizer`` from parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, PlainSerializer
from pydantic.json_schema import SkipJsonSchema
from torch import nn

from attar._src.core.choice import spec_choice
from attar._src.core.errors import SpecError
from attar._src.core.registry import Registry, load_object
from attar._src.core.spec import Spec, reference_name

LearningRate = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSpec(Spec):
    """An optimizer in a recipe; the plan's schedule multiplies ``lr``."""

    name: str
    lr: LearningRate
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def build(self, decayed: Sequence[nn.Parameter], others: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of parameters with and without weight decay."""
        groups = (decayed, self.weight_decay), (others, 0.0)
        return self.make([{"params": list(each), "weight_decay": decay} for each, decay in groups if each])

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer of parameter groups in the form of ``torch.optim``."""
        raise NotImplementedError


class Sgd(OptimizerSpec):
    """Stochastic gradient descent with momentum.

    ``v <- momentum v + g`` and ``w <- w - lr (g + momentum v)`` with Nesterov's momentum (Sutskever et al. 2013, "On
    the importance of initialization and momentum in deep learning"), ``w <- w - lr v`` without. Weight decay is added
    to the gradient g. The usual choice for convolutional networks.
    """

    name: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    momentum: _Share = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov)


class AdamW(OptimizerSpec):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, "Decoupled weight decay regularization").

    The usual choice for transformers and for short fine-tuning.
    """

    name: Literal["adamw"] = "adamw"
    lr: LearningRate = 1e-3
    betas: tuple[_Share, _Share] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps)


class Adam(OptimizerSpec):
    """Adam (Kingma and Ba 2015, "Adam: a method for stochastic optimization").

    Weight decay is added to the gradient and rescaled with it; prefer ``adamw`` if you need weight decay.
    """

    name: Literal["adam"] = "adam"
    lr: LearningRate = 1e-3
    betas: tuple[_Share, _Share] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=self.lr, betas=self.betas, eps=self.eps)


class CustomOptimizer(OptimizerSpec):
    """A user's own: ``file.py:name`` or a Python object, called as ``(groups, lr=lr, **arguments)``.

    Example: ``{name: torch.optim:RMSprop, arguments: {alpha: 0.9}}``.
    """

    name: Annotated[str | SkipJsonSchema[Callable[..., Any]], PlainSerializer(reference_name)]  # type: ignore[assignment]
    lr: LearningRate = 1e-3
    arguments: dict[str, Any] = {}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        own = load_object(self.name) if isinstance(self.name, str) else self.name
        try:
            made = own(groups, lr=self.lr, **self.arguments)
        except (TypeError, ValueError) as error:
            raise SpecError(f"optimizer {reference_name(self.name)} does not take its arguments: {error}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise SpecError(
                f"optimizer {reference_name(self.name)} returned a {type(made).__name__}, not a torch.optim.Optimizer"
            )
        return made


OPTIMIZERS: Registry[type[OptimizerSpec]] = Registry("optimizer", Sgd, AdamW, Adam)

if TYPE_CHECKING:
    OptimizerChoice = OptimizerSpec
else:
    OptimizerChoice = spec_choice(OPTIMIZERS, CustomOptimizer)
