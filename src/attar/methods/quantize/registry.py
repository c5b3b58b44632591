"""The solvers and observers there are; each also takes a user's own ``file.py:name``."""

from __future__ import annotations

from attar.core.registry import Registry
from attar.methods.quantize.absmax import Absmax
from attar.methods.quantize.minmax import MinMaxBuckets
from attar.methods.quantize.mse import Mse
from attar.methods.quantize.observer import LeastSquares, MinMax, Observer, Percentile
from attar.methods.quantize.solver import Solver

SOLVERS: Registry[Solver] = Registry("solver", Absmax(), Mse(), MinMaxBuckets())
OBSERVERS: Registry[Observer] = Registry("observer", MinMax(), Percentile(), LeastSquares())
