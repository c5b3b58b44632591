"""Registries of solvers, schemes and observers; each also takes a user's own ``file.py:name``."""

from __future__ import annotations

from attar._src.core.registry import Registry
from attar._src.methods.quantize.ptq.observers.calibration import Automatic, LeastSquares, MinMax, Observer, Percentile
from attar._src.methods.quantize.ptq.observers.kl import Divergence
from attar._src.methods.quantize.ptq.schemes.apot import AdditivePowersOfTwo
from attar._src.methods.quantize.ptq.schemes.binary import Binary
from attar._src.methods.quantize.ptq.schemes.codebook import BestLevels
from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelScheme
from attar._src.methods.quantize.ptq.schemes.ternary import Ternary
from attar._src.methods.quantize.ptq.solvers.absmax import Absmax
from attar._src.methods.quantize.ptq.solvers.automatic import AutomaticScales
from attar._src.methods.quantize.ptq.solvers.gptq import Gptq
from attar._src.methods.quantize.ptq.solvers.hqq import HalfQuadratic
from attar._src.methods.quantize.ptq.solvers.minmax import MinMaxBuckets
from attar._src.methods.quantize.ptq.solvers.mse import Mse
from attar._src.methods.quantize.ptq.solvers.percentile import WeightPercentile
from attar._src.methods.quantize.ptq.solvers.solver import Solver

SOLVERS: Registry[Solver] = Registry(
    "solver",
    AutomaticScales(),
    Absmax(),
    Mse(),
    WeightPercentile(),
    HalfQuadratic(),
    MinMaxBuckets(),
    Gptq(),
    base=Solver,
)
#: Beside ``affine``, whose scales a solver finds.
SCHEMES: Registry[LevelScheme] = Registry(
    "scheme", Binary(), Ternary(), AdditivePowersOfTwo(), BestLevels(), base=LevelScheme
)
OBSERVERS: Registry[Observer] = Registry(
    "observer", Automatic(), MinMax(), Percentile(), LeastSquares(), Divergence(), base=Observer
)
