"""The contract of a sampler, for every registered one."""

import math
from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter

from attar._src.core.errors import SpecError
from attar._src.search.goal import Goal
from attar._src.search.samplers.registry import SAMPLERS, SamplerChoice
from attar._src.search.samplers.sampler import SearchTask
from attar._src.search.space import Between, Choose, Space

#: Those that go layer by layer need layers: tests/search/samplers.
ANYWHERE = [name for name in SAMPLERS if not SAMPLERS[name].by_layer]
BYTES = {"a": 100, "b": 900, "c": 300, "d": 500}
LOSS = {"a": 6.0, "b": 0.2, "c": 3.0, "d": 0.6}
SPACE = Space({name: Choose(choose=[2, 3, 4, 8]) for name in BYTES} | {"zeros": Between(between=[0.0, 0.9])})
GOAL = Goal(max_drop=1.0, minimise="bytes")


@dataclass(frozen=True)
class Seen:
    file_bytes: int
    drop: float
    ms: float | None = None
    ruined: bool = False
    others: float | None = None


def measure(point):
    """Bytes and loss of layers that differ in size and sensitivity."""
    size = sum(BYTES[name] * point[name] for name in BYTES) * (1 - point["zeros"] / 2)
    lost = sum(LOSS[name] * 2.0 ** -point[name] for name in LOSS) + 2 * point["zeros"] ** 3
    return Seen(round(size), lost)


def searched(name, trials, *, seed=0, before=(), failing=()):
    """Return points and figures of a search, continued after the trials ``before``."""
    sampler, found = SAMPLERS[name]().start(SearchTask(SPACE, GOAL, seed, trials)), [*before]
    for number, (point, figures) in enumerate(before):
        sampler.tell(number, point, figures)
    for number in range(len(before), trials):
        point = sampler.ask(number)
        if point is None:
            break
        SPACE.check(point)
        assert sampler.ask(number) == point, "asked twice"
        figures = None if number in failing else measure(point)
        sampler.tell(number, point, figures)
        found.append((point, figures))
    return found


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_comes_next_follows_from_the_trials_before(name):
    """Guards against state that a search which goes on does not have."""
    whole = searched(name, 26, failing={5})
    assert searched(name, 26, failing={5}) == whole
    for cut in (1, 6, 17):
        assert searched(name, 26, before=whole[:cut], failing={5}) == whole


@pytest.mark.parametrize("name", [name for name in ANYWHERE if name != "greedy"])
def test_another_seed_gives_other_points(name):
    assert searched(name, 4) != searched(name, 4, seed=1)


@pytest.mark.parametrize("name", ANYWHERE)
def test_several_points_are_asked_for_before_one_is_told(name):
    sampler = SAMPLERS[name]().start(SearchTask(SPACE, GOAL))
    for number in range(0, 12, 3):
        points = {at: sampler.ask(at) for at in range(number, number + 3)}
        known = {at: point for at, point in points.items() if point is not None}
        for at in reversed(known):
            SPACE.check(known[at])
            sampler.tell(at, known[at], measure(known[at]))
        assert known


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_point_may_be_told_that_was_not_asked_for(name):
    """Another process may have tried it."""
    sampler = SAMPLERS[name]().start(SearchTask(SPACE, GOAL))
    careful = dict.fromkeys(BYTES, 8) | {"zeros": 0.0}
    sampler.tell(0, careful, measure(careful))
    point = sampler.ask(1)
    assert point is not None
    SPACE.check(point)


@pytest.mark.parametrize("name", [name for name in ANYWHERE if name != "random"])
def test_what_learns_beats_random(name):
    """Over seeds, at equal trials: the best score that holds the bound."""

    def best(name, seed):
        return min(GOAL.score(figures) for _, figures in searched(name, 45, seed=seed) if figures)

    seeds = range(3)
    assert math.fsum(best(name, seed) for seed in seeds) < math.fsum(best("random", seed) for seed in seeds)


def test_random_gives_no_point_twice_and_ends():
    space = Space({"a": Choose(choose=[1, 2, 3]), "b": Choose(choose=["x", "y"])})
    sampler, seen = SAMPLERS["random"]().start(SearchTask(space, GOAL)), []
    while (point := sampler.ask(len(seen))) is not None:
        sampler.tell(len(seen), point, Seen(1, 0.0))
        seen.append(space.key(point))
    assert len(seen) == len(set(seen)) == 6


def test_a_sampler_of_ones_own_is_named_by_its_file(tmp_path):
    (tmp_path / "own.py").write_text(
        "from attar.extend import Sampler\n\n\n"
        "class Corner(Sampler):\n"
        "    def __init__(self, task, high=False):\n"
        "        super().__init__(task)\n"
        "        self.place = -1 if high else 0\n\n"
        "    def ask(self, number):\n"
        "        return {path: hole.values[self.place] for path, hole in self.task.space.holes.items()}\n"
    )
    spec = TypeAdapter(SamplerChoice).validate_python(
        {"name": f"{tmp_path}/own.py:Corner", "arguments": {"high": True}}
    )
    sampler = spec.start(SearchTask(SPACE, GOAL))
    assert sampler.ask(0) == dict.fromkeys(BYTES, 8) | {"zeros": 0.9}
    wrong = TypeAdapter(SamplerChoice).validate_python({"name": f"{tmp_path}/own.py:Sampler.ask"})
    with pytest.raises(SpecError, match="no object"):
        wrong.start(SearchTask(SPACE, GOAL))


def test_greedy_keeps_what_is_sensitive():
    found = [(point, figures) for point, figures in searched("greedy", 60) if figures and GOAL.holds(figures)]
    point, figures = min(found, key=lambda each: each[1].file_bytes)
    # The large layer that hardly matters goes down furthest.
    assert point["b"] == 2 < point["a"]
    assert figures.file_bytes < measure(dict.fromkeys(BYTES, 4) | {"zeros": 0.0}).file_bytes
