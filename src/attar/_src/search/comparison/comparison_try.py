"""A file of a comparison, or why there is none, as the journal has it."""

from __future__ import annotations

from typing import Any

from attar._src.core.spec import Spec


class ComparisonTry(Spec):
    """One strength of one variant of a method.

    Attributes:
        method: its name.
        variant: number of the variant.
        strength: of the option that is tuned (``tuned.py``).
        options: by function, ``prune`` and ``quantize``, that make the file again.
        file: its name in the folder; empty if there is none.
        sha256: of the file.
        file_bytes: its length; None if there is no file.
        drop: points lost on the validation examples, in ``unit``; None if there is no file.
        unit: of the drop.
        noise: points by which the drop may be off for the draw of the examples: one standard error, of those whose
            prediction changed. None where the drop is no share of predictions.
        metric: on the validation examples; None without labels.
        ruined: whether most of what the module knows is lost (``Judge.ruins``), so that no smaller file of the kind is
            of use.
        others: the most that an output beside the main one lost (``OutputError.worst_other``); None without any.
        seconds: it took to make and judge.
        training_examples: that gradient steps on the module's weights saw.
        failed: why there is no file.
        hopeless: whether no other strength would make one.
    """

    method: str
    variant: int
    strength: float
    options: dict[str, Any]
    file: str = ""
    sha256: str = ""
    file_bytes: int | None = None
    drop: float | None = None
    unit: str = ""
    noise: float | None = None
    metric: float | None = None
    ruined: bool = False
    others: float | None = None
    seconds: float = 0.0
    training_examples: int = 0
    failed: str = ""
    hopeless: bool = False
