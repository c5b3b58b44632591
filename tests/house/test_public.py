"""What is public is meant to be: it is there, it is described, and nothing else is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib.metadata import version

import pytest
from tests.house.repository import SOURCE, name

import attar
import attar.extend

PUBLIC = sorted(set(attar.__all__) - {"__version__"})
PACKAGES = sorted(path.parent for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE)


def _functions():
    """Yield every public function and method behind the names of ``attar``, under its qualified name."""
    for public in PUBLIC:
        thing = getattr(attar, public)
        if inspect.isfunction(thing):
            yield public, thing
        elif not issubclass(thing, Exception):
            for key, member in vars(thing).items():
                if inspect.isfunction(member) and not key.startswith("_") and member.__module__.startswith("attar"):
                    yield f"{public}.{key}", member


FUNCTIONS = dict(_functions())


def test_the_version_is_the_package_s():
    assert attar.__version__ == version("attar")


@pytest.mark.parametrize("module", [attar, attar.extend])
def test_the_names_that_are_found_lazily_are_those_that_type_checkers_see(module):
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    seen = _seen_by_type_checkers(module)
    assert set(module.__all__) - {"__version__"} == set(seen)
    for public, where in seen.items():
        assert getattr(module, public) is getattr(importlib.import_module(where), public)


@pytest.mark.parametrize("module", [attar, attar.extend])
def test_a_name_that_is_not_there_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"{module.__name__}' has no attribute 'quantise"):
        module.quantise  # noqa: B018


@pytest.mark.parametrize("public", PUBLIC)
def test_a_public_name_resolves_to_a_thing_of_its_own_with_a_docstring(public):
    thing = getattr(attar, public)
    assert thing.__name__ == public
    assert thing.__module__ == _seen_by_type_checkers(attar)[public]
    # A dataclass or a spec without a docstring is given its signature for one.
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{public}(")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_public_function_has_a_docstring_that_leaves_no_argument_out(function):
    doc = inspect.getdoc(FUNCTIONS[function]) or ""
    assert doc, f"{function} has no docstring"
    described = _section(doc, "Args")
    taken = [key for key in inspect.signature(FUNCTIONS[function]).parameters if key != "self"]
    unsaid = [key for key in taken if not re.search(rf"\b{key}\b", described)]
    assert not described or not unsaid, f"{function} does not say what it does with {', '.join(unsaid)}"


@pytest.mark.parametrize("function", [key for key in FUNCTIONS if "." not in key])
def test_a_function_of_attar_itself_says_what_it_takes_returns_and_raises(function):
    doc = inspect.getdoc(FUNCTIONS[function]) or ""
    for section in ("Args", "Raises"):
        assert _section(doc, section), f"attar.{function} has no section {section}"
    assert _section(doc, "Returns") or re.match("Return |Open ", doc), f"attar.{function}: what does it return?"


@pytest.mark.parametrize("package", PACKAGES, ids=[path.name for path in PACKAGES])
def test_a_package_exports_what_it_lists_and_nothing_by_accident(package):
    path = package / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name(path)} does not say where it stands"
    dotted = ".".join(["attar", *package.relative_to(SOURCE).parts])
    lifted = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{dotted}.")
        for alias in node.names
    }
    if lifted:
        module = importlib.import_module(dotted)
        assert list(module.__all__) == sorted(lifted)


def _seen_by_type_checkers(module) -> dict[str, str]:
    """Return public name -> defining module, from ``from module import name as name``."""
    tree = ast.parse(inspect.getsource(module))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in imports for alias in node.names if alias.asname == alias.name}


def _section(doc: str, title: str) -> str:
    found = re.search(rf"^{title}:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""
