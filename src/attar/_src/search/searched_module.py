"""A module, its inputs, and what judges its files: made once, before anything is tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.core.digest import digest
from attar._src.core.errors import DataError
from attar._src.core.fields import main_output_name
from attar._src.data.axes import Dynamic
from attar._src.deploy.dry_run import EXPORTING, check_deployable, example_of
from attar._src.deploy.fidelity import ComparedExamples, labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.deploy.parity import Parity
from attar._src.deploy.validation_inputs import validation_inputs
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.measure.metric import METRICS, judging_metric, metric_name
from attar._src.measure.runner import InputArrays
from attar._src.methods.allocate.file_judge import FEW_JUDGED, told_of_others
from attar._src.methods.allocate.judge import Judge, Labelled, OutputError, session_outputs
from attar._src.methods.allocate.tensor_meter import tensors_digest
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.report.wording import plural
from attar._src.runtime.session import Session
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context, JudgedExamples

#: One of so many examples is held out where there is no ``validation``.
_HELD_OUT = 4
#: Units of a drop of which one example is a known part.
_COUNTED = ("points of accuracy", "points of binary_accuracy", "% of predictions")
#: A module with so large a share of right predictions has perhaps learned the examples by heart.
_KNOWN = 0.995


@dataclass(frozen=True)
class SearchedModule:
    """A module whose files are sought.

    Attributes:
        module: as it was given; never changed.
        captured: its program.
        traced: the module as the graph of its file.
        use: what files tell their user.
        inputs: that calibrate.
        dry_run: parity of the untouched module's file.
        examples: the inputs with their labels, for the comparison of a file.
        held: examples that calibration does not see, on which a drop is measured.
        judge: compares main outputs on ``held``.
        limits: of the readers.
        metric: as it was given.
    """

    module: nn.Module
    captured: CapturedModel
    traced: TracedModel
    use: FileInfo
    inputs: CalibrationInputs
    dry_run: Parity
    examples: ComparedExamples
    held: CalibrationInputs
    judge: Judge
    limits: Limits | None = None
    metric: Any = None

    @classmethod
    def of(
        cls,
        module: Any,
        data: Any,
        who: str,
        *,
        validation: Any = None,
        labels: Any = None,
        examples: int = 512,
        batch: int = 64,
        collate: Callable[[list[Any]], Any] | None = None,
        dynamic: Dynamic = None,
        preprocessing: Preprocessing | None = None,
        task: str | None = None,
        class_names: Sequence[str] = (),
        metric: Any = None,
        ignore_index: int = IGNORE_INDEX,
        class_axis: int | None = None,
        licence: str | None = None,
        limits: Limits | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> SearchedModule:
        """Run, trace and deploy a module untouched; arguments as of ``attar.compress``, for which ``who`` asks.

        ``say`` is called with a line on each part that takes long.

        Raises:
            DataError, ModelError, ParityError: as ``attar.quantize``.
        """
        say(EXPORTING)
        module, inputs, _ = prepare(module, data, examples=examples, batch=batch, collate=collate, dynamic=dynamic)
        use = FileInfo(preprocessing, task, tuple(class_names), metric_name(metric), licence)
        example, axes, inputs = example_of(inputs, dynamic)
        compared = labelled_examples(inputs, labels, metric, ClassLayout(class_axis, ignore_index))
        captured = capture(module, example, names=inputs.names, dynamic=axes, train=False)
        traced = deploy_graph(module, captured)
        if validation is None:
            learn, held = compared.with_targets().one_of(_HELD_OUT, whole=not traced.any_batch)
            if learn is held:
                several = "examples" if traced.any_batch else f"batches of {inputs.count(inputs.batches[0])}"
                raise DataError(
                    f"{who} judges files on held-out inputs; give {_HELD_OUT} {several} or more, or validation="
                )
            inputs, compared = replace(learn, targets=()), replace(compared, inputs=learn, targets=learn.targets)
        else:
            held = validation_inputs(module, validation, example, axes, batch=batch, collate=collate, dynamic=dynamic)
        dry_run = check_deployable(module, traced, use, inputs, limits=limits)
        output = main_output_name({port.name: port.dtype.startswith("f") for port in traced.outputs})
        say(f"running the module on {plural(held.examples, 'validation example')}, which judge")
        judge = Judge.of(traced.graph, held, output, Labelled.of(compared, use))
        judge.demand_direction()
        return cls(module, captured, traced, use, inputs, dry_run, compared, held, judge, limits, metric)

    @cached_property
    def untouched(self) -> CompressedModel:
        """The module as it would be stored."""
        return CompressedModel.of(self.traced, record=recorded_removals(self.module))

    @cached_property
    def context(self) -> Context:
        """What post-training stages get."""
        judged = JudgedExamples(layout=self.examples.layout)
        return Context(self.examples.with_targets(), use=self.use, judged=judged)

    @property
    def labelled(self) -> bool:
        """Whether all calibration inputs have labels."""
        return len(self.context.calibration.targets) == len(self.inputs.batches)  # type: ignore[union-attr]

    @property
    def learns_others(self) -> bool:
        """Whether there are outputs beside the main one that a training can learn from the module."""
        return bool(self.judge.kinds)

    def batches(self) -> Iterator[Batch]:
        """Yield the calibration inputs with their labels."""
        targets = self.examples.targets or (None,) * len(self.inputs.batches)
        for each, own in zip(self.inputs.batches, targets, strict=False):
            yield Batch(each, own, names=self.inputs.names)

    def seen(self, path: Path) -> OutputError:
        """Return how far the outputs of a decoded file on ``held`` are from the module's."""
        return judge_file(path, self.judge, self.held, self.limits)

    def noise(self, seen: OutputError) -> float | None:
        """Return one standard error of a drop in points, for the draw of the held examples; None where it is no share
        of predictions, as in a metric of one's own.

        Only an example whose prediction changed may cost or gain a point of accuracy: of n examples of which a share c
        changed, the error is ``100 sqrt(c / n)`` at most, and half a change for one of none.

        Example: 2,000 examples, of which 1 % are predicted otherwise: 0.22 points.
        """
        return drop_noise(seen, self.judge, self.held.examples)

    def doubts(self, most: float | None, name: str, *, others: float | None = None) -> Iterator[str]:
        """Yield why a loss may say little here: a reference that was not trained, or on these very examples; labels of
        another; few examples.

        ``name`` is what the argument of the bound is called; ``others`` is the bound of other outputs, if it is given.
        """
        judge, count = self.judge, self.held.examples
        if (chance := judge.chance) is not None:
            assert judge.floating is not None
            yield (
                f"on {plural(count, 'validation example')} the module's "
                f"{chance.words(judge.floating.name, judge.floating.floating)}, so that a loss says nothing; give it "
                "trained weights, or its own labels"
            )
        if judge.unjudged:
            yield f"labels do not count here: {judge.unjudged}. What a file loses is told in {judge.unit}"
        if others is None and (told := told_of_others(judge)):
            yield told
        known = None if judge.floating is None or judge.unit not in _COUNTED else judge.floating.floating
        if most and known is not None and known >= _KNOWN and count >= FEW_JUDGED:
            yield (
                f"the module is right about {100 * known:.4g} % of {count:,} validation examples. If "
                "it was trained on them, files lose more there than on new ones (a ResNet-20 in 30 KB 5.4 points, and "
                f"1.5 of its test split): give examples it has not seen (validation=), or a larger {name}="
            )
        one = 100 / (count if judge.floating is None else judge.floating.examples)
        if most is not None and 0 < most < one and judge.unit in _COUNTED:
            yield (
                f"{name}={most:g} is less than one of {plural(count, 'validation example')}, {one:.2g} points: a "
                f"file may lose none. Say {name}={math.ceil(100 * one) / 100:g}, or give more if there are more "
                "(validation=)"
            )

    def example_feed(self, session: Session) -> InputArrays:
        """Return the first example as a session takes it; the first batch where its size is fixed."""
        one = self.inputs.example(1) if self.traced.any_batch else self.inputs.batches[0]
        return {port.name: each.numpy() for port, each in zip(session.inputs, one, strict=True)}

    def recipe_fields(self, dynamic: Dynamic) -> dict[str, Any]:
        """Return fields of recipes that train the module: metric, classes, task, and the axes as they were given."""
        judged, layout = self.judge.floating, self.examples.layout
        # A word that only tells a file's users what to measure trains nothing.
        told = judging_metric(self.metric) is not None
        return {
            "metric": self.metric if told else "accuracy" if judged is None else judged.name,
            "task": self.use.task,
            "class_axis": layout.axis,
            "ignore_index": None if layout.ignore_index == IGNORE_INDEX else layout.ignore_index,
            "dynamic": dynamic,
        }

    def facts(self) -> Mapping[str, Any]:
        """Return digests of all that figures of files follow from.

        A metric of one's own, whose code may change, is known by its value of the module.
        """
        judged, own = self.judge.floating, self.metric is not None and self.metric not in [*METRICS]
        return {
            "module": digest((tensors_digest(self.untouched), str(self.traced.graph.graph))),
            "data": _digest(self.examples.with_targets()),
            "validation": _digest(self.held),
            "file information": digest([repr((self.use, self.examples.layout))]),
            # A search of before they were judged does not go on as if none were ruined.
            **({"other outputs": ", ".join(self.judge.kinds)} if self.judge.kinds else {}),
            **({"metric": f"{judged.floating:.6g}"} if own and judged is not None else {}),
        }


def drop_noise(seen: OutputError, judge: Judge, examples: int) -> float | None:
    """Return one standard error of a drop on so many examples, as :meth:`SearchedModule.noise`."""
    if seen.changed is None or judge.unit not in _COUNTED:
        return None
    return 100 * math.sqrt(max(seen.changed, 0.5 / examples) / examples)


def judge_file(path: Path, judge: Judge, held: CalibrationInputs, limits: Limits | None) -> OutputError:
    """Return how far the outputs of a file on ``held`` are from the reference of ``judge``."""
    return judge.judge(session_outputs(Session(path, limits=limits), held.batches))


def _digest(inputs: CalibrationInputs) -> str:
    return digest(part for batch in (*inputs.batches, inputs.targets) for part in batch)
