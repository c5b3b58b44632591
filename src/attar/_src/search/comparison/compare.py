"""``attar.compare``: which method should I use here?

method --> variant --> strength --> verified file --> bytes, drop --+
                          ^                                         |
                          +-----------------------------------------+--> one file a method --> time, memory, energy
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import AttarWarning, SpecError
from attar._src.data.axes import Dynamic
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.search.comparison.answer import equals
from attar._src.search.comparison.comparison_folder import ComparisonFolder
from attar._src.search.comparison.post_training_files import PostTrainingFiles
from attar._src.search.comparison.registry import chosen_methods
from attar._src.search.comparison.target import equal_targets
from attar._src.search.comparison.trained_files import TrainedFiles
from attar._src.search.comparison.tuning import Comparison
from attar._src.search.searched_module import SearchedModule
from attar._src.search.step_times import seconds_allowed
from attar._src.search.training.given import training_parts
from attar._src.search.training.trainer import Trainer


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison found.

    Attributes:
        folder: with the files, ``compare.json`` and ``compare.html``.
        found: the fields of ``compare.json``.
    """

    folder: Path
    found: Mapping[str, Any]

    @property
    def answer(self) -> str:
        """Which method to use here, for each target."""
        return "\n".join(" ".join(each["answer"]) for each in self.found["targets"])

    def recommended(self, what: str) -> Mapping[str, Any] | None:
        """Return the row of the method to use at equal ``bytes`` or ``drop``; None if none reaches the target."""
        targets = [each for each in self.found["targets"] if each["what"] == what]
        if not targets:
            raise SpecError(f"the comparison has no target {what!r}; give {what}= to attar.compare")
        return next(iter(equals(what, targets[0]["rows"])), None)


def compare(
    module: Any,
    data: Any,
    folder: str | Path,
    *,
    bytes: int | None = None,
    drop: float | None = None,
    methods: Sequence[str] | None = None,
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
) -> ComparisonResult:
    """Compare methods of compression on a module, at equal bytes and at equal loss.

    Each method is tuned to the target: bits of the layers by an integer program, sparsity, channels and layers by
    searching for the share. The file that serves the target best stands for the method. All of these are timed in
    turns in one run, and opened in processes of their own for their memory.

    Args:
        module, data, validation, train, teacher, augment, epochs, labels, examples, batch, collate, dynamic,
            preprocessing, task, class_names, metric, ignore_index, class_axis, licence, limits: as for
            :func:`attar.compress`. Without ``train`` methods that train are left out.
        folder: for the files and what was measured.
        bytes: that every file may have; a file has at most 2 % less, or the table says that it cannot.
        drop: points that every file may lose on ``validation``. Without either, an eighth of the bytes in floating
            point, and one point.
        methods: names of those to compare; all by default (docs/goals.md).
        minutes: for the comparison, from the call on; what would not end in time is left out.
        resume: go on in ``folder``; another target may be given, and uses the files that are there.
        keep: globs of layers that are not quantized.
        on_step: called with a line on each file.

    Returns:
        The figures, and which method to use.

    Raises:
        DataError, ModelError, SpecError, UnknownName: as :func:`attar.compress`.

    Example:
        >>> import attar, tempfile, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
        >>> found = attar.compare(net, torch.randn(64, 8), tempfile.mkdtemp(), bytes=1500, methods=["quantization"])
        >>> found.recommended("bytes")["file_bytes"] <= 1500
        True
    """
    started, say = time.monotonic(), on_step or (lambda _: None)
    asked, chosen = equal_targets(bytes, drop), chosen_methods(methods)
    seconds = seconds_allowed(minutes)
    kept = ComparisonFolder(Path(folder), resume=resume)
    data, validation, preprocessing, parts = training_parts(
        module, data, validation, preprocessing, train, teacher, augment, epochs
    )
    of = SearchedModule.of(
        module,
        data,
        "compare",
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
    for doubt in of.doubts(drop, "drop"):
        warnings.warn(doubt, AttarWarning, stacklevel=2)
    maker = PostTrainingFiles(of, tuple(keep))
    facts = {**of.facts(), "keep": list(keep)}
    trained = None
    if parts is not None:
        trained = TrainedFiles(
            Trainer(parts, of.recipe_fields(dynamic), kept.path, licence, tuple(keep), others=of.learns_others)
        )
        facts["training"] = trained.trainer.described()
    comparison = Comparison(of, kept, maker, chosen, asked, seconds, started, say, trained)
    return ComparisonResult(kept.path, comparison.run(facts))
