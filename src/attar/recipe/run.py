"""``attar.run``: the main path. A recipe in; files that were decoded, verified and measured, and a page out.

    recipe -> data, modules -> dry run of every model, then of its stages
           -> for each seed, teachers first: stages -> pack -> parity -> file
           -> for every file: verify, test, latency -> report.json -> report.html

Whatever is done is journaled and whatever is trained is checkpointed: killed at any moment, a run goes on where it was
and ends in the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.core.interrupt import listening
from attar.core.registry import references_from
from attar.measure.metric import find
from attar.recipe.account import account
from attar.recipe.data import load_sets
from attar.recipe.decide import decide, lay_out, threads_kept
from attar.recipe.folder import Folder, writing
from attar.recipe.foresee import foresee
from attar.recipe.launch import facts, is_first, launch
from attar.recipe.needs import demand
from attar.recipe.origin import origins
from attar.recipe.recipe import Recipe, read
from attar.recipe.rehearse import rehearse_all
from attar.recipe.work import Work
from attar.report.page import build
from attar.report.record import remember_run
from attar.train.heap import keep_freed


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
        >>> attar.run(recipe, "runs/net")  # doctest: +SKIP
    """
    recipe = recipe if isinstance(recipe, Recipe) else read(recipe)
    out = Path(out)
    with listening(), references_from(recipe.folder), writing(out), threads_kept():
        metric = find(recipe.metric)
        sets = load_sets(recipe.data, recipe.folder, task=recipe.task, metric=metric[0])
        made = origins(recipe)
        demand(recipe, sets, made)
        folder = Folder(out, facts(recipe, sets), resume=resume, first=is_first(recipe))
        try:
            keep_freed()
            calibration = sets.calibration(next(iter(made.values())).names)
            rehearsed = rehearse_all(recipe, made, sets.use, calibration, folder.journal)
            foresee(recipe, sets, made, rehearsed, metric)
            recipe = decide(recipe, folder.journal, rehearsed, calibration)
            folder.write_recipe(recipe)
            fabric = launch(recipe, folder)
            lay_out(recipe, made)
            work = Work(recipe, sets, made, rehearsed, calibration, metric, folder, fabric)
            for seed in recipe.seeds:
                work.begin(seed)
                for name in recipe.order:
                    work.model(name)
            if not folder.first:
                return Run(out, {}, None)
            report = account(recipe, sets, made, metric, folder, command=command)
            remember_run(out, report)
            return Run(out, report, build(out))
        finally:
            for origin in made.values():
                origin.hand_back()
            folder.close()
