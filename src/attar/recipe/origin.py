"""Origin: where a model of a run comes from, and how it begins under each seed."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from attar.core.errors import ModelError, SpecError
from attar.core.registry import load_object
from attar.model.export import argument_names
from attar.recipe.recipe import Model, Recipe
from attar.recipe.source import build
from attar.runtime import Session
from attar.train.seeds import derive, sow


class Origin:
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
        SpecError: the factory or the file is not there or is none.
    """

    def __init__(self, name: str, model: Model, folder: Path, seed: int) -> None:
        self.name, self.source, self.folder = name, model.source, folder
        self.module: nn.Module | None = None
        self.session: Session | None = None
        if model.source.file is not None:
            self.path = folder / model.source.file
            self.session = Session(self.path)
            return
        self.module = self._made(seed)
        # A module that was given as an object is worked in place, and handed back as it came.
        self._given = isinstance(model.source.factory, nn.Module)
        self._first = {key: value.clone() for key, value in self.module.state_dict().items()} if self._given else {}

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs by name, as batches that are mappings have them."""
        if self.session is not None:
            return tuple(port.name for port in self.session.inputs)
        assert self.module is not None
        return argument_names(self.module)

    def begin(self, seed: int) -> None:
        """Put into the module what it begins with under ``seed``."""
        assert self.module is not None
        self.module.load_state_dict(self._first if self._given else self._made(seed).state_dict())
        self.module.zero_grad(set_to_none=True)

    def hand_back(self) -> None:
        """Leave a module that was given as an object as it was."""
        if self.module is not None and self._given:
            self.module.load_state_dict(self._first)
            self.module.zero_grad(set_to_none=True)

    def _made(self, seed: int) -> nn.Module:
        given, where = self.source.factory, f"recipe.models.{self.name}.source"
        weights = None if self.source.weights is None else self.folder / self.source.weights
        sow(derive(seed, "model", self.name))
        try:
            made = build(load_object(given) if isinstance(given, str) else given, self.source.arguments, weights)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from error
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
        return made


def origins(recipe: Recipe) -> dict[str, Origin]:
    """Return every model of a recipe by name.

    Raises:
        SpecError, ModelError, ArtifactError: one cannot be made or opened.
    """
    return {name: Origin(name, model, recipe.folder, recipe.seeds[0]) for name, model in recipe.models.items()}
