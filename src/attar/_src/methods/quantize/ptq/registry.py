"""Registries of solvers and observers; each also takes a user's own ``file.py:name``."""

from __future__ import annotations

from attar._src.core.registry import Registry
from attar._src.methods.quantize.ptq.calibration import LeastSquares, MinMax, Observer, Percentile
from attar._src.methods.quantize.ptq.gptq import Gptq
from attar._src.methods.quantize.ptq.solver import Solver
from attar._src.methods.quantize.ptq.solvers import Absmax, MinMaxBuckets, Mse

SOLVERS: Registry[Solver] = Registry("solver", Absmax(), Mse(), MinMaxBuckets(), Gptq(), base=Solver)
OBSERVERS: Registry[Observer] = Registry("observer", MinMax(), Percentile(), LeastSquares(), base=Observer)
