"""The end of a search: the front, its files and recipes, the recommended file, the test split, the page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.digest import file_digest
from attar._src.core.errors import AttarError
from attar._src.pipeline.execution.preparation import Preparation
from attar._src.pipeline.folder import RECIPE
from attar._src.recipe.yaml_text import format_yaml, parse_yaml
from attar._src.report.search_page import write_search_page
from attar._src.search.goal import Goal
from attar._src.search.recommended import front_of, recommended, with_gains
from attar._src.search.search_folder import BEST, FILES, SEARCH
from attar._src.search.trial import metric_on, run_trial
from attar._src.search.trials.reference import SearchReference
from attar._src.search.trials.spec import HoledRecipe
from attar._src.search.trials.store import StoredTrial
from attar._src.search.tried_file import TriedFile

#: Folder of the recipes without holes.
RECIPES = "recipes"
_MADE_AGAIN = (
    "Values in the holes; `attar run recipes/NAME.yaml --out again` makes the file again, byte for byte, on the same "
    "data and machine"
)


@dataclass(frozen=True)
class SearchResult:
    """What a search by trials found.

    Attributes:
        folder: with ``best.attar``, ``files``, ``recipes``, ``search.json`` and ``search.html``.
        goal: of the search.
        files: the reference, and what the trials made, by number; ``options`` are the values in the holes.
        front: the files that no other one beats in bytes and loss, and in time if it counts.
        best: the recommended one; where none holds the goal, the nearest.
        met: whether it holds the goal.
        ended: why the search ended.
        failed: trial -> why it made no file.
        recipes: file on the front -> its recipe without holes.
        test: file on the front, or the reference -> the metric on the test split.
    """

    folder: Path
    goal: Goal
    files: Sequence[TriedFile]
    front: Sequence[TriedFile]
    best: TriedFile
    met: bool
    ended: str
    failed: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return {
            "goal": self.goal.describe(),
            "words": self.goal.words(),
            "met": self.met,
            "best": self.best.name,
            "front": [each.name for each in self.front],
            "ended": self.ended,
            "files": with_gains(self.goal, self.files),
            "failed": dict(self.failed),
            "skipped": [],
            "recipes": dict(self.recipes),
            "test": dict(self.test),
            "made_again": _MADE_AGAIN,
        }


def trial_name(number: int) -> str:
    """Return what a trial's file is called."""
    return f"trial {number}"


def tried_file(trial: StoredTrial, holed: HoledRecipe) -> TriedFile:
    """Return the file of a trial that made one; its options are the values that count."""
    seen = trial.outcome
    assert seen is not None
    return TriedFile(
        name=trial_name(trial.number),
        options=holed.counted(trial.point or {}),
        file=seen.file,
        sha256=seen.sha256,
        file_bytes=seen.file_bytes,
        drop=seen.drop,
        unit=seen.unit,
        metric=seen.value,
        ruined=seen.ruined,
        ms=seen.ms or 0.0,
        against_floating=seen.against_reference or (1.0, 1.0, 1.0),
        seconds=seen.seconds,
    )


def finish_search(
    out: Path,
    holed: HoledRecipe,
    trials: Sequence[StoredTrial],
    reference: SearchReference,
    prepared: Preparation,
    ended: str,
    *,
    model: str,
    test: bool,
) -> SearchResult:
    """Write what a search found into its folder.

    Args:
        out: the folder.
        holed: the recipe.
        trials: of the search.
        reference: that they are compared with.
        prepared: data and modules.
        ended: why the search ended.
        model: whose files they are.
        test: whether to read the test split.

    Raises:
        AttarError: trials were made and every one failed.
    """
    goal = holed.spec.goal
    made = {trial_name(each.number): each for each in trials if each.outcome is not None}
    failed = {trial_name(each.number): each.reason for each in trials if each.reason}
    if failed and not made and test:
        raise AttarError(f"no trial made a file; the first failed by: {next(iter(failed.values()))}")
    files = [reference.as_file({}), *(tried_file(each, holed) for each in made.values())]
    front, best = front_of(goal, files), recommended(goal, files)
    kept = [each for each in (*front, best) if each.name in made]
    for each in kept:
        _keep(out, holed, made[each.name], model)
    _remove_others(out, {_stem(each) for each in kept})
    result = SearchResult(
        out,
        goal,
        files,
        front,
        best,
        goal.holds(best),
        ended,
        failed,
        {each.name: f"{RECIPES}/{_stem(each)}.yaml" for each in kept},
        _test(out, [files[0], *kept], reference, prepared, model) if test else {},
    )
    write_atomically(out / BEST, (out / best.file).read_bytes())
    write_atomically(out / SEARCH, (json.dumps(result.as_dict(), indent=1, allow_nan=False) + "\n").encode())
    write_search_page(out, result.as_dict())
    return result


def _stem(file: TriedFile) -> str:
    return file.name.replace(" ", "-")


def _remove_others(out: Path, stems: set[str]) -> None:
    """Remove files and recipes that an earlier part of the search kept, and that are not on the front any more."""
    for folder, ending in ((FILES, ".attar"), (RECIPES, ".yaml")):
        for path in (out / folder).glob(f"trial-*{ending}"):
            if path.stem not in stems:
                path.unlink()


def _keep(out: Path, holed: HoledRecipe, trial: StoredTrial, model: str) -> None:
    """Copy the file of a trial and its recipe; made again if another machine has it, or if it is damaged."""
    outcome = trial.outcome
    assert outcome is not None
    path, stem = out / outcome.file, trial_name(trial.number).replace(" ", "-")
    if not path.is_file() or file_digest(path) != outcome.sha256:
        rung = len(trial.scores) - 1 if trial.scores else None
        recipe = holed.at(trial.point or {}, rung)
        again = run_trial(recipe, path.parent, model=model)
        if again.sha256 != outcome.sha256:
            raise AttarError(
                f"{path} is missing or damaged, and its recipe gave other bytes here; copy it from where it was made"
            )
    for folder in (FILES, RECIPES):
        (out / folder).mkdir(exist_ok=True)
    write_atomically(out / FILES / f"{stem}.attar", path.read_bytes())
    tree = parse_yaml(path.parent / RECIPE)
    root = (path.parent / str(tree.get("root", "."))).resolve()
    tree["root"] = os.path.relpath(root, (out / RECIPES).resolve())
    write_atomically(out / RECIPES / f"{stem}.yaml", format_yaml(tree))


def _test(
    out: Path,
    files: Sequence[TriedFile],
    reference: SearchReference,
    prepared: Preparation,
    model: str,
) -> dict[str, float]:
    """Return the metric on the test split of each file; those that are known are not measured again."""
    known: dict[str, float] = {}
    try:
        before = json.loads((out / SEARCH).read_bytes())
        hashes = {each["name"]: each["sha256"] for each in before["files"]}
        known = {hashes[name]: value for name, value in before["test"].items()}
    except (OSError, ValueError, KeyError):
        pass
    layout, found = reference.recipe.class_layout, {}
    for each in files:
        name = reference.model if each.name == reference.name else model
        if each.sha256 not in known:
            known[each.sha256] = metric_on(prepared, prepared.splits.test, out / each.file, name, layout)
        found[each.name] = known[each.sha256]
    return found
