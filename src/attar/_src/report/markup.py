"""Markup: HTML that is safe by construction. Text is escaped unless it is an :class:`Html` already.

At the foot of the page's own modules: everything that comes from a file or a recipe reaches the page through here.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is markup already; only this module and its callers' literals make some."""


def tag(name: str, *children: str, **attributes: str | bool | None) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: what is in it; escaped, but for :class:`Html`.
        attributes: ``class_`` stands for ``class``, other underscores for hyphens; True is an attribute without value,
            False and None are none.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Return children one after the other; escaped, but for :class:`Html`."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def table_markup(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    marked: Iterable[int] = (),
) -> Html:
    """Return a table that scrolls in itself on narrow screens; the first cell of each row is the row's header.

    Args:
        caption: what the table shows, read aloud before it.
        columns: their headings.
        rows: a cell for each column.
        numbers: columns of numbers, aligned to the right.
        marked: rows that stand out.
    """
    right, loud = set(numbers), set(marked)
    kind = ["n" if index in right else None for index in range(len(columns))]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind[i]) for i, name in enumerate(columns)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", class_=kind[0]),
            *(tag("td", cell, class_=kind[i]) for i, cell in enumerate(row[1:], 1)),
            class_="marked" if index in loud else None,
        )
        for index, row in enumerate(rows)
    ]
    made = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def script_json(value: Any) -> Html:
    """Return a JSON value that may stand inside a ``script`` element: nothing in it can end the element.

    Numbers that JSON does not have (NaN, infinities) are null.
    """
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
