"""A recipe executed up to its packed and verified files; what is measured of them comes after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attar._src.core.errors import AttarError
from attar._src.core.interrupt import interruptible
from attar._src.core.registry import references_from
from attar._src.pipeline.autotune import apply_layout, autotune, threads_kept
from attar._src.pipeline.execution.adopt import adopt_models
from attar._src.pipeline.execution.preparation import Preparation, prepare_run
from attar._src.pipeline.fabric import is_first, launch_fabric, run_facts
from attar._src.pipeline.folder import RunFolder, writing
from attar._src.pipeline.models import RunModels
from attar._src.pipeline.preflight.requirements import check_requirements
from attar._src.pipeline.preflight.try_stages import try_stages
from attar._src.recipe.recipe import Recipe
from attar._src.train.malloc import keep_freed_memory


@dataclass(frozen=True)
class Execution:
    """A run whose models are packed.

    Attributes:
        recipe: without ``auto`` fields.
        prepared: its data and modules.
        folder: locked.
    """

    recipe: Recipe
    prepared: Preparation
    folder: RunFolder

    def path(self, seed: int, model: str) -> Path:
        """Return the file of a model."""
        return self.folder.files(seed, self.recipe.seeds[0]) / f"{model}.attar"


@contextmanager
def executed(
    recipe: Recipe, out: Path, *, resume: bool, prepared: Preparation | None = None, known: Path | None = None
) -> Iterator[Execution]:
    """Check a recipe, train and pack its models in a folder, and hold the folder's lock in the block.

    Args:
        recipe: to execute.
        out: the folder.
        resume: continue the run in the folder, if any.
        prepared: data and modules of a run before, used where they fit.
        known: folder of a run before, whose models are taken over where they are the same.

    Raises:
        SpecError, DataError, ModelError, ParityError, AttarError: as :func:`attar.run`.
        KeyboardInterrupt: SIGINT arrived; the run can be resumed.
    """
    with interruptible(), references_from(recipe.folder), writing(out), threads_kept():
        if prepared is None or not prepared.fits(recipe):
            prepared = prepare_run(recipe)
        splits, sources = prepared.splits, prepared.sources
        check_requirements(recipe, splits, sources)
        facts = run_facts(recipe, splits)
        folder = RunFolder(out, facts, resume=resume, first=is_first(recipe))
        try:
            keep_freed_memory()
            try:
                calibration, dry_runs = prepared.dry_runs(recipe, folder.journal)
                foreseen = try_stages(recipe, splits, sources, dry_runs, prepared.metric)
            except AttarError:
                folder.refuse()
                raise
            if known is not None:
                adopt_models(recipe, facts, folder, known)
            recipe = autotune(recipe, folder.journal, dry_runs, calibration)
            folder.write_recipe(recipe)
            fabric = launch_fabric(recipe, folder)
            apply_layout(recipe, sources)
            models = RunModels(
                recipe, splits, sources, dry_runs, calibration, prepared.metric, folder, fabric, foreseen
            )
            for seed in recipe.seeds:
                models.run_seed(seed)
            yield Execution(recipe, prepared, folder)
        finally:
            prepared.restore()
            folder.close()
