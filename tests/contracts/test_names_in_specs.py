"""Fields of recipes that are words: each is checked when a recipe is read, or known to be free text."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from attar._src.core.spec import Spec
from attar._src.methods.objectives.registry import OBJECTIVES
from attar._src.methods.rules import CONSTRAINTS
from attar._src.methods.stages import STAGES
from attar._src.recipe.recipe import Recipe
from attar._src.search.trials.spec import SearchSpec

#: Words of the user: globs and layers, names of models, paths, URLs, licences, arguments of what is the user's own.
FREE = {
    *("layers", "keep", "keep_activations", "exclude", "teacher", "baseline", "model"),
    *("sensitivity", "tokenizer", "weights", "file", "root", "load", "save", "storage"),
    *("licence", "task", "arguments"),
    # ``file.py:name``, which another validator of the choice demands.
    "name",
    "factory",
    "source",
    # Checked by the stage, with what stands beside them: ``check_scheme``.
    "alternatives",
    "scheme",
}


def specs(kind: Any, known: set[type]) -> Iterator[type[Spec]]:
    """Yield a spec and those in its fields, each once."""
    if isinstance(kind, type) and issubclass(kind, Spec) and kind not in known:
        known.add(kind)
        yield kind
        for field in kind.model_fields.values():
            yield from specs(field.annotation, known)
    for part in get_args(kind):
        yield from specs(part, known)


KNOWN: set[type] = set()
SPECS = [
    spec
    for root in (*STAGES, *CONSTRAINTS.values(), *OBJECTIVES.values(), Recipe, SearchSpec)
    for spec in specs(root, KNOWN)
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_a_word_that_names_nothing_is_refused_when_a_recipe_is_read(spec):
    """Guards against names that are looked up when a stage runs: the third of a recipe, or a trial of a search."""
    for name, field in spec.model_fields.items():
        if name not in FREE:
            kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            # Of what names an entry of a registry this is ``registered_word``.
            with pytest.raises(ValidationError):
                TypeAdapter(kind).validate_python("gtpq", strict=True)


def test_names_of_registries_are_no_free_text():
    names = {name for spec in SPECS for name in spec.model_fields}
    assert {"scales", "observer", "score", "scope", "shape", "preprocessing", "metric", "sampler"} <= names - FREE
