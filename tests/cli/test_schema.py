"""``attar schema``."""

import json

from attar._src.cli import main
from attar._src.recipe.recipe import Recipe


def test_the_schema_is_printed_and_nothing_else(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == Recipe.schema()
