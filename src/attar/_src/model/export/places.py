"""Where a value of a captured program comes from: the operator, the submodule and the line of the user's code."""

from __future__ import annotations

import contextlib
import re
import traceback
from itertools import dropwhile
from pathlib import Path

import torch
from torch import fx

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')
_ATTAR = str(Path(__file__).parents[3])
_TORCH = str(Path(torch.__file__).parent)
_PYTHON = str(Path(contextlib.__file__).parent)


def described(node: fx.Node) -> str:
    """Return a node's operator, submodule and line: ``dropout in 'head' (net.py:12: x = F.dropout(x))``."""
    operator = str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    inside = f" in {stack[-1]!r}" if stack else ""
    line = innermost_line(str(node.meta.get("stack_trace") or ""))
    return f"{operator}{inside}{f' ({line})' if line else ''}"


def innermost_line(trace: str) -> str:
    """Return the innermost line of the user's code in the text of a traceback, empty if there is none."""
    return _innermost([(file, int(line), code) for file, line, code in _FRAME.findall(trace)])


def line_that_raised(error: BaseException) -> str:
    """Return the innermost line of the user's code in a traceback, empty if there is none."""
    found = traceback.extract_tb(error.__traceback__)
    frames = [(frame.filename, frame.lineno or 0, frame.line or "") for frame in found]
    # Frames before Attar's first are those of its caller.
    return _innermost(list(dropwhile(lambda frame: not frame[0].startswith(_ATTAR), frames)))


def _innermost(frames: list[tuple[str, int, str]]) -> str:
    own = [frame for frame in frames if _is_users(frame[0])]
    if not own:
        return ""
    file, line, code = own[-1]
    return f"{Path(file).name}:{line}: {' '.join(code.split())}"


def _is_users(file: str) -> bool:
    standard = file.startswith(_PYTHON) and "-packages" not in file
    return not (standard or file.startswith(("<", _ATTAR, _TORCH)))
