"""The documents point at what is there: links, headings, files and names of the source."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from tests.house.repository import ROOT, blocks, documents, files, name, prose

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
#: Names that stand for any file, or for one of a reader's own.
ANY_FILE = frozenset({"x.py", "test_x.py", "file.py", "net.py", "report.json"})


@pytest.mark.parametrize("path", documents(), ids=name)
def test_links_resolve(path):
    for target in LINK.findall(prose(path)):
        if re.match("[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        found = (path.parent / unquote(place)).resolve() if place else path
        assert found.exists(), f"{name(path)} links to {target}, which is not there"
        if anchor:
            assert anchor in _anchors(found), f"{name(path)} links to {target}, which has no such heading"


@pytest.mark.parametrize("path", documents(), ids=name)
def test_named_files_exist(path):
    known = [f"/{name(file)}" for file in files()]
    own = {block.file for block in blocks(path)} | ANY_FILE
    for span in re.findall(r"`([^`\n]+)`", prose(path)):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|md|toml|txt)|[\w.-]+\.(md|toml|txt)", span):
            continue
        if span.rpartition("/")[2] in own:
            continue
        assert any(file.endswith(f"/{span}") for file in known), f"{name(path)} names {span}, which is not there"


def test_every_document_can_be_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        if path.is_dir():
            todo += [file for file in documents() if file.parent == path or path in file.parents]
        elif path.suffix == ".md":
            links = [target.partition("#")[0] for target in LINK.findall(prose(path))]
            todo += [(path.parent / unquote(link)).resolve() for link in links if link and ":" not in link]
    lost = [name(path) for path in documents() if path not in seen and "tests" not in path.parts]
    assert not lost, f"no link leads to {lost}"


def test_decisions_are_numbered_without_gaps_and_have_their_parts():
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), f"{name(path)} does not begin with its number"
        for part in ("Context", "Decision", "Consequence"):
            assert f"**{part}.**" in text, f"{name(path)} has no {part.lower()}"


def _anchors(path):
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
