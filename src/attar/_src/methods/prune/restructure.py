"""What stages that remove structure share: the learner goes on with the smaller module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.methods.prune.pruned_module import PrunedModule
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.work.learner import Learner


def demand_no_constraints(model: Learner, stage: str) -> None:
    """Raise if masks or grids of an earlier stage hold weights, whose shapes or names change.

    Raises:
        SpecError: there are some.
    """
    if model.constraints:
        rules = ", ".join(sorted({type(each).__name__ for each in model.constraints}))
        raise SpecError(f"{stage}: {rules} of an earlier stage hold the weights; put {stage} before")


def restructured(model: Learner, pruned: PrunedModule, stage: Mapping[str, Any]) -> Learner:
    """Return the learner with the pruned module; its record tells of the stage what was removed."""
    given = model.captured
    captured = capture(pruned.module, given.example, names=given.names, dynamic=given.axes)
    model.restructure(pruned.module, captured, deploy_graph(pruned.module, captured))
    model.record.append({**stage, "removed": pruned.record, **pruned.figures})
    return model
