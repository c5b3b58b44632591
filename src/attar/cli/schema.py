"""``attar schema``: the JSON schema of recipes."""

from __future__ import annotations

import importlib

from attar.cli import show


def schema() -> None:
    """Print the JSON schema of recipes: what an editor completes and checks a recipe's YAML by.

    Example:

        attar schema > recipe.schema.json
    """
    show.as_json(importlib.import_module("attar.recipe.recipe").Recipe.schema())
