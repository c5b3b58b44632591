"""Laws on the files themselves: what they may not say, how large they may be, what they may not be called."""

from __future__ import annotations

import re

import pytest
from tests.house.repository import ROOT, SOURCE, files, name

#: What -> how it is found. Each is written so that this file does not hold what it looks for. A test of what may leak
#: into a file calls its owner ``secret``.
FORBIDDEN = {
    "an absolute path of a machine": re.compile(
        rb"(?<![\w/.*$}-])/(?:home|work|root|Users|mnt)/(?!secret)\w|[A-Z]:\\Users\\"
    ),
    "unpickling": re.compile(rb"\bpickle\.(?:load|Unpickler)|allow_pickle\s*=\s*True|\bjoblib\.load"),
    "weights that run code": re.compile(rb"weights_only\s*=\s*False"),
}
VAGUE = frozenset({"utils.py", "util.py", "helpers.py", "misc.py", "common.py"})
MOST_BYTES = 1_000_000
MOST_LINES = 350


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what):
    found = [
        f"{name(path)}:{data[: hit.start()].count(10) + 1}"
        for path in files()
        for data in [path.read_bytes()]
        if (hit := FORBIDDEN[what].search(data))
    ]
    assert not found, f"{what}: {', '.join(found)}"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("an absolute path of a machine", "open('/home" + "/ann/x')"),
        ("an absolute path of a machine", "cd /work" + "/attar"),
        ("unpickling", "pickle" + ".loads(data)"),
        ("unpickling", "np.load(path, allow_pickle=" + "True)"),
        ("weights that run code", "torch.load(path, weights_only=" + "False)"),
    ],
)
def test_what_is_forbidden_would_be_found(what, text):
    assert FORBIDDEN[what].search(text.encode())


@pytest.mark.parametrize(
    "text", ["src/attar/_src/work/compressed_model.py", "tests/work/x", "a pickle", "weights_only=True"]
)
def test_what_is_allowed_is_not_found(text):
    assert not any(pattern.search(text.encode()) for pattern in FORBIDDEN.values())


def test_no_file_is_large():
    large = {name(path): path.stat().st_size for path in files() if path.stat().st_size > MOST_BYTES}
    assert not large, f"over {MOST_BYTES} bytes: {large}"


def test_no_source_file_is_long():
    lines = {name(path): path.read_bytes().count(b"\n") for path in files() if path.suffix == ".py"}
    long = {path: count for path, count in lines.items() if path.startswith("src/") and count > MOST_LINES}
    assert not long, f"over {MOST_LINES} lines: {long}"


def test_no_file_is_a_drawer_for_everything():
    assert not [name(path) for path in files() if path.name in VAGUE]


def test_text_is_text():
    kinds = {".py", ".md", ".toml", ".txt", ".json", ".yml", ".yaml"}
    for path in files():
        if path.suffix in kinds or path.name in ("Makefile", "LICENSE", "run"):
            data = path.read_bytes()
            data.decode("utf-8")
            assert b"\r" not in data, f"{name(path)} has carriage returns"
            assert not data or data.endswith(b"\n"), f"{name(path)} does not end in a line"


def test_base_names_of_tests_are_unique():
    names = [path.name for path in files() if path.parent != ROOT and path.name.startswith("test_")]
    twice = sorted({found for found in names if names.count(found) > 1})
    assert not twice, f"pytest imports tests by their base name: {twice}"


def test_every_module_is_part_of_the_repository():
    """Guards against a folder that a rule of .gitignore hides: its modules are in no clone."""
    known = set(files())
    hidden = [name(path) for path in SOURCE.rglob("*.py") if path not in known]
    assert not hidden, f"rename what .gitignore leaves out: {hidden}"
