"""Binary weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelScheme
from attar._src.methods.quantize.ptq.schemes.scales import ScaleIndex
from attar._src.methods.quantize.ptq.solvers.code_grid import Real


class Binary(LevelScheme):
    """``S`` or ``-S``: by itself each weight gets its sign, and S is the mean of ``|w|`` (Rastegari, Ordonez, Redmon,
    Farhadi, "XNOR-Net", ECCV 2016, arXiv 1603.05279, section 3.1, equations 4 to 6).

    Deviations: inputs stay as they are; with data, S and the signs are those of least error of the layer's output.
    """

    name: ClassVar[str] = "binary"
    widths: ClassVar[tuple[int, ...]] = (1,)

    def levels(
        self, values: Real, index: ScaleIndex, importance: Real, bits: int, count: int, *, power_of_two: bool = False
    ) -> Real:
        return np.array([-1.0, 1.0])
