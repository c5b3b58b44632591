"""The section of pruned models: what is left of each beside the baseline, and whether that made it faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar._src.report.content import PageSection, PageTable
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import NONE, count, milliseconds, share, times

_COLUMNS = ("Model", "What", "Parameters", "Not zero", "Multiplications", "File, bytes", "Latency", "Times faster")


def pruning(story: Story) -> PageSection:
    """Return the section; empty if nothing was pruned."""
    found = {model.name: pruned_by(model.measured.record) for model in story.models}
    if not any(found.values()):
        return PageSection("pruning", "")
    shown = [story.baseline, *(model for model in story.others if found[model.name])]
    text = (
        f"Measured in one run, in turns; the first row is {story.baseline.name}. Removed channels and layers take "
        "their parameters, multiplications and time with them. Weights that are zero take fewer bytes in the file and "
        "are multiplied like others: what differs from 1 beside them is noise, or the work of other stages."
    )
    rows = [_row(model, found[model.name]) for model in shown]
    table = PageTable("What pruning left", _COLUMNS, rows, numbers=range(2, len(_COLUMNS)))
    return PageSection("pruning", "Pruning", text, tables=[table])


def pruned_by(record: tuple[Any, ...]) -> list[str]:
    """Return in words what the stages of a model pruned: ``channels``, ``layers`` or ``weights``."""
    found = []
    for entry in record:
        stage = entry.get("stage") if isinstance(entry, Mapping) else None
        if stage in ("prune_channels", "prune_layers"):
            found.append(stage.removeprefix("prune_"))
        elif stage in ("prune", "prune_weights") or (stage is not None and _masks(entry)):
            found.append("weights")
    return [*dict.fromkeys(found)]


def _masks(entry: Mapping[str, Any]) -> bool:
    rules = entry.get("constraints", ())
    return any(isinstance(each, Mapping) and each.get("name") == "prune" for each in rules)


def _row(model: ReportedModel, what: list[str]) -> list[str]:
    measured = model.measured
    removals = [each["macs"] for each in measured.record if isinstance(each, Mapping) and "macs" in each]
    macs = f"{count(removals[-1][1])} of {count(removals[0][0])}" if removals else "all" if what else NONE
    tensors = model.contents["tensors"]
    nonzero, numbers = (sum(each[key] for each in tensors) for key in ("nonzero", "elements"))
    left = f"{count(nonzero)} ({share(nonzero / max(numbers, 1))})"
    return [
        model.name,
        " and ".join(what) or "nothing",
        count(measured.parameters),
        left,
        macs,
        count(model.file_bytes),
        milliseconds(measured.median_ms),
        times(model.times_faster),
    ]
