"""``attar.run``: the main path. A recipe in; files that were decoded, verified and measured, and a page out.

    recipe -> data, modules -> dry run of every model, then of its stages
           -> for each seed, teachers first: stages -> pack -> parity -> file
           -> for every file: verify, test, latency -> report.json -> report.html

Every step is journaled and every training is checkpointed: a run that was killed continues with
``resume=True`` and ends in the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A finished run.

    Attributes:
        folder: where it is.
        report: what was measured on its models, as ``report.json`` has it under ``run``; empty on ranks but the first.
        page: ``report.html``.
    """

    folder: Path
    report: Mapping[str, Any]
    page: Path | None

    @property
    def files(self) -> dict[str, Path]:
        """The ``.attar`` file of each model, of the first seed."""
        return {model["name"]: self.folder / model["file"] for model in self.report.get("models", ())}


def run(recipe: Recipe | str | Path, out: str | Path, *, resume: bool = False, command: str = "") -> Run:
    """Do what a recipe says, in a folder of its own.

    Args:
        recipe: a :class:`Recipe`, or the path of one in YAML.
        out: the folder.
        resume: go on with the run that is there, if there is one.
        command: what the report says the run was started by.

    Returns:
        What was measured, and where the files are.

    Raises:
        SpecError: something in the recipe cannot work, or the folder holds a run that is not to be resumed or that
            another recipe, other data or other code began.
        ModelError, ParityError: a model cannot be trained or deployed; found before any training.
        AttarError: another run is on in the folder; it cannot be written; a loss is not finite.
        KeyboardInterrupt: SIGINT came, wherever; the run can be gone on with.

    Example:
        >>> import attar
        >>> recipe = attar.Recipe(data="digits", models={"net": {"source": "net.py:build"}})
        >>> run = attar.run(recipe, "runs/net")
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    out = Path(out)
    with interruptible(), references_from(recipe.folder), writing(out), threads_kept():
        metric = find(recipe.metric)
        sets = load_splits(recipe.data, recipe.folder, task=recipe.task, metric=metric[0])
        made = model_sources(recipe)
        check_requirements(recipe, sets, made)
        folder = RunFolder(out, run_facts(recipe, sets), resume=resume, first=is_first(recipe))
        try:
            keep_freed_memory()
            calibration = sets.calibration(shared_parameters(made))
            rehearsed = dry_run_models(recipe, made, sets.use, calibration, folder.journal)
            try_stages(recipe, sets, made, rehearsed, metric)
            recipe = autotune(recipe, folder.journal, rehearsed, calibration)
            folder.write_recipe(recipe)
            fabric = launch_fabric(recipe, folder)
            apply_layout(recipe, made)
            work = RunModels(recipe, sets, made, rehearsed, calibration, metric, folder, fabric)
            for seed in recipe.seeds:
                work.begin(seed)
                for name in recipe.order:
                    work.model(name)
            if not folder.first:
                return Run(out, {}, None)
            report = measure_results(recipe, sets, made, metric, folder, command=command)
            remember_run(out, report)
            return Run(out, report, build_page(out))
        finally:
            for origin in made.values():
                origin.hand_back()
            folder.close()
