"""Every entry of every registry is described, in its own docstring and in the documents."""

from __future__ import annotations

import re

import pytest
from tests.house.repository import ROOT, SOURCE, prose

from attar._src.artifact.manifest import CodeStream, TableRecord
from attar._src.backends.registry import BACKENDS
from attar._src.cli import COMMANDS
from attar._src.coding.registry import CODERS
from attar._src.core.registry import Registry
from attar._src.data.preprocessing import PREPROCESSINGS
from attar._src.data.registry import DATASETS
from attar._src.measure.metric import METRICS
from attar._src.methods.objectives.registry import OBJECTIVES
from attar._src.methods.prune.channels.scores import CHANNEL_SCORES
from attar._src.methods.prune.layers.scores import LAYER_SCORES
from attar._src.methods.prune.scopes import SCOPES
from attar._src.methods.prune.scores import SCORES
from attar._src.methods.prune.shapes import SHAPES
from attar._src.methods.quantize.ptq.registry import OBSERVERS, SCHEMES, SOLVERS
from attar._src.methods.rules import CONSTRAINTS
from attar._src.search.samplers.registry import SAMPLERS
from attar._src.search.training.registry import TRAINED_WAYS
from attar._src.train.augment import AUGMENTATIONS
from attar._src.train.optimizer import OPTIMIZERS

REGISTRIES = {
    "coders": CODERS,
    "solvers": SOLVERS,
    "schemes": SCHEMES,
    "observers": OBSERVERS,
    "data sets": DATASETS,
    "preprocessings": PREPROCESSINGS,
    "backends": BACKENDS,
    "metrics": METRICS,
    "terms": OBJECTIVES,
    "rules": CONSTRAINTS,
    "scores": SCORES,
    "pruning scopes": SCOPES,
    "pruning shapes": SHAPES,
    "channel scores": CHANNEL_SCORES,
    "layer scores": LAYER_SCORES,
    "optimizers": OPTIMIZERS,
    "augmentations": AUGMENTATIONS,
    "samplers": SAMPLERS,
    "ways to train": TRAINED_WAYS,
}
ENTRIES = [(family, entry) for family, registry in REGISTRIES.items() for entry in registry]


def test_every_registry_of_the_source_is_looked_at():
    pattern = re.compile(r"^([A-Z_]+): Registry\[", re.MULTILINE)
    found = [key for path in SOURCE.rglob("*.py") for key in pattern.findall(path.read_text(encoding="utf-8"))]
    assert len(found) == len(REGISTRIES), f"registries: {found}"
    assert all(isinstance(registry, Registry) and list(registry) for registry in REGISTRIES.values())


@pytest.mark.parametrize(("family", "entry"), ENTRIES)
def test_an_entry_has_a_docstring_that_says_something(family, entry):
    thing = REGISTRIES[family][entry]
    # An entry is an object, or a spec class whose name is the default of a field.
    kind = thing if isinstance(thing, type) else type(thing)
    assert (kind.model_fields["name"].default if kind is thing else thing.name) == entry
    doc = (kind.__doc__ or "").strip()
    assert len(doc) > 20, f"{kind.__name__} ({entry}) does not say what it is"


@pytest.mark.parametrize("family", REGISTRIES)
def test_the_notation_lists_the_entries_of_a_registry_and_no_others(family):
    row = re.search(rf"^\| {family} \| (.+) \|$", prose(ROOT / "docs" / "notation.md"), re.MULTILINE)
    assert row, f"docs/notation.md has no row of {family}"
    assert re.findall("`([^`]+)`", row[1]) == list(REGISTRIES[family])


@pytest.mark.parametrize(("family", "entry"), ENTRIES)
def test_the_documents_for_users_name_an_entry(family, entry):
    pages = [ROOT / "README.md", ROOT / "docs" / "recipes.md"]
    text = "".join(prose(page) + page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"[`\s]{entry}[`:\s]", text), f"neither README.md nor docs/recipes.md names {entry!r} ({family})"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_a_command(command):
    assert f"attar {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_format_knows_the_coders_there_are():
    assert {name for name in CODERS if _accepts(CodeStream, coder=name)} == set(CODERS)
    tabled = {name for name in CODERS if _accepts(TableRecord, coder=name, alphabet=2)}
    assert tabled == set(CODERS) - {"raw"}


def _accepts(spec, **fields):
    try:
        spec(length=0, **fields)
    except ValueError:
        return False
    return True
