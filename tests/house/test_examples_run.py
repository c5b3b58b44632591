"""The examples of the documents run: Python blocks, and the command lines beside them."""

from __future__ import annotations

import re
import shlex
import sys

import pytest
import typer
from tests.house.repository import ROOT, blocks, documents, files, name

from attar._src.cli import COMMANDS, load_command, main
from attar._src.core.errors import DataError

RUN = ("README.md", "docs/extending.md", "docs/models.md")
#: Documents whose command lines need weights and data that are not in the repository: theirs are parsed, not run.
PARSED_ONLY = ("README.md",)


@pytest.mark.parametrize("document", RUN)
def test_the_blocks_run_in_order(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    names: dict[str, object] = {"__name__": "__main__"}
    ran = 0
    try:
        for block in blocks(ROOT / document):
            if block.file:
                (tmp_path / block.file).write_text(block.text)
            if block.language == "python":
                if block.file is None:
                    _run(block, names)
                    ran += 1
            elif block.language == "bash" and document not in PARSED_ONLY:
                for line in block.commands():
                    assert main(shlex.split(line)[1:]) == 0, f"{block.where}: {line}"
                    ran += 1
    finally:
        for module in set(sys.modules) - known:
            if getattr(sys.modules[module], "__file__", None) == str(tmp_path / f"{module}.py"):
                del sys.modules[module]
    assert ran > 0, f"{document} has no example"


def test_every_block_is_of_a_language_that_is_tried():
    for document in RUN:
        for block in blocks(ROOT / document):
            assert block.language in ("python", "bash"), f"{block.where}: indent what is not meant to run"


def test_every_command_line_of_the_documents_is_one_that_attar_takes():
    lines = [line for path in documents() for line in _documented(path)]
    assert {line.split()[1] for _, line in lines} >= set(COMMANDS), "a command is shown nowhere"
    for where, line in lines:
        _parse(where, line, whole=True)


def test_every_command_line_of_the_docstrings_is_one_that_attar_takes():
    sources = [path for path in files() if path.suffix == ".py" and path.parent.name in ("cli", "examples", "attar")]
    found = 0
    for path in sources:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.match(rf"\s*attar ({'|'.join(COMMANDS)})( |$)", line):
                _parse(f"{name(path)}:{number}", line.strip(), whole=False)
                found += 1
    assert found >= len(COMMANDS)


def test_the_readme_lists_the_options_of_quantize_and_no_others():
    rows = re.findall(r"^\| (`--.*?) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {option for row in rows for option in re.findall(r"(--[a-z-]+)", row)} - {"--data"}
    command = _command("quantize")
    options = [set(p.opts) | set(p.secondary_opts) for p in command.params if p.opts[0].startswith("--")]
    assert listed <= set().union(*options)
    shown = listed | {"--weights", "--data", "--output", "--json"}
    missing = [min(names) for names in options if not names & shown]
    assert not missing, f"README.md does not say what {missing} do"


def _run(block, names):
    code = compile("\n" * (block.line - 1) + block.text, block.where, "exec")
    try:
        exec(code, names)
    except DataError as error:
        if "ATTAR_DATA" not in str(error):
            raise
        pytest.skip(f"{block.where}: {error}")


def _documented(path):
    """Yield place and text of the command lines in fenced and indented blocks."""
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.replace("\\\n", "\\").splitlines(), 1):
        if re.match(rf"(    )?(\$ )?attar ({'|'.join(COMMANDS)})( |$)", line):
            yield f"{name(path)}:{number}", line.replace("\\", " ").strip().removeprefix("$ ")


def _command(asked):
    app = typer.Typer(add_completion=False)
    app.command(asked)(load_command(asked))
    return typer.main.get_command(app)


def _parse(where, line, *, whole):
    """Parse a command line; ``whole`` where nothing may be missing."""
    _, asked, *arguments = shlex.split(line)
    command = _command(asked)
    refusals = (*typer.BadParameter.__bases__,)
    try:
        if whole:
            command.make_context(asked, arguments)
        else:
            context = command.context_class(command, info_name=asked)
            command.make_parser(context).parse_args(arguments)
    except refusals as error:
        pytest.fail(f"{where}: {line}\n{error.format_message()}")
