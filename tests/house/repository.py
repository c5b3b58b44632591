"""The repository as the tests of this folder see it: its files, its documents and the blocks in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "attar"

_MADE = frozenset({".git", ".hypothesis", ".venv", "__pycache__", "build", "dist", "runs"})


def files() -> list[Path]:
    """Return every file of the repository: what git tracks or would; without git, what is not made by tools."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        found = [ROOT / name for name in listed.split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not _is_made(path.relative_to(ROOT))]
    return sorted(path for path in found if path.is_file())


def _is_made(path: Path) -> bool:
    return any(part in _MADE or part.endswith(("_cache", ".egg-info", ".so", ".pyd")) for part in path.parts)


def documents() -> list[Path]:
    """Return every Markdown file."""
    return [path for path in files() if path.suffix == ".md"]


def name(path: Path) -> str:
    """Return a path as messages name it."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        path: the document.
        line: the line of its first line of text, from 1.
        language: what stands behind the opening fence.
        text: what is between the fences.
    """

    path: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{name(self.path)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file the block is, where its first line is a comment that names one."""
        first = re.match(r"# ([\w.-]+\.py)\n", self.text)
        return first[1] if first else None

    def commands(self) -> Iterator[str]:
        """Yield the command lines, continued ones joined."""
        yield from (line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip())


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    return [
        Block(path, text[: found.start(2)].count("\n") + 1, found[1], found[2])
        for text in [path.read_text(encoding="utf-8")]
        for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def prose(path: Path) -> str:
    """Return a document without its fenced blocks, the number of lines kept."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```[^\n]*\n.*?^```$", lambda found: "\n" * found[0].count("\n"), text, flags=re.M | re.S)
