"""Source of a model in a run: its module or file, and the module's initial state for each seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import torch
from torch import nn

from attar._src.core.errors import ModelError, SpecError, missing_file
from attar._src.deploy.build_module import build_module, find_model
from attar._src.deploy.first_run import run_once
from attar._src.model.forms.as_module import as_module, is_uninitialized
from attar._src.model.interface import forward_parameters
from attar._src.recipe.parts import SourceSpec
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path
from attar._src.runtime.session import Session
from attar._src.train.inputs import SharedParameters
from attar._src.train.seeds import derive_seed, seed_everything
from attar._src.work.calibration_inputs import CalibrationInputs

#: Parameters of a module -> real inputs for it.
InputsFor = Callable[[Mapping[str, bool]], CalibrationInputs]


class ModelSource:
    """A module, or a file that teaches.

    The module is made once and gets its initial state for each seed, so that one captured program serves all seeds.

    Attributes:
        module: the module; None for a file.
        session: the opened file; None for a module.
        notes: what was done to the module to make it fit, such as computing a float16 one in float32.

    Raises:
        SpecError: the factory or file does not exist or has the wrong type, or the factory returns the same parameters
            twice.
        ModelError: the factory fails, or the weights do not fit.
    """

    def __init__(
        self, name: str, source: SourceSpec, folder: Path, seed: int, examples: InputsFor | None = None
    ) -> None:
        self.name, self.source, self.folder, self.examples = name, source, folder, examples
        self.notes: tuple[str, ...] = ()
        self.module: nn.Module | None = None
        self.session: Session | None = None
        if source.file is not None:
            self.path = folder / expand_path(source.file)
            if not self.path.is_file():
                raise SpecError(f"recipe.models.{name}.source.file: {missing_file(self.path)}")
            self.session = Session(self.path)
            return
        self.module = self._build(seed)
        # A module passed as an object is trained in place, and restored after the run.
        self._is_object = isinstance(source.factory, nn.Module | torch.export.ExportedProgram)
        self._first = {key: value.clone() for key, value in self.module.state_dict().items()} if self._is_object else {}
        self._strides = {key: parameter.stride() for key, parameter in self.module.named_parameters()}
        if not self._is_object:
            self._build(seed)  # detects a factory that reuses its module now, not after hours of training

    @property
    def parameters(self) -> dict[str, bool]:
        """Arguments of the forward (inputs of a file) in order -> whether a batch must have them."""
        if self.session is not None:
            return {port.name: True for port in self.session.inputs}
        assert self.module is not None
        return forward_parameters(self.module)

    def begin(self, seed: int) -> None:
        """Give the module its initial state for ``seed``."""
        assert self.module is not None
        self.module.load_state_dict(self._first if self._is_object else self._build(seed).state_dict())
        self.module.zero_grad(set_to_none=True)

    def restore(self) -> None:
        """Restore a module that was passed as an object."""
        if self.module is not None and self._is_object:
            for key, parameter in self.module.named_parameters():
                if parameter.stride() != self._strides[key]:
                    parameter.data = parameter.data.new_empty_strided(parameter.shape, self._strides[key])
            self.begin(0)  # whatever the seed

    def _build(self, seed: int) -> nn.Module:
        factory, where = self.source.factory, f"recipe.models.{self.name}.source"
        weights = None if self.source.weights is None else self.folder / expand_path(self.source.weights)
        try:
            if isinstance(factory, str):
                factory = find_model(factory, lambda path: self.folder / expand_path(path))
            # After the import, which may draw random numbers.
            seed_everything(derive_seed(seed, "model", self.name))
            module, self.notes = as_module(build_module(factory, self.source.arguments, weights))
            if self.examples is not None and is_uninitialized(module):
                run_once(module, self.examples(forward_parameters(module)))
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from error
        shared = None if self.module is None or self._is_object else _shared_weight(self.module, module)
        if shared:
            raise SpecError(
                f"{where}.factory: its second call returned the parameter {shared[1]} of the first, so another seed "
                "would start from trained weights; make a new module each time, or return copy.deepcopy of it"
            )
        return module


def _shared_weight(one: nn.Module, other: nn.Module) -> tuple[str, str] | None:
    """Return both modules' names of the first parameter they share, None if they share none."""
    own = {id(parameter): name for name, parameter in one.named_parameters(remove_duplicate=False)}
    named = other.named_parameters(remove_duplicate=False)
    return next(((own[id(parameter)], name) for name, parameter in named if id(parameter) in own), None)


def shared_parameters(sources: Mapping[str, ModelSource]) -> SharedParameters:
    """Return argument of any model -> whether a model requires it; batches have the arguments of all models."""
    return SharedParameters(*(source.parameters for source in sources.values()))


def model_sources(recipe: Recipe, examples: InputsFor | None = None) -> dict[str, ModelSource]:
    """Return name -> source of every model of a recipe; ``examples`` give lazy modules their parameters.

    Raises:
        SpecError, ModelError, ArtifactError: a module cannot be made or a file cannot be opened.
        SpecError: two models share a parameter.
    """
    seed = recipe.seeds[0]
    sources = {
        name: ModelSource(name, model.source, recipe.folder, seed, examples) for name, model in recipe.models.items()
    }
    modules = [(name, source.module) for name, source in sources.items() if source.module is not None]
    for (one, first), (other, second) in combinations(modules, 2):
        shared = _shared_weight(first, second)
        if shared:
            raise SpecError(
                f"recipe.models.{other}.source: its parameter {shared[1]} is {shared[0]} of recipe.models.{one}, so "
                "training one would change the other; give each its own module: a factory, or copy.deepcopy"
            )
    return sources
