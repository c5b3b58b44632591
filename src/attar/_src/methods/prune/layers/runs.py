"""Runs of a module over examples, for scores of its layers: without one of them, and what each reads and makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attar._src.core.errors import DataError
from attar._src.measure.class_layout import FROM_SHAPES, ClassLayout
from attar._src.methods.prune.channels.gradients import hard_loss
from attar._src.model.blocks.find import ResidualLayer
from attar._src.model.blocks.remove import skipping
from attar._src.model.capture import in_mode
from attar._src.model.interface import call_by_name, main_output
from attar._src.train.batch import Batch

_Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LayerRuns:
    """A module with layers that can be removed, and examples.

    Args:
        module: run in evaluation mode; not changed.
        names: the arguments of its inputs.
        layers: that can be removed.
        batches: examples, with labels if there are any.
        layout: class axis and ignored label of the loss.
        seed: of scores that draw.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        layers: Sequence[ResidualLayer],
        batches: Sequence[Batch],
        layout: ClassLayout = FROM_SHAPES,
        seed: int = 0,
    ) -> None:
        self.module, self.names, self.layout, self.seed = module, names, layout, seed
        self.layers = {each.path: each.passage for each in layers}
        self.batches = batches

    def outputs(self, without: str | None = None) -> Iterator[torch.Tensor]:
        """Yield the main output for each batch, without the layer at a path."""
        skipped = {} if without is None else {without: self.layers[without]}
        with skipping(self.module, skipped), torch.no_grad(), in_mode(self.module, train=False):
            for batch in self.batches:
                yield main_output(self._call(batch)).detach()

    def loss(self, without: str | None = None) -> float:
        """Return the mean loss of the examples, without the layer at a path.

        Raises:
            DataError: there are no labels.
        """
        skipped = {} if without is None else {without: self.layers[without]}
        with skipping(self.module, skipped), torch.no_grad(), in_mode(self.module, train=False):
            total = sum(float(self._loss(batch)) * len(batch) for batch in self.batches)
        return total / self._count()

    def means(self, change: _Change) -> dict[str, float]:
        """Return the mean over examples of a function of what each layer reads and makes, ``(n, ...)`` -> ``(n,)``."""
        totals = dict.fromkeys(self.layers, 0.0)

        def see(path: str, x: torch.Tensor, y: torch.Tensor) -> None:
            totals[path] += float(change(x, y).mean()) * len(batch)

        with self._seen(see), torch.no_grad(), in_mode(self.module, train=False):
            for batch in self.batches:
                self._call(batch)
        return {path: total / self._count() for path, total in totals.items()}

    def gate_gradients(self) -> dict[str, float]:
        """Return path of a layer -> the mean over examples of ``|dL/dg|``, with ``x + g (y - x)`` behind it at g = 1.

        Raises:
            DataError: there are no labels.
        """
        totals = dict.fromkeys(self.layers, 0.0)
        for batch in self.batches:
            gates: dict[str, torch.Tensor] = {}

            def see(path: str, x: torch.Tensor, y: torch.Tensor, gates: dict[str, torch.Tensor] = gates) -> Any:
                sizes = (len(y), *[1] * (y.dim() - 1))
                gates[path] = torch.ones(sizes, dtype=y.dtype, device=y.device, requires_grad=True)
                return x + gates[path] * (y - x)

            with self._seen(see), torch.enable_grad(), in_mode(self.module, train=False):
                loss = self._loss(batch) * len(batch)
            # A layer that only another output reads has no part in the loss.
            found: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, [*gates.values()], allow_unused=True)
            for path, each in zip(gates, found, strict=True):
                totals[path] += 0.0 if each is None else float(each.abs().sum())
        return {path: total / self._count() for path, total in totals.items()}

    def _count(self) -> int:
        return sum(map(len, self.batches))

    def _call(self, batch: Batch) -> Any:
        return call_by_name(self.module, self.names, batch.pick(self.names))

    def _loss(self, batch: Batch) -> torch.Tensor:
        if batch.targets is None:
            raise DataError(
                "this score reads the loss of examples, which needs labels; use similarity or output without"
            )
        return hard_loss(self._call(batch), batch, self.layout)

    @contextmanager
    def _seen(self, see: Callable[[str, torch.Tensor, torch.Tensor], Any]) -> Iterator[None]:
        """Call a function with what each layer reads and makes; a tensor that it returns takes the output's place."""

        def hook(path: str) -> Any:
            def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
                passed = self.layers[path].of(args, kwargs)
                x, y = (each[0] if isinstance(each, tuple) else each for each in (passed, output))
                made = see(path, x, y)
                if made is None:
                    return None
                return (made, *output[1:]) if isinstance(output, tuple) else made

            return look

        handles = [
            self.module.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True) for path in self.layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
