"""Everything that methods of your own are made of: the one module to import from, beside ``attar`` itself.

    from attar.extend import Dense, Objective, Solver, round_to_grid

`docs/extending.md` has an example of each kind of method. Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attar._src.core.lazy import lazy_attributes

if TYPE_CHECKING:
    pass

_MODULES = {
    "artifact.manifest": ("Preprocessing",),
    "artifact.writer": ("pack", "write_atomically"),
    "backends.backend": ("Backend",),
    "coding.base": ("Coder",),
    "coding.entropy": ("entropy_bits",),
    "coding.registry": ("CODERS",),
    "core.scheme": ("PerBucket", "PerChannel", "PerGroup", "PerTensor", "Scheme"),
    "core.spec": ("Spec",),
    "core.tensors": ("Codebook", "Dense", "Quantized", "Sparse", "dequantize", "round_to_grid"),
    "data.dataset": ("Dataset",),
    "measure.runner": ("Runner",),
    "methods.quantize.ptq.absmax": ("Absmax",),
    "methods.quantize.ptq.observer": ("Observer",),
    "methods.quantize.ptq.solver": ("Solver", "affine_grid", "flat_index", "weight_extremes"),
    "model.layer_input": ("Window",),
    "model.statistics": ("ChannelMean", "Histogram", "InputHessian", "Range", "Statistic"),
    "runtime.lower": ("lower",),
    "work.compressed_model": ("CompressedModel", "FileInfo"),
    "work.constraint": ("Constraint", "Progress"),
    "work.context": ("Context",),
    "work.learner": ("Learner",),
    "work.objective": ("LossInputs", "Objective"),
    "work.parametrization": ("GridPositions", "Parametrization"),
    "work.rule": ("Rule",),
    "work.term": ("Term",),
    "work.weight_view": ("WeightView",),
}
_WHERE = {name: f"attar._src.{module}" for module, names in _MODULES.items() for name in names}

__all__ = sorted(_WHERE)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    return lazy_attributes(__name__, _WHERE, name, globals())
