"""Docstrings: there is one where a reader needs it, none is its base class's again, and their examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from functools import cache
from operator import attrgetter

import pytest
from tests.house.repository import ROOT, SOURCE, name
from tests.samples import conv_net

from attar._src.artifact.writer import pack

SOURCES = sorted(SOURCE.rglob("*.py"))
DOCUMENTS = sorted((ROOT / "docs").rglob("*.md"))
#: What an example of a docstring finds in its folder.
NET = """import torch

def build():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def test_what_is_public_has_a_docstring():
    bare = [where for path in SOURCES for where in _undocumented(_tree(path), _module(path))]
    assert not bare, f"no docstring, and no base class in the package has one: {', '.join(bare)}"


def test_no_docstring_is_that_of_the_base_class_again():
    copied = [where for path in SOURCES for where in _copied(_tree(path), _module(path))]
    assert not copied, f"the docstring of the base class again; delete it: {', '.join(copied)}"


@pytest.mark.parametrize("path", [path for path in SOURCES if ">>>" in path.read_text(encoding="utf-8")], ids=name)
def test_the_examples_of_a_module_run(path, workshop):
    module = _imported(_module(path))
    ran = 0
    for node in ast.walk(_tree(path)):
        if isinstance(node, FUNCTION | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            ran += _run(text, vars(module), f"{name(path)}:{getattr(node, 'name', 'module')}")
    assert ran > 0, f"{name(path)} has an example outside its docstrings"


def test_the_examples_of_the_documents_run(workshop):
    for path in DOCUMENTS:
        lines = path.read_text(encoding="utf-8").splitlines()
        _run("\n".join("" if line.startswith("```") else line for line in lines), {}, name(path))


def test_there_are_examples():
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCES, *DOCUMENTS)]
    assert sum(text.count(">>> ") for text in texts) > 10


def test_what_breaks_these_laws_is_found():
    tree = ast.parse(
        '"""A."""\n\n\nclass Rule:\n    """A."""\n\n    def attach(self):\n        """Attach it."""\n\n'
        "    def _own(self): ...\n\n\nclass Mine(Rule):\n    def attach(self): ...\n\n    def more(self): ...\n\n\n"
        'class Other(Rule):\n    """B."""\n\n    def attach(self):\n        """Attach\n        it."""\n\n\n'
        "def loose(): ...\n\n\ndef _private(): ...\n"
    )
    module = {}
    exec(compile(tree, "broken", "exec"), module)
    found = {key: value for key, value in module.items() if isinstance(value, type)}
    for each in found.values():
        each.__module__ = "attar.broken"
    assert _undocumented(tree, "broken", found) == ["broken.Mine", "broken.Mine.more", "broken.loose"]
    assert _copied(tree, "broken", found) == ["broken.Other.attach"]
    with pytest.raises(pytest.fail.Exception, match="gave 3"):
        _run(">>> 1 + 2\n4\n", {}, "broken")
    with pytest.raises(pytest.fail.Exception, match="is skipped"):
        _run(">>> 1 + 2  # doctest: +SKIP\n4\n", {}, "broken")
    with pytest.raises(pytest.skip.Exception, match="no_such_package"):
        _run(">>> import no_such_package\n", {}, "broken")
    with pytest.raises(UserWarning, match="careful"):
        _run(">>> import warnings\n>>> warnings.warn('careful')\n", {}, "broken")


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Work in a folder with what the examples read: ``model.attar`` and ``net.py``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.attar").write_bytes(pack(conv_net()))
    (tmp_path / "net.py").write_text(NET)


def _undocumented(tree, module, classes=None):
    """Return what is public in a module and has no docstring of its own or, as a method, of a base class."""
    bare = [] if ast.get_docstring(tree) else [module]
    for node in tree.body:
        if isinstance(node, FUNCTION | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            bare.append(f"{module}.{node.name}")
        bare += [
            f"{module}.{owner}.{method.name}"
            for owner, method in _methods([node])
            if not ast.get_docstring(method) and not _of_bases(module, owner, method.name, classes)
        ]
    return bare


def _copied(tree, module, classes=None):
    """Return the methods whose docstring is word for word that of a base class."""
    return [
        f"{module}.{owner}.{method.name}"
        for owner, method in _methods(tree.body)
        if (text := ast.get_docstring(method))
        if text.split() in [base.split() for base in _of_bases(module, owner, method.name, classes)]
    ]


def _methods(nodes, outer=""):
    """Yield the public methods of public classes, nested ones included, each with the name of its class."""
    for node in nodes:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            owner = f"{outer}{node.name}"
            for member in node.body:
                if isinstance(member, FUNCTION) and not member.name.startswith("_") and not _is_setter(member):
                    yield owner, member
            yield from _methods(node.body, f"{owner}.")


def _is_setter(function):
    return any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in function.decorator_list)


def _of_bases(module, owner, method, classes=None):
    """Return the docstrings that base classes in the package give a method."""
    cls = classes[owner] if classes else attrgetter(owner)(_imported(module))
    bases = [vars(base).get(method) for base in cls.__mro__[1:] if base.__module__.startswith("attar")]
    return [text for each in bases if each is not None and (text := inspect.getdoc(each))]


def _run(text, names, where):
    """Run the examples of a text in order and return how many there were."""
    test = doctest.DocTestParser().get_doctest(text, dict(names), where, where, 0)
    if any(doctest.SKIP in example.options for example in test.examples):
        pytest.fail(f"{where}: an example is skipped; make it run")
    try:
        doctest.DebugRunner(verbose=False).run(test)
    except doctest.DocTestFailure as failure:
        pytest.fail(f"{where}: {failure.example.source.strip()} gave {failure.got}")
    except doctest.UnexpectedException as failure:
        error = failure.exc_info[1]
        if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("attar"):
            pytest.skip(str(error))
        raise error from None
    return len(test.examples)


def _module(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(module):
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("attar"):
            raise
        pytest.skip(str(error))


@cache
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))
