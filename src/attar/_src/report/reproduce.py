"""Again: the last section of the page, all it takes to do the run once more and to know that it came out the same."""

from __future__ import annotations

import json

from attar._src.report.markup import Html, join, table_markup, tag
from attar._src.report.story import Story
from attar._src.report.wording import NONE, count


def again(story: Story) -> Html:
    """Return the command, seeds, versions, files and recipe of a run, and what its stages say they did."""
    run = story.run
    parts = [tag("pre", tag("code", run.command), class_="command")] if run.command else []
    facts = [["Seeds", ", ".join(map(str, run.seeds)) or NONE]]
    facts += [[name, version] for name, version in run.versions.items()]
    parts.append(table_markup("Seeds and versions", ["What", "Which"], facts))
    files = [
        [model.measured.file, count(model.file_bytes), tag("code", model.measured.sha256)] for model in story.models
    ]
    same = "Files: the same recipe, data and versions on the same machine give the same bytes"
    parts.append(table_markup(same, ["File", "Bytes", "SHA-256"], files, numbers=[1]))
    text = run.recipe_yaml or (json.dumps(run.recipe, indent=2) if run.recipe else "")
    if text:
        parts.append(_folded("The recipe as it was run", text, open_=True))
    for model in story.models:
        if model.measured.record:
            parts.append(_folded(f"What each stage did to {model.name}", json.dumps(model.measured.record, indent=2)))
    return join(parts)


def _folded(title: str, text: str, *, open_: bool = False) -> Html:
    return tag("details", tag("summary", title), tag("pre", tag("code", text), tabindex="0"), open=open_)
