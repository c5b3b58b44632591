"""A module with less structure, and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class PrunedModule:
    """A module of which channels or layers were removed, or with weights that became zero.

    Attributes:
        module: a copy of the one that was given, of the same class.
        record: what was removed, for the file.
        figures: ``macs`` of one example and ``parameters``, before and after; of layers ``layers``, too. Of weights
            ``nonzero``, the parameters that are not zero, and ``nonzero_macs``, the multiplications by these: zeros
            take neither away.
        groups: name of a group of channels -> how many of its units were removed, and how many there were.
        widths: weight in a group -> its output channels before and after.
        excluded: weight or layer -> why it stays, or some of its channels.
        removed: paths of removed layers, as they were before.
        scores: path of a layer that could be removed -> its score.
        sparsity: weight -> share of its elements that became zero.
        note: sparsities that were chosen for a target, and what was done otherwise than asked; empty without.
        unseen: weight that was pruned without seeing what it multiplies -> why.
        remarks: what was done otherwise than asked, of channels, in sentences; empty without.
        milliseconds: of one example on one thread, before and after, where they were the target.
    """

    module: nn.Module
    record: Mapping[str, Any]
    figures: Mapping[str, list[int]]
    excluded: Mapping[str, str]
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    sparsity: Mapping[str, float] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    remarks: str = ""
    milliseconds: tuple[float, float] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the figures as JSON: those of channels have ``widths``, those of layers ``removed``, those of
        weights ``sparsity``."""
        own: dict[str, Any] = {"widths": {name: list(width) for name, width in self.widths.items()}}
        if self.removed:
            own = {"removed": list(self.removed), "scores": dict(self.scores)}
        if self.sparsity:
            own = {"sparsity": dict(self.sparsity), "unseen": dict(self.unseen)}
        if self.note or self.remarks:
            own["note"] = "; ".join(filter(None, (self.note, self.remarks)))
        if self.milliseconds is not None:
            own["fitted_ms"] = list(self.milliseconds)
        return {**self.figures, **own, "excluded": dict(self.excluded)}


def parameter_count(module: nn.Module) -> int:
    """Return the number of parameters, a shared one once."""
    return sum(parameter.numel() for parameter in module.parameters())
