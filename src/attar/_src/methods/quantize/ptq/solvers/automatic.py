"""The solver that is chosen by bits."""

from __future__ import annotations

from typing import ClassVar

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.quantize.ptq.solvers.absmax import Absmax
from attar._src.methods.quantize.ptq.solvers.gptq import Gptq
from attar._src.methods.quantize.ptq.solvers.solver import Floats, InputStatistics, Solver
from attar._src.model.statistics import Statistic

#: Most bits at which seeing what a weight multiplies is worth its time.
SOLVED_BITS = 5


class AutomaticScales(Solver):
    """``gptq`` up to 5 bits, where solvers differ most, and ``absmax`` above, which costs nothing and loses little.

    ResNet-20 at 4 bits, first and last layer at 8, on CIFAR-10: 91.13 % with ``absmax``, 91.83 % with ``gptq``.
    """

    name: ClassVar[str] = "auto"
    inputs: ClassVar[tuple[type[Statistic], ...]] = Gptq.inputs
    inputs_optional: ClassVar[bool] = True
    rates: ClassVar[tuple[float, ...]] = Gptq.rates

    def at_bits(self, bits: int) -> Solver:
        return Gptq() if bits <= SOLVED_BITS else Absmax()

    def at_rate(self, rate: float) -> Solver:
        return Gptq(rate)

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        solver = self.at_bits(scheme.bits)
        return solver.solve(weight, scheme, inputs if solver.inputs else None)
