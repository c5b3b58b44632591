"""What a search tries next: cheap files first, then sizes towards the goal.

floating point, 8 bits, dynamic, static  -->  4 bits  -->  bits of its own for each layer  -->  reconstruction,
                                                                                            or training if it is allowed
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attar._src.methods.allocate.target import NO_FILE
from attar._src.search.goal import Goal
from attar._src.search.training.next_trained import Ranked, TrainedStep, next_trained
from attar._src.search.tried_file import TriedFile

#: What a step costs: rounding; solvers that see inputs; all levels and sensitivities; one more size of these;
#: reconstruction, which trains codes; training of the module.
Cost = Literal["round", "see", "levels", "size", "train", "way"]

#: The file that all others are compared with.
UNTOUCHED = "floating point"
#: Options of ``attar.quantize`` that reconstruction has in a search.
RECONSTRUCT: Mapping[str, Any] = {"steps": 100, "network_steps": 400}
#: Steps between sizes while every file holds, and the ratio of two sizes between which no more is tried.
_STEP, _NEAR = 0.75, 1.04
#: The same with reconstruction, which takes longer.
_IMPROVED_STEP, _IMPROVED_NEAR = 0.85, 1.08
#: The same before training, which goes on below in any case.
_COARSE_STEP, _COARSE_NEAR = 0.65, 1.15

#: Where time does not count: share of the time of floating point that three of four rounds must be below, and share of
#: what may be lost, for which activations in 8 bits are taken all the same.
_FASTER, _FREE_DROP = 0.85, 0.25


@dataclass(frozen=True)
class SearchStep:
    """A file to make.

    Attributes:
        name: in words.
        options: of ``attar.quantize``.
        cost: what kind of work it is.
        trained: what is trained instead.
        nearest: whether its file cannot hold the goal, and is made to be the nearest.
    """

    name: str
    options: Mapping[str, Any]
    cost: Cost
    trained: TrainedStep | None = None
    nearest: bool = False


#: What every search begins with.
FIRST: tuple[SearchStep, ...] = (
    SearchStep(UNTOUCHED, {"keep": ["*"]}, "round"),
    SearchStep("8 bits", {"bits": 8}, "round"),
    SearchStep("8 bits, dynamic", {"bits": 8, "activations": "dynamic"}, "round"),
    SearchStep("8 bits, static", {"bits": 8, "activations": 8}, "round"),
    SearchStep("4 bits", {"bits": 4, "scales": "gptq"}, "see"),
    SearchStep("4 bits, static", {"bits": 4, "scales": "gptq", "activations": 8}, "see"),
)


def next_step(
    goal: Goal,
    files: Sequence[TriedFile],
    failed: Mapping[str, str],
    skipped: Collection[str] = (),
    ranked: Ranked | None = None,
) -> SearchStep | None:
    """Return what to try next, None if nothing more pays.

    What was tried alone decides, so that a search that goes on takes the same steps.

    Args:
        goal: of the search.
        files: made so far.
        failed: name of a step -> why it made none.
        skipped: steps for which there was no time; nothing is known of the sizes that they had.
        ranked: the ways to train that have stages for a target, the likeliest first; None if nothing may be trained.
    """
    done = {each.name for each in files}.union(failed, skipped)
    found = next(
        (step for step in _steps(goal, files, failed, train=ranked is not None) if step.name not in done), None
    )
    if found is not None or ranked is None or not files:
        return found
    trained = next_trained(goal, files, failed, skipped, ranked)
    return None if trained is None else SearchStep(trained.name, {}, "way", trained)


def _steps(goal: Goal, files: Sequence[TriedFile], failed: Mapping[str, str], *, train: bool) -> Iterator[SearchStep]:
    """Yield the steps without training in order as far as they are known: sizes follow from the files before.

    What may be trained is not reconstructed: training goes further in the same time.
    """
    files = [each for each in files if not each.way]
    yield from FIRST
    activations = chosen_activations(goal, files)
    if goal.aim == "bytes" and (goal.max_drop is not None or goal.max_ms is not None):
        start = [each.file_bytes for each in files if goal.holds(each)]
        if not start:
            yield from _largest(goal, files, failed, activations, train=train)
            return
        pace = (_COARSE_STEP, _COARSE_NEAR) if train else (_STEP, _NEAR)
        yield from _smaller(goal, files, failed, activations, min(start), pace, improved=False)
        sizes = [size for size, holds in _tried(goal, files, failed, activations, improved=False) if not holds]
        if sizes and not train:
            pace = (_IMPROVED_STEP, _IMPROVED_NEAR)
            yield from _smaller(goal, files, failed, activations, max(sizes), pace, improved=True)
    else:
        yield from _largest(goal, files, failed, activations, train=train)


def _largest(
    goal: Goal, files: Sequence[TriedFile], failed: Mapping[str, str], activations: Any, *, train: bool
) -> Iterator[SearchStep]:
    """Yield the largest size that the goal allows, if it bounds the bytes; reconstruction makes no file smaller."""
    if goal.max_bytes is None:
        return
    plain, improved = (size_step(goal.max_bytes, activations, improved=each) for each in (False, True))
    yield plain
    if plain.name not in failed and not train:
        yield improved
    lost = {each.name for each in files if each.ruined and not goal.holds(each)}.union(failed)
    if plain.name in lost and (train or plain.name in failed or improved.name in lost):
        # No file is so small, or none of that size is of use: 2 bits everywhere are nearest, unless a fault was why.
        nearest = failed.get(plain.name, "").startswith(NO_FILE)
        yield SearchStep("2 bits", {"bits": 2, "scales": "gptq"}, "see", nearest=nearest)


def size_step(size: int, activations: Any, *, improved: bool) -> SearchStep:
    """Return the step that gives each layer bits of its own within a number of bytes."""
    words = {None: "", "dynamic": ", dynamic", 8: ", static"}[activations]
    options: dict[str, Any] = {"max_bytes": size, "scales": "gptq"}
    options |= {} if activations is None else {"activations": activations}
    options |= {"reconstruct": dict(RECONSTRUCT)} if improved else {}
    return SearchStep(
        f"{size:,} bytes{words}{', reconstructed' if improved else ''}", options, "train" if improved else "size"
    )


def _smaller(
    goal: Goal,
    files: Sequence[TriedFile],
    failed: Mapping[str, str],
    activations: Any,
    first: int,
    pace: tuple[float, float],
    *,
    improved: bool,
) -> Iterator[SearchStep]:
    """Yield the next size: smaller while files hold, then between the last that held and the first that did not."""
    step, near = pace
    tried = _tried(goal, files, failed, activations, improved=improved)
    holding = min([size for size, holds in tried if holds], default=None)
    failing = max([size for size, holds in tried if not holds], default=None)
    if failing is None:
        # What failed without reconstruction is where it begins.
        size = (first if improved else round(step * first)) if holding is None else round(step * holding)
        yield size_step(size, activations, improved=improved)
        return
    top = first if holding is None else holding
    if top > near * failing:
        yield size_step(round((top * failing) ** 0.5), activations, improved=improved)


def _tried(
    goal: Goal, files: Sequence[TriedFile], failed: Mapping[str, str], activations: Any, *, improved: bool
) -> list[tuple[int, bool]]:
    """Return the sizes that were tried, and whether their files hold; one that could not be made does not."""
    found = []
    for each in files:
        own = each.options
        alike = own.get("activations") == activations and ("reconstruct" in own) == improved
        if "max_bytes" in own and alike:
            found.append((int(own["max_bytes"]), goal.holds(each)))
    # Which size a step had that made no file is in its name alone.
    for name in failed:
        count = name.partition(" bytes")[0].replace(",", "")
        if count.isdecimal() and name == size_step(int(count), activations, improved=improved).name:
            found.append((int(count), False))
    return found


def chosen_activations(goal: Goal, files: Sequence[TriedFile]) -> Any:
    """Return the activations of files whose size is sought, by the files with 8 bits.

    If time counts, those of the files that are in time and lose least; if none is, of the fastest. If it does not, the
    fastest that are clearly faster than floating point and take little of what may be lost, else floating point.
    """
    found = {each.name: each for each in files if not each.way}
    eight = [found[name] for name in ("8 bits", "8 bits, dynamic", "8 bits, static") if name in found]
    eight = [each for each in eight if goal.holds(each) or not each.ruined] or eight
    if not eight:
        return None
    if goal.max_ms is not None and (timely := [each for each in eight if each.ms <= goal.max_ms]):
        return min(timely, key=lambda each: each.drop).options.get("activations")
    if not goal.timed:
        most = min(each.drop for each in eight) + _FREE_DROP * (goal.max_drop or 0.0)
        eight = [each for each in eight if each.against_floating[2] <= _FASTER and each.drop <= most]
    return min(eight, key=lambda each: each.ms).options.get("activations") if eight else None
