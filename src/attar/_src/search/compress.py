"""``attar.compress``: say what a file may lose or take, get the files that hold it.

goal --> step --> quantize, or train --> verified file --> bytes, drop, milliseconds --+
          ^                                                                            |
          +----------------------------------------------------------------------------+--> front, best.attar, page
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.core.digest import digest
from attar._src.core.errors import DataError, SpecError
from attar._src.core.fields import main_output_name
from attar._src.core.spec import build_spec
from attar._src.data.axes import Dynamic
from attar._src.deploy.dry_run import check_deployable, example_of
from attar._src.deploy.fidelity import labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.deploy.validation_inputs import validation_inputs
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.methods.allocate.judge import Judge, Labelled
from attar._src.methods.allocate.measure import tensors_digest
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.forms.as_module import as_module
from attar._src.model.trace import trace
from attar._src.search.compression_result import CompressionResult
from attar._src.search.goal import Aim, Goal
from attar._src.search.goal_search import GoalSearch
from attar._src.search.post_training import PostTraining
from attar._src.search.search_folder import SearchFolder
from attar._src.search.training.parts import TrainingParts, divide
from attar._src.search.training.trainer import Trainer
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context

#: One of so many examples is held out where there is no ``validation``.
HELD_OUT = 4


def compress(
    module: Any,
    data: Any,
    folder: str | Path,
    *,
    max_drop: float | None = None,
    max_bytes: int | None = None,
    max_ms: float | None = None,
    minimise: Aim | None = None,
    minutes: float | None = None,
    resume: bool = False,
    validation: Any = None,
    train: Any = None,
    teacher: Any = None,
    augment: Sequence[Any] = (),
    epochs: int | None = None,
    labels: Any = None,
    keep: Sequence[str] = (),
    examples: int = 512,
    batch: int = 64,
    collate: Callable[[list[Any]], Any] | None = None,
    dynamic: Dynamic = None,
    preprocessing: Preprocessing | None = None,
    task: str | None = None,
    class_names: Sequence[str] = (),
    metric: str | None = None,
    ignore_index: int = IGNORE_INDEX,
    class_axis: int | None = None,
    licence: str | None = None,
    limits: Limits | None = None,
    on_step: Callable[[str], None] | None = None,
) -> CompressionResult:
    """Find the files of a trained module that hold a goal.

    Cheap files come first: floating point, 8 bits with activations in floating point, dynamic and static, 4 bits. Then
    each layer gets bits of its own, at sizes towards the goal. Below the smallest size that holds comes reconstruction,
    or, with ``train``, training: distillation on learned grids, gradual pruning, and students with fewer channels or
    layers, which learn from ``teacher``. The module itself stays as it is.
    Every file is packed, decoded, compared, judged on validation examples and timed beside the floating-point file;
    one is recommended for its time only if three of four rounds were faster.

    Args:
        module: as :func:`attar.quantize` takes it; so are ``data``, ``labels``, ``examples``, ``batch``, ``collate``,
            ``dynamic``, ``preprocessing``, ``task``, ``class_names``, ``metric``, ``ignore_index``, ``class_axis``,
            ``licence`` and ``limits``.
        data: real inputs for calibration.
        folder: for the files and what was measured.
        max_drop: points that a file may lose on ``validation``: of the metric where there are labels, else of
            predictions that change, else the relative error in per cent.
        max_bytes: bytes that a file may have.
        max_ms: milliseconds that one example may take on one thread of this machine.
        minimise: ``bytes``, ``ms`` or ``drop``: what to make small within these bounds; by default the first of drop,
            bytes and ms that has no bound.
        minutes: time for the search, from the call on; None for as long as it pays. What would not end in time is left
            out.
        resume: go on with the search in ``folder``.
        validation: examples that judge, in a form that ``data`` may have, labels included; by default one of four
            examples of ``data``, which then do not calibrate. Never those of the test that is reported.
        train: training examples with labels: arrays ``(x, y)`` or a :class:`attar.extend.Dataset`; they need
            ``validation``, other examples. True: ``data`` are the training examples, and a tenth of them, which is not
            trained on, judges. None: nothing is trained.
        teacher: a module of the same classes that students learn from; by default ``module``.
        augment: random changes of training examples, as in a recipe: ``[{"name": "crop", "padding": 2}, "flip"]``.
        epochs: of a whole training; by default 20 (30 of fewer than 20,000 examples), with ``minutes`` as fit.
        keep: globs of layers that stay in floating point.
        on_step: called with a line on each step.

    Returns:
        The files, the front, and the best one; if none holds the goal, the nearest.

    Raises:
        DataError, ModelError, SpecError, UnknownName: as :func:`attar.quantize`.

    Example:
        >>> import attar, tempfile, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> found = attar.compress(net, torch.randn(64, 8), tempfile.mkdtemp(), max_drop=10)
        >>> found.met
        True
    """
    started = time.monotonic()
    goal: Goal = build_spec(
        Goal, where="compress", max_drop=max_drop, max_bytes=max_bytes, max_ms=max_ms, minimise=minimise
    )
    if minutes is not None and not minutes > 0:
        raise SpecError(f"minutes={minutes:g}: give a time above 0, or none for as long as it pays")
    kept = SearchFolder(Path(folder), resume=resume)
    parts = None
    if isinstance(train, TrainingParts):
        parts = train
    elif train is not None and train is not False:
        data, validation, preprocessing, parts = _training(
            module, data, validation, preprocessing, train, teacher, augment, epochs
        )
    elif teacher is not None or augment or epochs is not None:
        raise SpecError("teacher, augment and epochs are of a training; add train=(x, y), or train=True")
    module, inputs, _ = prepare(module, data, examples=examples, batch=batch, collate=collate, dynamic=dynamic)
    use = FileInfo(preprocessing, task, tuple(class_names), metric, licence)
    example, axes, inputs = example_of(inputs, dynamic)
    compared = labelled_examples(inputs, labels, metric, ClassLayout(class_axis, ignore_index))
    traced = trace(module, example, names=inputs.names, dynamic=axes)
    if validation is None:
        learn, held = compared.with_targets().one_of(HELD_OUT, whole=not traced.any_batch)
        if learn is held:
            several = "examples" if traced.any_batch else f"batches of {inputs.count(inputs.batches[0])}"
            raise DataError(
                f"compress judges files on held-out inputs; give {HELD_OUT} {several} or more, or validation="
            )
        inputs, compared = replace(learn, targets=()), replace(compared, inputs=learn, targets=learn.targets)
    else:
        held = validation_inputs(module, validation, example, axes, batch=batch, collate=collate, dynamic=dynamic)
    dry_run = check_deployable(module, traced, use, inputs, limits=limits)
    untouched = CompressedModel.of(traced, record=recorded_removals(module))
    output = main_output_name({port.name: port.dtype.startswith("f") for port in traced.outputs})
    judge = Judge.of(
        traced.graph,
        held,
        output,
        Labelled(compared.metric, compared.layout, compared.given, task, bool(use.class_names)),
    )
    context = Context(compared.with_targets(), use=use)
    maker = PostTraining(untouched, context, inputs, dry_run, compared, held, judge, limits, tuple(keep))
    facts = {
        "goal": goal.describe(),
        "module": digest((tensors_digest(untouched), str(traced.graph.graph))),
        "keep": list(keep),
        "data": _digest(compared.with_targets()),
        "validation": _digest(held),
        "file information": digest([repr((use, compared.layout))]),
    }
    trainer = None
    if parts is not None:
        known = metric if metric is not None else None if judge.floating is None else judge.floating.name
        fields = {
            "metric": known or "accuracy",
            "task": task,
            "class_axis": class_axis,
            "ignore_index": None if ignore_index == IGNORE_INDEX else ignore_index,
            "dynamic": dynamic,
        }
        trainer = Trainer(parts, fields, kept.path, licence, tuple(keep))
        facts["training"] = trainer.recipe([]).described()
    seconds = None if minutes is None else 60 * minutes
    return GoalSearch(kept, goal, maker, seconds, started, on_step or _quiet, trainer).run(facts)


def _training(
    module: Any,
    data: Any,
    validation: Any,
    preprocessing: Preprocessing | None,
    train: Any,
    teacher: Any,
    augment: Sequence[Any],
    epochs: int | None,
) -> tuple[Any, Any, Preprocessing | None, TrainingParts]:
    """Return calibration data, validation, preprocessing, and the parts of the recipes."""
    if train is True and validation is not None:
        raise SpecError("train=True holds validation examples out of data; give train=(x, y) beside validation=")
    if train is not True and validation is None:
        raise SpecError(
            "train=(x, y) needs validation=, examples that neither train nor data have; or give all as data, with "
            "train=True, which holds a tenth out"
        )
    if preprocessing is not None:
        raise SpecError(
            "preprocessing= is of raw examples, and training takes inputs; give train an attar.extend.Dataset of raw "
            "examples with this preprocessing"
        )
    divided = divide(data if train is True else train, validation, augment)
    source = {"factory": as_module(module)[0]}
    taught = None if teacher is None else {"factory": as_module(teacher)[0]}
    parts = TrainingParts(divided.data, source, taught, epochs)
    if train is True:
        return divided.calibration, divided.validation, divided.preprocessing, parts
    return data, divided.validation, divided.preprocessing, parts


def _digest(inputs: CalibrationInputs) -> str:
    return digest(part for batch in (*inputs.batches, inputs.targets) for part in batch)


def _quiet(_: str) -> None:
    pass
