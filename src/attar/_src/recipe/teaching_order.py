"""The order in which the models of a recipe are trained: teachers before their students."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attar._src.core.errors import SpecError
from attar._src.work.stage import Stage


def teaching_order(stages: Mapping[str, Sequence[Stage]], names: Iterable[str]) -> tuple[str, ...]:
    """Return models and all their direct and indirect teachers, teachers first, otherwise in the given order.

    Args:
        stages: name of every model -> its stages.
        names: the models to start from.

    Raises:
        SpecError: models teach each other in a circle.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " <- ".join([*above[above.index(name) :], name])
            raise SpecError(f"models.{above[-1]}: models teach each other in a circle: {circle}; remove one teacher")
        if name not in done:
            for stage in stages[name]:
                for teacher in stage.teachers():
                    visit(teacher, (*above, name))
            done.append(name)

    for name in names:
        visit(name, ())
    return tuple(done)


def students_of(stages: Mapping[str, Sequence[Stage]], teacher: str) -> tuple[str, ...]:
    """Return the models that learn from ``teacher``, directly or through others."""
    students: dict[str, None] = {}
    todo = [teacher]
    while todo:
        current = todo.pop()
        for name, own in stages.items():
            if name not in students and any(current in stage.teachers() for stage in own):
                students[name] = None
                todo.append(name)
    return tuple(students)
