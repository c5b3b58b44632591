"""What a search follows from, which must be unchanged for it to go on."""

from __future__ import annotations

from typing import Any

from attar._src.core.digest import file_digest
from attar._src.core.errors import SpecError, missing_file
from attar._src.pipeline.data_splits import DataSplits
from attar._src.pipeline.fabric import file_facts, run_facts
from attar._src.recipe.recipe import Recipe
from attar._src.recipe.reference import expand_path, to_json
from attar._src.search.trials.spec import HoledRecipe


def search_facts(holed: HoledRecipe, first: Recipe, splits: DataSplits) -> dict[str, Any]:
    """Return the recipe with its holes, the search but for its budget, hashes of data and files, versions.

    Args:
        holed: the recipe.
        first: at one point.
        splits: of the data.

    Raises:
        SpecError: a file that the recipe or its sampler names does not exist.
    """
    spec = holed.spec.model_dump(mode="json", exclude={"trials", "minutes", "storage"})
    facts = run_facts(first, splits)
    for recipe in holed.worded():
        facts["files"] |= file_facts(recipe)
    for name in holed.spec.sampler.reads():
        path = first.folder / expand_path(name)
        if not path.is_file():
            raise SpecError(f"recipe.search.sampler: {missing_file(path)}")
        facts["files"][name] = file_digest(path)
    return facts | {"recipe": to_json(holed.tree), "search": spec}
