"""The content of the page as plain data: text, tables and folds, without markup. The templates turn it into HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from attar._src.report.figures.plot import Figure

#: Rows shown of a long table; the page says how many there are.
MOST_ROWS_SHOWN = 200


@dataclass(frozen=True)
class PageTable:
    """A table; the first cell of each row is its header.

    Attributes:
        caption: title, read aloud before the table.
        numbers, code: indices of the columns aligned to the right, and of those set as code.
        marked: indices of highlighted rows.
        file: that has all rows, if not all are shown.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Iterable[int] = ()
    code: Iterable[int] = ()
    marked: Iterable[int] = ()
    file: str = "report.json"

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The first ``MOST_ROWS_SHOWN`` rows."""
        return self.rows[:MOST_ROWS_SHOWN]


@dataclass(frozen=True)
class Details:
    """A part that opens on a click: a table or preformatted text.

    Attributes:
        title: always visible.
        name: the model it is about, in bold before the title.
        table, text: the folded content; one of the two.
    """

    title: str
    name: str = ""
    table: PageTable | None = None
    text: str = ""
    opened: bool = False


@dataclass(frozen=True)
class PageSection:
    """A section under its own heading; its parts are shown in the order of the attributes.

    Attributes:
        anchor: id of the section, the target of links.
        figure: the first figure of the plot with the section's anchor as its name.
        drawings: figures as SVG, which need no script.
        note: small print.
    """

    anchor: str
    title: str
    text: str = ""
    command: str = ""
    figure: Figure | None = None
    drawings: Sequence[Markup] = ()
    tables: Sequence[PageTable] = ()
    note: str = ""
    folds: Sequence[Details] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.command or self.figure or self.drawings or self.tables or self.folds)
