"""The rooms of the source: how many modules stand beside each other, and that a name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.house.repository import SOURCE

MOST_MODULES = 15
#: Classes of stages: only their own files may ask whether something is one.
STAGES = frozenset(
    {
        *("Stage", "TrainingStage", "Finetune", "Train", "Distill", "PruneStage", "QuantizeStage", "Compress"),
        *("PostTrainingQuantize", "Reconstruct", "TrainingPlan"),
    }
)
#: The one place that tells a user's own stage from those there are.
REGISTRY = SOURCE / "_src" / "methods" / "stages.py"


def sources():
    return sorted(SOURCE.rglob("*.py"))


def test_no_folder_has_many_modules_beside_each_other():
    modules = defaultdict(list)
    for path in sources():
        if path.name != "__init__.py":
            modules[path.parent].append(path.name)
    crowded = {
        str(folder.relative_to(SOURCE)): len(names) for folder, names in modules.items() if len(names) > MOST_MODULES
    }
    assert not crowded, f"more than {MOST_MODULES} modules in a folder: {crowded}"


def test_no_two_public_names_are_alike():
    """A public function, class or constant has a name that no other module uses for another thing."""
    where = defaultdict(list)
    for path in sources():
        for name in defined(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith("_"):
                where[name].append(str(path.relative_to(SOURCE)))
    twice = {name: places for name, places in where.items() if len(places) > 1}
    assert not twice, f"names of two things: {twice}"


def test_only_its_own_file_asks_what_kind_of_stage_something_is():
    """Nothing branches on the class of a stage: what differs is a method of it."""
    found = []
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            if call.func.id in ("isinstance", "issubclass") and len(call.args) == 2:
                asked = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)} & (STAGES - own)
                if asked and path != REGISTRY:
                    found.append(f"{path.relative_to(SOURCE)}:{call.lineno} asks for {', '.join(sorted(asked))}")
    assert not found, found


def defined(tree):
    """Yield the names a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
