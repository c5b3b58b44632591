"""``attar.compress``: say what a file may lose or take, get the files that hold it.

goal --> step --> quantize, or train --> verified file --> bytes, drop, milliseconds --+
          ^                                                                            |
          +----------------------------------------------------------------------------+--> front, best.attar, page
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import AttarWarning, SpecError
from attar._src.core.spec import build_spec
from attar._src.data.axes import Dynamic
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.search.compression_result import CompressionResult
from attar._src.search.goal import Aim, Goal
from attar._src.search.goal_search import GoalSearch
from attar._src.search.post_training import PostTraining
from attar._src.search.search_folder import SearchFolder
from attar._src.search.searched_module import SearchedModule
from attar._src.search.step_times import seconds_allowed
from attar._src.search.training.given import training_parts
from attar._src.search.training.trainer import Trainer


def compress(
    module: Any,
    data: Any,
    folder: str | Path,
    *,
    max_drop: float | None = None,
    max_bytes: int | None = None,
    max_ms: float | None = None,
    max_others: float | None = None,
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
    metric: Any = None,
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
        max_others: per cent that an output beside the main one may lose, of its predictions or of its variance; 50 by
            default, as more of them ruins it.
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
    started, say = time.monotonic(), on_step or _quiet
    goal: Goal = build_spec(
        Goal,
        where="compress",
        max_drop=max_drop,
        max_bytes=max_bytes,
        max_ms=max_ms,
        max_others=max_others,
        minimise=minimise,
    )
    seconds = seconds_allowed(minutes)
    kept = SearchFolder(Path(folder), resume=resume)
    data, validation, preprocessing, parts = training_parts(
        module, data, validation, preprocessing, train, teacher, augment, epochs
    )
    of = SearchedModule.of(
        module,
        data,
        "compress",
        validation=validation,
        labels=labels,
        examples=examples,
        batch=batch,
        collate=collate,
        dynamic=dynamic,
        preprocessing=preprocessing,
        task=task,
        class_names=class_names,
        metric=metric,
        ignore_index=ignore_index,
        class_axis=class_axis,
        licence=licence,
        limits=limits,
        say=say,
    )
    if max_others is not None and not of.judge.kinds:
        raise SpecError(f"max_others={max_others:g}: the module has no output beside the main one; leave it out")
    for doubt in of.doubts(goal.max_drop, "max_drop", others=max_others):
        warnings.warn(doubt, AttarWarning, stacklevel=2)
    maker = PostTraining(
        of.untouched, of.context, of.inputs, of.dry_run, of.examples, of.held, of.judge, of.limits, tuple(keep)
    )
    facts = {"goal": goal.describe(), "keep": list(keep), **of.facts()}
    trainer = None
    if parts is not None:
        trainer = Trainer(parts, of.recipe_fields(dynamic), kept.path, licence, tuple(keep), others=of.learns_others)
        facts["training"] = trainer.described()
    return GoalSearch(kept, goal, maker, seconds, started, say, trainer).run(facts)


def _quiet(_: str) -> None:
    pass
