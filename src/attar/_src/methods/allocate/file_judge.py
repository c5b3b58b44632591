"""Compare decoded files with the network as it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.measure.chance import is_ruined
from attar._src.methods.allocate.judge import Judge, OutputError, session_outputs
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs

#: Examples under which a drop is a rough measure: one of them is half a point.
FEW_JUDGED = 200


def told_of_others(judge: Judge) -> str:
    """Return what a drop counts of outputs beside the main one, in words; empty where there are none."""
    if not judge.kinds:
        return ""
    named = f"output{'' if len(judge.kinds) == 1 else 's'} {', '.join(map(repr, judge.kinds))}"
    return (
        f"a drop is of the main output; of {named} it is only seen to that no more than half is lost, of predictions "
        "or of variance"
    )


@dataclass(frozen=True)
class FileJudge:
    """Runs decoded files on the examples to compare.

    Attributes:
        judges: of each graph; their reference is the network as it was.
        inputs: of each graph.
        labelled: whether the examples that sensitivities are measured on have labels.
    """

    judges: Mapping[str, Judge]
    inputs: Mapping[str, CalibrationInputs]
    labelled: Mapping[str, bool]

    def compared(self, artifact: Artifact) -> dict[str, OutputError]:
        """Run the decoded file, and compare the outputs of each graph with the reference."""
        found = {}
        for graph, judge in self.judges.items():
            session = Session(artifact, graph=graph)
            found[graph] = judge.judge(session_outputs(session, self.inputs[graph].batches))
        return found

    def error(self, artifact: Artifact) -> float:
        """Return the error of the decoded file, the sum over graphs."""
        return sum(seen.error for seen in self.compared(artifact).values())

    def drop(self, artifact: Artifact) -> tuple[float, str]:
        """Return what the decoded file loses, in the points of ``max_drop`` and their unit, the most of all graphs.

        It is infinite where an output beside the main one is ruined, which nobody agreed to.
        """
        found = self.compared(artifact)
        drop, unit = self._points(found)
        return (math.inf if _ruin(found) else drop), unit

    def refused(self, artifact: Artifact, most: float) -> str:
        """Return why no file drops by ``most`` points at most, of that with all weights in floating point."""
        found, whole = self.compared(artifact), "with every weight in floating point"
        if ruin := _ruin(found):
            return f"{whole}, {ruin}; leave activations in floating point"
        drop, unit = self._points(found)
        return (
            f"no file drops by {most:g} {unit} at most: {whole} it drops by {drop:.3g}. The nearest target is "
            f"max_drop={drop * 1.01:.3g}; or leave activations in floating point"
        )

    def dropped_by(self, packed: bytes, most: float) -> str:
        """Return by how much too much a packed file drops, in words; empty if by at most ``most`` points."""
        found = self.compared(open_artifact(packed))
        drop, unit = self._points(found)
        over = f"the file drops by {drop:.3g} {unit}, and at most {most:g} were asked for" if drop > most else ""
        return _ruin(found) or over

    def _points(self, found: Mapping[str, OutputError]) -> tuple[float, str]:
        points = {graph: self.judges[graph].points(seen) for graph, seen in found.items()}
        graph = max(points, key=points.__getitem__)
        return points[graph], self.judges[graph].unit

    def doubts(self) -> list[str]:
        """Return warnings of a drop that is measured on few examples, or without the labels that there are."""
        found = []
        for graph, judge in self.judges.items():
            examples, counts = self.inputs[graph].examples, f"a drop counts {judge.unit}"
            if judge.unjudged:
                found.append(f"{counts}, as the labels give no metric: {judge.unjudged}")
            elif self.labelled[graph] and not self.inputs[graph].targets:
                found.append(f"{counts}: the examples of data have labels, those of validation none; give them, too")
            if told := told_of_others(judge):
                found.append(told)
            if examples < FEW_JUDGED:
                found.append(f"{counts} on {examples} examples, a rough measure; validate on {FEW_JUDGED} or more")
        return found


def _ruin(found: Mapping[str, OutputError]) -> str:
    """Return which output beside the main one is ruined, in words; empty without one."""
    lost = (name for seen in found.values() for name, lost in seen.others.items() if is_ruined(lost))
    return next((f"more than half of output {name!r} is lost" for name in lost), "")
