"""Which output of a graph has scores of classes, whose divergence is what reconstruction makes small."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from attar._src.core.errors import SpecError
from attar._src.core.fields import main_output_name
from attar._src.measure.difference import SCORES
from attar._src.methods.allocate.judge import Judge, Labelled
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph

#: Examples that tell what kind of output it is.
_LOOKED_AT = 64
#: Least probability whose logarithm is taken.
_LEAST = 1e-12


@dataclass(frozen=True)
class ClassScores:
    """An output with a number for each class.

    Attributes:
        output: its name.
        axis: the class axis.
        shares: whether the numbers are probabilities; logarithms of probabilities have the softmax of scores.
    """

    output: str
    axis: int
    shares: bool = False

    def divergence(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean over positions of ``KL(p_wanted || p_made)`` in nats.

        Example:
            Scores (0, 0) made and (0, 1.0986) wanted, probabilities (0.5, 0.5) and (0.25, 0.75): 0.1308.
        """
        of, log_t = (self._log_probabilities(each) for each in (made, wanted))
        return (log_t.exp() * (log_t - of)).sum(self.axis).mean()

    def _log_probabilities(self, x: Tensor) -> Tensor:
        return x.clamp(min=_LEAST).log() if self.shares else x.log_softmax(self.axis)


def class_scores(
    graph: CompressedGraph, inputs: CalibrationInputs, loss: str, labelled: Labelled
) -> ClassScores | None:
    """Return the main output if it has scores (``measure/difference.py``) or ``loss`` says so, else None.

    Args:
        loss: ``kl``, ``error`` or ``auto``.
        labelled: what is known of the task and its labels.

    Raises:
        SpecError: ``loss`` is ``kl``, and the output has no axis of two classes or more.
    """
    if loss == "error":
        return None
    name = main_output_name({port.name: port.dtype.startswith("f") for port in graph.traced.outputs})
    judge = Judge.of(graph.traced.graph, inputs.first(_LOOKED_AT, cut=graph.traced.any_batch), name, labelled)
    if loss == "kl" and judge.axis is None:
        raise SpecError(
            f"loss: kl compares scores of classes, and {name!r} has the shape {judge.wanted[0].shape}, without an axis "
            "of two classes or more; use loss: error"
        )
    if judge.axis is None or (loss == "auto" and judge.kind != SCORES):
        return None
    return ClassScores(name, judge.axis, judge.shares)
