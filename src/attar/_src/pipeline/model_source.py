"""Origin: where a model of a run comes from, and how it begins under each seed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from torch import nn

from attar._src.core.errors import ModelError, SpecError, missing_file
from attar._src.core.registry import load_object
from attar._src.deploy.build_module import build_module
from attar._src.model.entry import forward_parameters
from attar._src.recipe.parts import ModelSpec
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path
from attar._src.runtime.session import Session
from attar._src.train.seeds import derive_seed, seed_everything


class ModelSource:
    """A module, or a file that teaches.

    The module is made once; what it begins with under a seed is put into it, so that what was captured serves all.

    Args:
        name: what the recipe calls it.
        model: its description.
        folder: what its paths are relative to.
        seed: the first.

    Attributes:
        module: the module; None for a file.
        session: the file, open; None for a module.

    Raises:
        SpecError: the factory or the file is not there or is none, or the factory does not make a new module each time.
    """

    def __init__(self, name: str, model: ModelSpec, folder: Path, seed: int) -> None:
        self.name, self.source, self.folder = name, model.source, folder
        self.module: nn.Module | None = None
        self.session: Session | None = None
        if model.source.file is not None:
            self.path = folder / expand_path(model.source.file)
            if not self.path.is_file():
                raise SpecError(f"recipe.models.{name}.source.file: {missing_file(self.path)}")
            self.session = Session(self.path)
            return
        self.module = self._made(seed)
        # A module that was given as an object is worked in place, and handed back as it came.
        self._given = isinstance(model.source.factory, nn.Module)
        self._first = {key: value.clone() for key, value in self.module.state_dict().items()} if self._given else {}
        self._strides = {key: parameter.stride() for key, parameter in self.module.named_parameters()}
        if not self._given:
            self._made(seed)  # a factory that gives the same module again is found now, not after a teacher has trained

    @property
    def parameters(self) -> dict[str, bool]:
        """The arguments in order -> whether a batch must have them; of a file its inputs."""
        if self.session is not None:
            return {port.name: True for port in self.session.inputs}
        assert self.module is not None
        return forward_parameters(self.module)

    def begin(self, seed: int) -> None:
        """Put into the module what it begins with under ``seed``."""
        assert self.module is not None
        self.module.load_state_dict(self._first if self._given else self._made(seed).state_dict())
        self.module.zero_grad(set_to_none=True)

    def hand_back(self) -> None:
        """Leave a module that was given as an object as it was."""
        if self.module is not None and self._given:
            for key, parameter in self.module.named_parameters():
                if parameter.stride() != self._strides[key]:
                    parameter.data = parameter.data.new_empty_strided(parameter.shape, self._strides[key])
            self.module.load_state_dict(self._first)
            self.module.zero_grad(set_to_none=True)

    def _made(self, seed: int) -> nn.Module:
        given, where = self.source.factory, f"recipe.models.{self.name}.source"
        weights = None if self.source.weights is None else self.folder / expand_path(self.source.weights)
        seed_everything(derive_seed(seed, "model", self.name))
        try:
            made = build_module(load_object(given) if isinstance(given, str) else given, self.source.arguments, weights)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from error
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
        shared = None if self.module is None or self._given else _shared(self.module, made)
        if shared:
            raise SpecError(
                f"{where}.factory: called again it gives the parameter {shared[1]} it gave before, and another seed "
                "would go on from what was trained; let it make a new module each time, or return copy.deepcopy of it"
            )
        return made


def _shared(one: nn.Module, other: nn.Module) -> tuple[str, str] | None:
    """Return what two modules call the first parameter they share, None where they share none."""
    own = {id(parameter): name for name, parameter in one.named_parameters(remove_duplicate=False)}
    named = other.named_parameters(remove_duplicate=False)
    return next(((own[id(parameter)], name) for name, parameter in named if id(parameter) in own), None)


def shared_parameters(sources: Mapping[str, ModelSource]) -> dict[str, bool]:
    """Return the arguments of all models -> whether one of them requires it: batches have what any model takes."""
    found: dict[str, bool] = {}
    for source in sources.values():
        for name, required in source.parameters.items():
            found[name] = found.get(name, False) or required
    return found


def model_sources(recipe: Recipe) -> dict[str, ModelSource]:
    """Return every model of a recipe by name.

    Raises:
        SpecError, ModelError, ArtifactError: one cannot be made or opened.
        SpecError: two share a parameter: training one would change the other.
    """
    found = {name: ModelSource(name, model, recipe.folder, recipe.seeds[0]) for name, model in recipe.models.items()}
    modules = [(name, origin.module) for name, origin in found.items() if origin.module is not None]
    for (one, own), (other, its) in combinations(modules, 2):
        shared = _shared(own, its)
        if shared:
            raise SpecError(
                f"recipe.models.{other}.source: its parameter {shared[1]} is {shared[0]} of recipe.models.{one}, and "
                "training one would change the other; give each a module of its own: a factory, or copy.deepcopy"
            )
    return found
