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

from attar._src.pipeline.execution.execute import executed
from attar._src.pipeline.results import measure_results
from attar._src.recipe.recipe import Recipe, as_recipe
from attar._src.report.page import build_page
from attar._src.report.record import remember_run


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


def run(
    recipe: Recipe | str | Path | Mapping[str, Any], out: str | Path, *, resume: bool = False, command: str = ""
) -> Run:
    """Run a recipe in a folder of its own.

    Args:
        recipe: a :class:`Recipe`, the path of one in YAML, or a mapping of the same form, which may have Python
            objects. One with a search is run by :func:`attar.run_search`.
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
    recipe, out = as_recipe(recipe), Path(out)
    with executed(recipe, out, resume=resume) as done:
        if not done.folder.first:
            return Run(out, {}, None)
        splits, sources = done.prepared.splits, done.prepared.sources
        report = measure_results(done.recipe, splits, sources, done.prepared.metric, done.folder, command=command)
        remember_run(out, report)
        return Run(out, report, build_page(out))
