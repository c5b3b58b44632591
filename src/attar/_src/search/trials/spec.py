"""A recipe with holes as text: its ``search``, what may stand in the holes, and the recipe of each point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from attar._src.core.errors import SpecError
from attar._src.core.progress import track
from attar._src.core.spec import explain, refused
from attar._src.recipe.recipe import SEARCH_KEY, Recipe, recipe_of_tree
from attar._src.recipe.reference import leaves
from attar._src.recipe.yaml_text import apply_overrides, parse_yaml
from attar._src.search.goal import Goal
from attar._src.search.holes import (
    LayerNames,
    counted_values,
    fill_holes,
    find_holes,
    has_layer_holes,
    with_layer_holes,
)
from attar._src.search.samplers.registry import SamplerChoice
from attar._src.search.samplers.tpe import Tpe
from attar._src.search.space import Between, Choose, Point, Space
from attar._src.search.trial import judged_model
from attar._src.search.trials.halving import Halving, with_epochs

#: Fields of a recipe that trials are judged by, and those of them that are for training alone.
JUDGES = ("class_axis", "data", "ignore_index", "metric", "root", "task")
TRAINS = ("data.augment", "data.calibration")
#: Trials where neither their number nor a time is given.
_TRIALS = 50


class SearchSpec(Goal):
    """How the holes of a recipe are filled: bounds and aim as in :class:`Goal`, and these.

    Attributes:
        model: whose file is judged; by default the last in teaching order that a hole changes.
        sampler: a registered name, or its name and options.
        trials: the most that are tried; 50 if there are no ``minutes``.
        minutes: time for the search; no trial begins that would not end in time.
        seed: of the sampler; those of the trainings are ``seeds``.
        halving: short trainings first, of which the best go on; null for whole trainings alone.
        storage: URL of Optuna's storage, for processes on several machines; by default SQLite in the search's folder.
    """

    model: str | None = None
    sampler: SamplerChoice = Tpe()
    trials: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    halving: Halving | None = None
    storage: str | None = None

    @model_validator(mode="after")
    def _main_output(self) -> Self:
        if self.max_others is not None:
            raise refused(
                "max_others is of attar compress: trials are judged by the metric; let a metric of your own read the "
                "other outputs",
                "max_others",
            )
        return self

    @property
    def goal(self) -> Goal:
        """The bounds and the aim alone."""
        return Goal(**{name: getattr(self, name) for name in Goal.model_fields})

    @property
    def most_trials(self) -> float:
        """The number of trials; infinite where only the time counts."""
        if self.trials is not None:
            return self.trials
        return _TRIALS if self.minutes is None else float("inf")


@dataclass(frozen=True)
class HoledRecipe:
    """A recipe with holes.

    Attributes:
        tree: without ``search``.
        spec: of the search.
        folder: that the recipe's root is relative to.
        models: that trials run; all if empty.
        changed: models that a hole changes, whose epochs a rung shortens.
    """

    tree: Mapping[str, Any]
    spec: SearchSpec
    folder: Path
    models: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def space(self) -> Space:
        """The holes."""
        return find_holes(self.tree)

    @property
    def for_layers(self) -> bool:
        """Whether a hole stands for one of each layer."""
        return has_layer_holes(self.tree)

    def with_layers(self, layers: Callable[[str, int], LayerNames]) -> HoledRecipe:
        """Return the recipe with holes of their own for layers; ``layers`` gives those of a model for a stage."""
        return replace(self, tree=with_layer_holes(self.tree, layers))

    def counted(self, point: Point) -> dict[str, Any]:
        """Return the values of a point that its recipe has."""
        return counted_values(self.tree, point)

    def at(self, point: Point, rung: int | None = None) -> Recipe:
        """Return the recipe of a point; at a rung of the halving, with a share of its epochs.

        Raises:
            SpecError: it is not valid.
        """
        tree = fill_holes(self.tree, point)
        if rung is not None and self.spec.halving is not None:
            share = self.spec.halving.shares[rung]
            models = tree["models"].items()
            tree["models"] = {n: with_epochs(own, share) if n in self.changed else own for n, own in models}
        recipe = recipe_of_tree(tree, self.folder)
        return recipe.only(*self.models) if self.models else recipe

    def for_trials(self, first: Recipe) -> HoledRecipe:
        """Return the recipe of the models that a trial needs: the judged one, its teachers, and a fixed baseline.

        Holes of other models have their first values, so that nothing is tried that changes no file. ``first`` is the
        recipe at one point.

        Raises:
            UnknownName: there is no model of the name that the search gives.
            SpecError: no hole changes it.
        """
        changed = tuple(name for name in first.order if not self.is_fixed(first, name))
        judged = judged_model(first, self.spec.model or changed[-1])
        if judged not in changed:
            raise SpecError(
                f"recipe.search.model: no hole changes {judged!r}, so that all trials would make one file; name one of "
                f"{', '.join(changed)}"
            )
        baseline = (first.reference,) if self.is_fixed(first, first.reference) else ()
        spec = self.spec.model_copy(update={"model": judged})
        if "models" in self.space:
            # Models differ between trials.
            return replace(self, spec=spec, models=(judged, *baseline), changed=changed)
        needed, filled = first.only(judged, *baseline).models, fill_holes(self.tree, self.space.lowest)["models"]
        models = {name: own if name in needed else filled[name] for name, own in self.tree["models"].items()}
        tree = {**self.tree, "models": models}
        return replace(self, tree=tree, spec=spec, models=(judged, *baseline), changed=changed)

    def is_fixed(self, first: Recipe, model: str) -> bool:
        """Return whether no hole changes a model: neither its own, nor one of its teachers or outside of all models."""
        taught = first.only(model).models
        places = [path.split(".") for path in self.space]
        return all(len(place) > 1 and place[0] == "models" and place[1] not in taught for place in places)

    def worded(self) -> Iterator[Recipe]:
        """Yield a recipe for each choice that has words, which may name files."""
        space = self.space
        for path, value in _values(space):
            if any(isinstance(word, str) for _, word in leaves(value)):
                yield self.at(space.lowest | _leading_to(space, path) | {path: value})

    def check(self) -> Recipe:
        """Return the recipe of the first values, after checking it with every choice and both ends of every hole.

        Raises:
            SpecError: a value cannot stand where its hole does; the message has the path and the value.
        """
        space, first = self.space, self.space.lowest
        for path in space:
            if _is_below(path, JUDGES) and not _is_below(path, TRAINS):
                raise SpecError(
                    f"recipe.{path}: a hole here would judge each trial by other examples, or another measure, and the "
                    "best would be the one with the easiest; give one value"
                )
        recipe = self.at(first)
        for path, value in track([*_values(space)], "checking holes"):
            try:
                self.at(first | _leading_to(space, path) | {path: value})
            except SpecError as error:
                raise SpecError(f"recipe.{path}: with {value!r} in this hole: {error}") from error
        return recipe


def _is_below(path: str, places: Sequence[str]) -> bool:
    return any(path == place or path.startswith(f"{place}.") for place in places)


def _values(space: Space) -> Iterator[tuple[str, Any]]:
    for path, hole in space.holes.items():
        for value in hole.between if isinstance(hole, Between) else hole.choose[1:]:
            yield path, value


def _leading_to(space: Space, path: str) -> dict[str, Any]:
    """Return the choices without which a hole inside them does not count."""
    found = {}
    for outer, hole in space.holes.items():
        inside = path.removeprefix(f"{outer}.choose.")
        if isinstance(hole, Choose) and inside != path:
            found[outer] = hole.choose[int(inside.partition(".")[0])]
    return found


def read_holed_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> HoledRecipe:
    """Return a recipe with holes: the path of one in YAML, or a mapping of the same form, which may have objects.

    Raises:
        SpecError: it is missing, has no ``search`` or no hole, or one of them is malformed.
    """
    if not isinstance(recipe, str | Path | Mapping):
        raise SpecError(
            f"{type(recipe).__name__} is no recipe with holes; give the path of one in YAML, or a mapping of the same "
            "form, with search and holes"
        )
    given = isinstance(recipe, Mapping)
    folder = Path.cwd() if isinstance(recipe, Mapping) else Path(recipe).resolve().parent
    tree = apply_overrides(dict(recipe) if isinstance(recipe, Mapping) else parse_yaml(Path(recipe)), overrides)
    what = "the recipe" if given else str(recipe)
    fields = tree.pop(SEARCH_KEY, None)
    if not isinstance(fields, Mapping):
        raise SpecError(f"{what} has no search; add one, as in search: {{max_drop: 0.5, minimise: bytes, trials: 40}}")
    try:
        spec = SearchSpec.model_validate(dict(fields))
    except ValidationError as error:
        raise SpecError(explain(error, where=f"recipe.{SEARCH_KEY}", given=dict(fields))) from error
    if not find_holes(tree):
        raise SpecError(f"{what} has a search and no hole; write one, as in bits: {{choose: [2, 3, 4]}}")
    return HoledRecipe(tree, spec, folder)
