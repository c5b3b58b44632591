"""Modules that pruning ruined and nobody trained since: what was lost is kept with the module and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from attar._src.core.digest import digest
from attar._src.core.spec import Spec

#: The attribute of a module; a plain dict, so that a pickled module needs no Attar.
_PRUNED = "attar_pruned"
#: Points of a metric, and decibels of the outputs, from which on a pruned module is taken for ruined.
_POINTS, _DECIBELS = 0.1, 3.0


class PruningLoss(Spec):
    """What a module lost by pruning, before any training.

    Attributes:
        weights: digest of its weights when it was pruned.
        metric: name of the metric, that before and after; None without labels.
        signal_to_noise_db: of its outputs against those before; None if they are equal or not finite.
        examples: on which both were measured.
    """

    weights: str
    metric: tuple[str, float, float] | None = None
    signal_to_noise_db: float | None = None
    examples: int

    def warning(self) -> str:
        """Return a sentence if so much was lost that a file of the module is of no use; else nothing."""
        if self.metric is not None:
            name, before, after = self.metric
            lost = abs(before - after) > _POINTS * max(1.0, abs(before))
            told = f"its {name} went from {before:.3g} to {after:.3g}"
        else:
            lost = self.signal_to_noise_db is not None and self.signal_to_noise_db < _DECIBELS
            told = f"the signal to noise of its outputs is {self.signal_to_noise_db or 0:.1f} dB"
        return (
            f"the module was pruned and not trained since: {told} on {self.examples} examples, and the file is "
            "compared with the pruned module, which hides that; train it first, or prune less"
            if lost
            else ""
        )


def note_loss(module: nn.Module, loss: PruningLoss) -> None:
    """Keep with a module what it lost."""
    vars(module)[_PRUNED] = loss.describe()


def noted_loss(module: nn.Module) -> PruningLoss | None:
    """Return what a module lost by pruning, if its weights are still those of that moment."""
    kept: Mapping[str, Any] | None = vars(module).get(_PRUNED)
    loss = None if kept is None else PruningLoss.model_validate(kept)
    return loss if loss is not None and loss.weights == weights_digest(module) else None


def untrained_warning(module: nn.Module) -> tuple[str, ...]:
    """Return the sentence on a module that pruning ruined, if it was not trained since."""
    loss = noted_loss(module)
    return tuple(filter(None, (loss.warning(),))) if loss is not None else ()


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's tensors."""
    return digest(module.state_dict().values())
