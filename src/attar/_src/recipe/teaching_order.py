"""The order in which the models of a recipe are trained: teachers before their students."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attar._src.core.errors import SpecError
from attar._src.recipe.parts import ModelSpec


def teaching_order(models: Mapping[str, ModelSpec], names: Iterable[str]) -> tuple[str, ...]:
    """Return ``names`` and all their direct and indirect teachers, teachers first, otherwise in the given order.

    Raises:
        SpecError: models teach each other in a circle.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " <- ".join([*above[above.index(name) :], name])
            raise SpecError(f"models.{above[-1]}: models teach each other in a circle: {circle}; remove one teacher")
        if name not in done:
            for stage in models[name].stages:
                for teacher in stage.teachers():
                    visit(teacher, (*above, name))
            done.append(name)

    for name in names:
        visit(name, ())
    return tuple(done)


def students_of(models: Mapping[str, ModelSpec], teacher: str) -> tuple[str, ...]:
    """Return the models that learn from ``teacher``, directly or through others."""
    return tuple(name for name in models if name != teacher and teacher in teaching_order(models, [name]))
