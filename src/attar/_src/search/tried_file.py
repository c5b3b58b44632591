"""A file that a search made, with what was measured of it; and which files no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from attar._src.core.spec import Spec
from attar._src.measure.chance import is_ruined

#: Sizes whose ratio is less than this are no difference.
_SAME_SIZE = 1.01


class TriedFile(Spec):
    """A verified file, as the journal of a search has it.

    Attributes:
        name: of the step that made it.
        options: of ``attar.quantize``, which make it again; empty for a trained file.
        way: to train it (``training/registry.py``); empty for a file that was not trained.
        target: of the training: ``max_bytes``, or ``macs`` that were to be removed.
        stages: of the training, as a recipe has them.
        recipe: path of the recipe that makes a trained file again, in the folder of the search.
        file: its name in the folder of the search.
        sha256: of the file.
        file_bytes: its length.
        drop: points lost on the validation examples, in ``unit``.
        noise: points by which the drop may be off for the draw of the examples: one standard error. None where
            it is no share of predictions.
        metric: on the validation examples; None without labels.
        ruined: whether most of what the module knows is lost (``Judge.ruins``).
        others: the most that an output beside the main one lost (``OutputError.worst_other``); None without any.
        ms: median milliseconds of one example on one thread.
        against_floating: quartiles of its time over that of the floating-point file in the same round.
        seconds: it took to make, write and measure.
    """

    name: str
    options: dict[str, Any]
    way: str = ""
    target: dict[str, float] = {}
    stages: tuple[dict[str, Any], ...] = ()
    recipe: str = ""
    file: str = ""
    sha256: str = ""
    file_bytes: int
    drop: float
    unit: str
    noise: float | None = None
    metric: float | None = None
    ruined: bool = False
    others: float | None = None
    ms: float
    against_floating: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seconds: float = 0.0

    @property
    def lost(self) -> float:
        """The drop; infinity where an output beside the main one is ruined."""
        return math.inf if is_ruined(self.others) else self.drop

    @property
    def faster(self) -> bool:
        """Whether the file is faster than that in floating point in three of four rounds."""
        return self.against_floating[2] < 1

    def is_faster_than(self, other: TriedFile) -> bool:
        """Return whether three of four rounds of this file were faster, beside that in floating point, than three of
        four of the other: medians that are closer than that are noise.

        Example: quartiles 0.97, 0.99, 1.01 are no faster than 1.00, 1.02, 1.05; 0.50, 0.52, 0.60 are.
        """
        return self.against_floating[2] < other.against_floating[0]

    def beats(self, other: TriedFile) -> bool:
        """Return whether a file is better in bytes, drop or time, and worse in none."""
        if self.file_bytes > _SAME_SIZE * other.file_bytes or self.lost > other.lost or other.is_faster_than(self):
            return False
        clearly = other.file_bytes > _SAME_SIZE * self.file_bytes or self.is_faster_than(other)
        return clearly or self.lost < other.lost or (self.lost == other.lost and self.file_bytes < other.file_bytes)


def pareto(files: Sequence[TriedFile]) -> list[TriedFile]:
    """Return the files that no other beats and that ruin no output, the largest first."""
    files = [each for each in files if not is_ruined(each.others)]
    front = [each for each in files if not any(other.beats(each) for other in files)]
    return sorted(front, key=lambda each: (-each.file_bytes, each.drop))
