"""Everything that methods of your own are made of: the one module to import from, beside ``attar`` itself.

    from attar.extend import Dense, Objective, Solver, round_to_grid

`docs/extending.md` has an example of each kind of method. Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attar._src.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from attar._src.artifact.contents import Contents
    from attar._src.artifact.manifest import Preprocessing
    from attar._src.artifact.writer import pack, write_atomically
    from attar._src.backends.backend import Backend
    from attar._src.coding.base import Coder
    from attar._src.coding.entropy import entropy_bits
    from attar._src.coding.registry import CODERS
    from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
    from attar._src.core.spec import Spec
    from attar._src.core.tensors import Codebook, Dense, Quantized, Sparse, dequantize, round_to_grid
    from attar._src.data.dataset import Dataset
    from attar._src.measure.runner import Runner
    from attar._src.methods.quantize.ptq.calibration import Observer
    from attar._src.methods.quantize.ptq.solver import Solver, affine_grid, flat_index, weight_extremes
    from attar._src.methods.quantize.ptq.solvers import Absmax
    from attar._src.methods.training_stage import TrainingStage
    from attar._src.model.layer_input import Window
    from attar._src.model.statistics import ChannelMean, Histogram, InputHessian, Range, Statistic
    from attar._src.model.trace import trace
    from attar._src.runtime.lower import lower
    from attar._src.work.compressed_model import CalibrationInputs, CompressedModel, FileInfo
    from attar._src.work.constraint import Constraint, Progress
    from attar._src.work.context import Context, TrainingContext, Trial
    from attar._src.work.learner import Learner
    from attar._src.work.objective import LossInputs, Objective
    from attar._src.work.parametrization import GridPositions, Parametrization
    from attar._src.work.rule import Rule
    from attar._src.work.stage import Stage
    from attar._src.work.term import Term
    from attar._src.work.weight_view import WeightView

__all__ = [
    "CODERS",
    "Absmax",
    "Backend",
    "CalibrationInputs",
    "ChannelMean",
    "Codebook",
    "Coder",
    "CompressedModel",
    "Constraint",
    "Contents",
    "Context",
    "Dataset",
    "Dense",
    "FileInfo",
    "GridPositions",
    "Histogram",
    "InputHessian",
    "Learner",
    "LossInputs",
    "Objective",
    "Observer",
    "Parametrization",
    "PerBucket",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "Preprocessing",
    "Progress",
    "Quantized",
    "Range",
    "Rule",
    "Runner",
    "Scheme",
    "Solver",
    "Sparse",
    "Spec",
    "Stage",
    "Statistic",
    "Term",
    "TrainingContext",
    "TrainingStage",
    "Trial",
    "WeightView",
    "Window",
    "affine_grid",
    "dequantize",
    "entropy_bits",
    "flat_index",
    "lower",
    "pack",
    "round_to_grid",
    "trace",
    "weight_extremes",
    "write_atomically",
]

_MODULES = {
    "artifact.contents": ("Contents",),
    "artifact.manifest": ("Preprocessing",),
    "artifact.writer": (
        "pack",
        "write_atomically",
    ),
    "backends.backend": ("Backend",),
    "coding.base": ("Coder",),
    "coding.entropy": ("entropy_bits",),
    "coding.registry": ("CODERS",),
    "core.scheme": (
        "PerBucket",
        "PerChannel",
        "PerGroup",
        "PerTensor",
        "Scheme",
    ),
    "core.spec": ("Spec",),
    "core.tensors": (
        "Codebook",
        "Dense",
        "Quantized",
        "Sparse",
        "dequantize",
        "round_to_grid",
    ),
    "data.dataset": ("Dataset",),
    "measure.runner": ("Runner",),
    "methods.quantize.ptq.solvers": ("Absmax",),
    "methods.quantize.ptq.calibration": ("Observer",),
    "methods.quantize.ptq.solver": (
        "Solver",
        "affine_grid",
        "flat_index",
        "weight_extremes",
    ),
    "methods.training_stage": ("TrainingStage",),
    "model.layer_input": ("Window",),
    "model.statistics": (
        "ChannelMean",
        "Histogram",
        "InputHessian",
        "Range",
        "Statistic",
    ),
    "model.trace": ("trace",),
    "runtime.lower": ("lower",),
    "work.compressed_model": (
        "CalibrationInputs",
        "CompressedModel",
        "FileInfo",
    ),
    "work.constraint": (
        "Constraint",
        "Progress",
    ),
    "work.context": (
        "Context",
        "TrainingContext",
        "Trial",
    ),
    "work.learner": ("Learner",),
    "work.objective": (
        "LossInputs",
        "Objective",
    ),
    "work.parametrization": (
        "GridPositions",
        "Parametrization",
    ),
    "work.rule": ("Rule",),
    "work.stage": ("Stage",),
    "work.term": ("Term",),
    "work.weight_view": ("WeightView",),
}
_WHERE = {name: f"attar._src.{module}" for module, names in _MODULES.items() for name in names}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    return lazy_attributes(__name__, _WHERE, name, globals())
