"""How much is pruned while a module trains, what, and when."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from attar._src.core.spec import SomeShare, Spec, registered_word
from attar._src.methods.prune.scopes import SCOPES
from attar._src.methods.prune.scores import SCORES, misplaced
from attar._src.methods.prune.shapes import SHAPES
from attar._src.methods.prune.units import PruningUnit, UnitText

_Share = Annotated[float, Field(ge=0, le=1)]


class Pruning(Spec):
    """Target and schedule of weight pruning.

    With u the completed share of the way from ``begin`` to ``end``, the sparsity is ``s = s_0 + (s_f - s_0) f(u)``:

    | shape | f(u) | |
    |---|---|---|
    | once | 1 | one-shot |
    | steps | (floor(n u) + 1) / n | incremental: prune, train, prune again |
    | linear | u | |
    | cubic | 1 - (1 - u)^3 | fast at first |
    | exponential | (1 - r^u) / (1 - r), r = (1 - s_f) / (1 - s_0) | the same share of what is left each time |
    | dense_sparse_dense | 1 | masks go at ``end`` |

    ``s_0`` is the initial sparsity of a weight, so a later stage continues from it. A ``threshold`` grows from 0.

    Attributes:
        score: name of the pruning score; of those with gradients, they are means over the steps since the last update.
        sparsity: share of units to prune, exactly ``round(sparsity * n)`` of n; an N:M pattern has its own.
        threshold: score below which elements are pruned, instead of ``sparsity``.
        unit: ``weight``, ``N:M`` such as ``2:4``, or blocks of output and input channels such as ``4x1``.
        scope: how the share is divided among weights: ``layer`` prunes every weight to the same sparsity, ``global``
            the lowest scores of all weights together; also ``row``, ``lamp``, ``erdos_renyi``.
        shape: schedule of the sparsity.
        steps: number of steps of the shape ``steps``.
        begin, end: shares of the stage, 0 to 1.
        every: optimizer steps between two updates of the masks of gradual shapes, and of ``regrow``.
        regrow: share of the remaining units that are exchanged in an update for pruned ones with the largest gradient,
            which start from zero; it falls to 0 at ``end`` by a half cosine (Evci et al. 2020, "Rigging the lottery",
            section 3: 0.3).
        rewind: share of the stage to whose weights all parameters go back after each of the ``steps`` that follows
            (Frankle, Dziugaite, Roy, Carbin 2020, "Linear mode connectivity and the lottery ticket hypothesis",
            section 2: weight rewinding). The learning rate goes on.
        layers, keep: globs of weights to prune, and of exceptions.
        overrides: glob -> sparsity of each weight it matches.

    Example:
        >>> [Pruning(sparsity=0.8, shape="cubic", end=1.0).share(progress) for progress in (0.0, 0.5, 1.0)]
        [0.0, 0.875, 1.0]
    """

    score: Annotated[str, registered_word(SCORES)] = "l1"
    sparsity: SomeShare | None = None
    threshold: Annotated[float, Field(gt=0)] | None = None
    unit: UnitText = "weight"
    scope: Annotated[str, registered_word(SCOPES)] = "layer"
    shape: Annotated[str, registered_word(SHAPES)] = "cubic"
    steps: Annotated[int, Field(ge=1)] = 4
    begin: _Share = 0.0
    end: _Share = 0.75
    every: Annotated[int, Field(ge=1)] = 10
    regrow: SomeShare = 0.0
    rewind: _Share | None = None
    layers: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    overrides: dict[str, SomeShare] = {}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        pattern = PruningUnit.parse(self.unit).share
        given = [name for name in ("sparsity", "threshold") if getattr(self, name) is not None]
        if pattern is not None and (given or self.overrides or self.scope != "layer"):
            raise ValueError(
                f"unit {self.unit} prunes {pattern:g} of every weight; leave out sparsity, threshold, scope, overrides"
            )
        if pattern is None and len(given) != 1:
            raise ValueError("prune takes one of the two: sparsity or threshold")
        if self.end < self.begin:
            raise ValueError(f"prune ends at {self.end} of the stage, before it begins at {self.begin}; swap them")
        if self.threshold is not None and (self.unit != "weight" or self.regrow or self.shape == "exponential"):
            raise ValueError("threshold is for single weights, without regrow, of another shape than exponential")
        if self.regrow and pattern is not None:
            raise ValueError(f"regrow exchanges units of a whole weight; leave it out with unit {self.unit}")
        if self.rewind is not None and self.shape != "steps":
            raise ValueError("rewind goes back after each of several steps; write shape: steps")
        if self.shape == "dense_sparse_dense" and self.end == 1:
            raise ValueError("dense_sparse_dense trains without masks after end; set end below 1, such as 0.5")
        if self.score in SCORES and (why := misplaced(SCORES[self.score], self.score, training=True)):
            raise ValueError(why)
        return self

    def share(self, progress: float, left: float | None = None) -> float:
        """Return f(u) at ``progress``, 0 to 1; 0 before ``begin``.

        ``left``: r, by default of a weight without zeros.
        """
        if progress < self.begin:
            return 0.0
        u = 1.0 if progress >= self.end else (progress - self.begin) / (self.end - self.begin)
        return SHAPES[self.shape].share(u, 1 - (self.sparsity or 0.0) if left is None else left, self.steps)
