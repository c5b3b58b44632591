"""Models of another run that are the same in this one: taken over with their checkpoints, not trained again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar._src.pipeline.folder import RunFolder
from attar._src.pipeline.journal import RUN_FACTS, Journal
from attar._src.recipe.recipe import Recipe

#: Fields of a recipe that say nothing of how one of its models is trained.
_ELSEWHERE = ("models", "baseline", "teacher_cache")


def adopt_models(recipe: Recipe, facts: Mapping[str, Any], folder: RunFolder, other: Path) -> list[str]:
    """Take over finished models of another run into a new one, and return their names.

    A model is the same if its source, stages, teachers and their caches are, and data, seeds, versions and whatever
    else both runs share. So its file has the bytes that a training here would give.

    Args:
        recipe: of the new run, with one seed.
        facts: what it follows from, as in ``run.json``.
        folder: of the new run; an older one is left as it is.
        other: folder of the other run.
    """
    if not folder.is_new or not (other / RUN_FACTS).is_file() or "auto" in (recipe.precision, recipe.layout):
        return []
    own, theirs = json.loads(json.dumps(facts)), json.loads((other / RUN_FACTS).read_bytes())
    if _shared(own) != _shared(theirs):
        return []
    journal = Journal(other / folder.journal.path.name, writes=False)
    packed = {row["model"] for row in journal.find("packed")}
    same = [name for name in recipe.order if name in packed and _is_same(name, own, theirs)]
    # Not without its teachers.
    names = [name for name in same if set(recipe.only(name).models) <= set(same)]
    for name in names:
        shutil.copyfile(other / f"{name}.attar", folder.path / f"{name}.attar")
        state = Path(f"seed-{recipe.seeds[0]}") / name
        if (other / folder.state.name / state).is_dir():
            shutil.copytree(other / folder.state.name / state, folder.state / state, copy_function=_linked)
    for row in journal.rows:
        if row.get("model") in names:
            event, *_ = row.values()
            folder.journal.add(event, **{key: value for key, value in row.items() if key != "event"})
    return names


def _shared(facts: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {key: value for key, value in facts["recipe"].items() if key not in _ELSEWHERE}
    return {"recipe": recipe, "data": facts["data"], "versions": facts["versions"]}


def _is_same(name: str, own: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    one, two = (
        {part: facts["recipe"][part].get(name) for part in ("models", "teacher_cache")} for facts in (own, theirs)
    )
    files = all(own["files"].get(path, digest) == digest for path, digest in theirs["files"].items())
    return one == two and files


def _linked(source: str, target: str) -> None:
    """Link a file, which takes no space; copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
