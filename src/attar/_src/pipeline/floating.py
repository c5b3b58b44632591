"""The floating-point model that a file of a run is compared with: the module before its first compressing stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from attar._src.deploy.fidelity import ComparedExamples, Floating
from attar._src.deploy.parity import EXAMPLES, output_arrays
from attar._src.measure.class_layout import ClassLayout
from attar._src.measure.metric import Metric
from attar._src.pipeline.model_source import ModelSource
from attar._src.train.batch import Feed
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


def compression_start(stages: Sequence[Stage]) -> int | None:
    """Return the index of the first stage that rounds or prunes; None if none does."""
    return next((index for index, stage in enumerate(stages) if stage.compresses()), None)


def floating_before(learner: Learner, stages: Sequence[Stage], index: int, examples: ComparedExamples) -> Floating:
    """Return the learner as it is before the stage at ``index``, as its outputs on the examples."""
    program = learner.graph(train=False)
    with torch.no_grad():
        outputs = [output_arrays(program(*batch)) for batch in examples.inputs.batches]
    trained = any(stage.works_on is Learner for stage in stages[index:])
    before = "as its source gives it" if index == 0 else f"after stage {index - 1}, {stages[index - 1].stage}"
    return Floating(f"the model {before}", outputs=outputs, trained_since=trained)


def compared_examples(
    source: ModelSource,
    feed: Feed | None,
    calibration: CalibrationInputs,
    metric: tuple[str, Metric],
    layout: ClassLayout,
    most: int = EXAMPLES,
) -> ComparedExamples:
    """Return at most ``most`` validation examples with targets; without such a split, those of calibration."""
    if feed is None:
        return ComparedExamples(calibration.of(source.parameters).first(most))
    names: tuple[str, ...] = ()
    batches, targets, seen = [], [], 0
    for batch in feed.once():
        part = batch.part(slice(most - seen))
        batches.append(part.inputs)
        targets.append(part.targets)
        names, seen = part.names, seen + len(part)
        if seen >= most:
            break
    return ComparedExamples(CalibrationInputs(tuple(batches), names).of(source.parameters), targets, metric, layout)
