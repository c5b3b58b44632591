"""``attar schema``: the JSON schema of recipes."""

from __future__ import annotations

import importlib

from attar._src.cli import show


def schema_command() -> None:
    """Print the JSON schema of recipes, with holes and search, with which editors complete and check their YAML.

    Example:

        attar schema > recipe.schema.json
    """
    show.as_json(importlib.import_module("attar._src.search.trials.recipe_schema").recipe_schema())
