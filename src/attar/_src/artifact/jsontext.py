"""Parse untrusted JSON with the checks that ``json`` does not make (``docs/format.md``, section 2)."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from attar._src.core.errors import ArtifactError

MAX_DEPTH = 32
MAX_NUMBER = 32
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # an unterminated string matches too: the scan stays linear


def parse_json(text: bytes, *, values: int) -> dict[str, Any]:
    """Return the JSON object in ``text``, of at most about ``values`` values and keys.

    Deep nesting, long numbers, duplicate keys, lone surrogates and NaN are refused.
    """
    depth, count = _measure(text)
    if depth > MAX_DEPTH:
        raise ArtifactError(f"the JSON is nested {depth} deep; the limit is {MAX_DEPTH}")
    # Each takes a hundred bytes and more once it is parsed: 16 MiB of `[[]],` would take 1.5 GiB.
    if count > values:
        raise ArtifactError(f"the JSON has {count} values, more than the limit of {values}; raise it in Limits")
    try:
        hooks: dict[str, Any] = {"parse_int": _integer, "parse_float": _float, "parse_constant": _constant}
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object, **hooks)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the JSON cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"the JSON is a {type(value).__name__}, not an object")
    return value


def write_json(value: Any) -> bytes:
    """Return ``value`` as canonical JSON: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def _measure(text: bytes) -> tuple[int, int]:
    """Return the nesting depth, and about how many values and keys there are: brackets, commas and colons but strings.

    ``{"a": [1, 2]}`` -> (2, 4)
    """
    plain = np.frombuffer(_STRING.sub(b"", text), np.uint8)
    opened = (plain == ord("[")) | (plain == ord("{"))
    closed = (plain == ord("]")) | (plain == ord("}"))
    parted = (plain == ord(",")) | (plain == ord(":"))
    depth = np.cumsum(opened.astype(np.int8) - closed, dtype=np.int32).max(initial=0)
    return int(depth), int(np.count_nonzero(opened) + np.count_nonzero(parted))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} appears twice")
        found[name] = value
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise ValueError(f"the number {text[:8]}... has {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= MAX_NUMBER else math.inf
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:MAX_NUMBER]} is too long or not finite")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
