"""Which of the files that a search made it recommends, and which are on the front, and what each gained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attar._src.search.goal import Goal
from attar._src.search.tried_file import TriedFile, pareto


def recommended(goal: Goal, files: Sequence[TriedFile]) -> TriedFile:
    """Return the file that serves the goal best; where none holds it, the nearest that is not ruined.

    Args:
        goal: of the search.
        files: made so far; the first is the reference, as it was before the search.
    """
    holding = [each for each in files if goal.holds(each)]
    if goal.aim == "ms":
        # Not for noise: what is not faster in three of four rounds is no reason to leave the reference.
        holding = [each for each in holding if each.faster or each is files[0]] or holding
    if holding:
        return min(holding, key=lambda each: (goal.value(each), each.file_bytes, each.drop))
    return min(files, key=lambda each: (each.ruined, goal.excess(each), goal.value(each)))


def front_of(goal: Goal, files: Sequence[TriedFile]) -> list[TriedFile]:
    """Return the files that no other beats in bytes and loss, and in time if it counts; the largest first.

    Of files with the same bytes the first alone.
    """
    first = {each.sha256 or each.name: each for each in reversed(files)}
    files = [each for each in files if first[each.sha256 or each.name] is each]
    seen = files if goal.timed else [each.model_copy(update={"against_floating": (1.0, 1.0, 1.0)}) for each in files]
    names = [each.name for each in pareto(seen)]
    return sorted((each for each in files if each.name in names), key=lambda each: names.index(each.name))


def with_gains(goal: Goal, files: Sequence[TriedFile]) -> list[dict[str, Any]]:
    """Return the files as JSON has them, each with ``gained``: in words, by how much it was better than those before.

    That is empty for a file that does not hold the goal, or is no better.
    """
    told = []
    for place, file in enumerate(files):
        before, gained = [each for each in files[:place] if goal.holds(each)], ""
        if goal.holds(file) and before:
            gain = min(map(goal.value, before)) - goal.value(file)
            gained = f"{gain:,.4g} {goal.aim}" if gain > 0 else ""
        elif goal.holds(file) and place:
            gained = "the first that holds"
        told.append({**file.model_dump(mode="json"), "gained": gained})
    return told
