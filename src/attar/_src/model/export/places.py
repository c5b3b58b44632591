"""Where a value of a captured program comes from: the operator, the submodule and the line of the user's code."""

from __future__ import annotations

from torch import fx

from attar._src.core.errors import place_in


def described(node: fx.Node) -> str:
    """Return a node's operator, submodule and line: ``dropout in 'head' (net.py, line 12: x = F.dropout(x))``."""
    operator = str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    inside = f" in {stack[-1]!r}" if stack else ""
    line = place_in(str(node.meta.get("stack_trace") or ""), packages=True)
    return f"{operator}{inside}{f' ({line})' if line else ''}"
