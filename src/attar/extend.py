"""Everything that methods of your own are made of: the one module to import from, beside ``attar`` itself.

    from attar.extend import Dense, Objective, Solver, round_to_grid

`docs/extending.md` has an example of each kind of method. Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from attar._src.core.lazy import lazy_names

if TYPE_CHECKING:
    from attar._src.artifact.contents import Contents as Contents
    from attar._src.artifact.manifest import Preprocessing as Preprocessing
    from attar._src.artifact.writer import pack as pack
    from attar._src.artifact.writer import write_atomically as write_atomically
    from attar._src.backends.backend import Backend as Backend
    from attar._src.coding.base import Coder as Coder
    from attar._src.coding.entropy import entropy_bits as entropy_bits
    from attar._src.coding.registry import CODERS as CODERS
    from attar._src.core.scheme import PerBucket as PerBucket
    from attar._src.core.scheme import PerChannel as PerChannel
    from attar._src.core.scheme import PerGroup as PerGroup
    from attar._src.core.scheme import PerTensor as PerTensor
    from attar._src.core.scheme import Scheme as Scheme
    from attar._src.core.spec import Spec as Spec
    from attar._src.core.tensors import Codebook as Codebook
    from attar._src.core.tensors import Dense as Dense
    from attar._src.core.tensors import Quantized as Quantized
    from attar._src.core.tensors import Sparse as Sparse
    from attar._src.core.tensors import dequantize as dequantize
    from attar._src.core.tensors import round_to_grid as round_to_grid
    from attar._src.data.dataset import Dataset as Dataset
    from attar._src.measure.chance import Chance as Chance
    from attar._src.measure.class_layout import ClassLayout as ClassLayout
    from attar._src.measure.runner import Runner as Runner
    from attar._src.methods.prune.channels.scores import ChannelScore as ChannelScore
    from attar._src.methods.prune.channels.scores import ScoredAxis as ScoredAxis
    from attar._src.methods.prune.layers.runs import LayerRuns as LayerRuns
    from attar._src.methods.prune.layers.scores import LayerScore as LayerScore
    from attar._src.methods.prune.scores import ScoredWeight as ScoredWeight
    from attar._src.methods.prune.scores import WeightScore as WeightScore
    from attar._src.methods.quantize.ptq.observers.calibration import Observer as Observer
    from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct as Reconstruct
    from attar._src.methods.quantize.ptq.solvers.absmax import Absmax as Absmax
    from attar._src.methods.quantize.ptq.solvers.solver import Solver as Solver
    from attar._src.methods.quantize.ptq.solvers.solver import affine_grid as affine_grid
    from attar._src.methods.quantize.ptq.solvers.solver import flat_index as flat_index
    from attar._src.methods.quantize.ptq.solvers.solver import weight_extremes as weight_extremes
    from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize as PostTrainingQuantize
    from attar._src.methods.training_stage import TrainingStage as TrainingStage
    from attar._src.model.entry_points import EntryPoint as EntryPoint
    from attar._src.model.entry_points import trace_methods as trace_methods
    from attar._src.model.statistics import ChannelMean as ChannelMean
    from attar._src.model.statistics import Histogram as Histogram
    from attar._src.model.statistics import InputHessian as InputHessian
    from attar._src.model.statistics import Range as Range
    from attar._src.model.statistics import Statistic as Statistic
    from attar._src.model.trace import trace as trace
    from attar._src.model.weights import Window as Window
    from attar._src.runtime.lower import lower as lower
    from attar._src.search.figures import Figures as Figures
    from attar._src.search.goal import Goal as Goal
    from attar._src.search.samplers.sampler import Sampler as Sampler
    from attar._src.search.samplers.sampler import SearchTask as SearchTask
    from attar._src.search.space import Between as Between
    from attar._src.search.space import Choose as Choose
    from attar._src.search.space import Space as Space
    from attar._src.work.calibration_inputs import CalibrationInputs as CalibrationInputs
    from attar._src.work.compressed_model import CompressedGraph as CompressedGraph
    from attar._src.work.compressed_model import CompressedModel as CompressedModel
    from attar._src.work.compressed_model import FileInfo as FileInfo
    from attar._src.work.constraint import Constraint as Constraint
    from attar._src.work.constraint import Progress as Progress
    from attar._src.work.context import Context as Context
    from attar._src.work.context import TrainingContext as TrainingContext
    from attar._src.work.context import Trial as Trial
    from attar._src.work.learner import Learner as Learner
    from attar._src.work.objective import LossInputs as LossInputs
    from attar._src.work.objective import Objective as Objective
    from attar._src.work.parametrization import GridPositions as GridPositions
    from attar._src.work.parametrization import Parametrization as Parametrization
    from attar._src.work.rule import Rule as Rule
    from attar._src.work.stage import Stage as Stage
    from attar._src.work.term import Term as Term
    from attar._src.work.weight_view import WeightView as WeightView
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "artifact.contents": "Contents",
            "artifact.manifest": "Preprocessing",
            "artifact.writer": "pack write_atomically",
            "backends.backend": "Backend",
            "coding.base": "Coder",
            "coding.entropy": "entropy_bits",
            "coding.registry": "CODERS",
            "core.scheme": "PerBucket PerChannel PerGroup PerTensor Scheme",
            "core.spec": "Spec",
            "core.tensors": "Codebook Dense Quantized Sparse dequantize round_to_grid",
            "data.dataset": "Dataset",
            "measure.chance": "Chance",
            "measure.class_layout": "ClassLayout",
            "measure.runner": "Runner",
            "methods.prune.channels.scores": "ChannelScore ScoredAxis",
            "methods.prune.scores": "ScoredWeight WeightScore",
            "methods.prune.layers.runs": "LayerRuns",
            "methods.prune.layers.scores": "LayerScore",
            "methods.quantize.ptq.solvers.absmax": "Absmax",
            "methods.quantize.ptq.observers.calibration": "Observer",
            "methods.quantize.ptq.solvers.solver": "Solver affine_grid flat_index weight_extremes",
            "methods.quantize.ptq.reconstruct.stage": "Reconstruct",
            "methods.quantize.ptq.stage": "PostTrainingQuantize",
            "methods.training_stage": "TrainingStage",
            "model.entry_points": "EntryPoint trace_methods",
            "model.statistics": "ChannelMean Histogram InputHessian Range Statistic",
            "model.trace": "trace",
            "model.weights": "Window",
            "runtime.lower": "lower",
            "search.figures": "Figures",
            "search.goal": "Goal",
            "search.samplers.sampler": "Sampler SearchTask",
            "search.space": "Between Choose Space",
            "work.calibration_inputs": "CalibrationInputs",
            "work.compressed_model": "CompressedGraph CompressedModel FileInfo",
            "work.constraint": "Constraint Progress",
            "work.context": "Context TrainingContext Trial",
            "work.learner": "Learner",
            "work.objective": "LossInputs Objective",
            "work.parametrization": "GridPositions Parametrization",
            "work.rule": "Rule",
            "work.stage": "Stage",
            "work.term": "Term",
            "work.weight_view": "WeightView",
        },
    )
