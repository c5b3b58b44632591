"""``attar schema``."""

import json

from attar._src.cli import main
from attar._src.search.trials.recipe_schema import recipe_schema


def test_the_schema_is_printed_and_nothing_else(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()
