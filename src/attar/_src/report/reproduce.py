"""The last section of the page: all it takes to do the run again and to compare the files."""

from __future__ import annotations

import json

from attar._src.report.content import Details, PageSection, PageTable
from attar._src.report.story import Story
from attar._src.report.wording import NONE, count


def reproduction(story: Story) -> PageSection:
    """Return the section with command, seeds, versions, files and recipe of a run, and the records of its stages."""
    run = story.run
    facts = [["Seeds", ", ".join(map(str, run.seeds)) or NONE], *map(list, run.versions.items())]
    files = [[model.measured.file, count(model.file_bytes), model.measured.sha256] for model in story.models]
    same = "Files: the same recipe, data and versions on the same machine give the same bytes"
    tables = [
        PageTable("Seeds and versions", ["What", "Which"], facts),
        PageTable(same, ["File", "Bytes", "SHA-256"], files, numbers=[1], code=[2]),
    ]
    recipe = run.recipe_yaml or (json.dumps(run.recipe, indent=2) if run.recipe else "")
    folds = [Details("The recipe as it was run", text=recipe, opened=True)] if recipe else []
    for model in story.models:
        if model.measured.record:
            record = json.dumps(model.measured.record, indent=2)
            folds.append(Details(f"What each stage did to {model.name}", text=record))
    return PageSection("again", "How to do it again", command=run.command, tables=tables, folds=folds)
