"""``attar.run``: from a recipe to verified and measured files, and a page that compares them.

    recipe -> data, modules -> preflight: requirements, dry run of every model, trial of every stage
           -> for each seed, teachers first: stages -> pack -> parity -> file
           -> for every file: verify, test, latency -> report.json -> report.html

Every step is journaled and every training is checkpointed. A killed run continues with ``resume=True`` and gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar._src.core.errors import AttarError
from attar._src.core.interrupt import interruptible
from attar._src.core.registry import references_from
from attar._src.measure.metric import find
from attar._src.pipeline.autotune import apply_layout, autotune, threads_kept
from attar._src.pipeline.data_splits import load_splits
from attar._src.pipeline.fabric import is_first, launch_fabric, run_facts
from attar._src.pipeline.folder import RunFolder, writing
from attar._src.pipeline.model_source import model_sources, shared_parameters
from attar._src.pipeline.models import RunModels
from attar._src.pipeline.preflight.dry_runs import dry_run_models
from attar._src.pipeline.preflight.requirements import check_requirements
from attar._src.pipeline.preflight.try_stages import try_stages
from attar._src.pipeline.results import measure_results
from attar._src.recipe.recipe import Recipe, read_recipe
from attar._src.report.page import build_page
from attar._src.report.record import remember_run
from attar._src.train.malloc import keep_freed_memory


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, ``run`` of ``report.json`` (empty but on the first rank), path of ``report.html``."""

    folder: Path
    report: Mapping[str, Any]
    page: Path | None

    @property
    def files(self) -> dict[str, Path]:
        """Name of a model -> its ``.attar`` file of the first seed."""
        return {model["name"]: self.folder / model["file"] for model in self.report.get("models", ())}


def run(recipe: Recipe | str | Path, out: str | Path, *, resume: bool = False, command: str = "") -> Run:
    """Run a recipe in a folder of its own.

    Args:
        recipe: a :class:`Recipe`, or the path of one in YAML.
        out: the folder.
        resume: continue the run in the folder, if any.
        command: the command shown in the report.

    Returns:
        The measurements and the files.

    Raises:
        SpecError: a part of the recipe cannot work; the folder has a run and ``resume`` is false, or that run had
            another recipe, data or code.
        ModelError, ParityError: a model cannot be trained or deployed; raised before any training.
        AttarError: another run is active in the folder; the folder cannot be written; a loss is not finite.
        KeyboardInterrupt: SIGINT arrived; the run can be resumed.

    Example:
        >>> import attar
        >>> recipe = attar.Recipe(data="digits", models={"net": {"source": "net.py:build"}})
        >>> run = attar.run(recipe, "runs/net")
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    out = Path(out)
    with interruptible(), references_from(recipe.folder), writing(out), threads_kept():
        metric = find(recipe.metric, recipe.class_layout)
        splits = load_splits(recipe.data, recipe.folder, task=recipe.task, metric=metric[0])
        sources = model_sources(recipe, splits.calibration)
        check_requirements(recipe, splits, sources)
        folder = RunFolder(out, run_facts(recipe, splits), resume=resume, first=is_first(recipe))
        try:
            keep_freed_memory()
            try:
                calibration = splits.calibration(shared_parameters(sources))
                dry_runs = dry_run_models(recipe, sources, splits.use, calibration, folder.journal)
                foreseen = try_stages(recipe, splits, sources, dry_runs, metric)
            except AttarError:
                folder.refuse()
                raise
            recipe = autotune(recipe, folder.journal, dry_runs, calibration)
            folder.write_recipe(recipe)
            fabric = launch_fabric(recipe, folder)
            apply_layout(recipe, sources)
            models = RunModels(recipe, splits, sources, dry_runs, calibration, metric, folder, fabric, foreseen)
            for seed in recipe.seeds:
                models.run_seed(seed)
            if not folder.first:
                return Run(out, {}, None)
            report = measure_results(recipe, splits, sources, metric, folder, command=command)
            remember_run(out, report)
            return Run(out, report, build_page(out))
        finally:
            for source in sources.values():
                source.restore()
            folder.close()
