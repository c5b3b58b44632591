"""What people read."""

from io import StringIO

import pytest
from rich.console import Console

from attar._src.cli import show


@pytest.mark.parametrize(
    ("share", "text"), [(0, ""), (1, "████"), (0.5, "██"), (0.28, "█▏"), (2, "████"), (-1, ""), (0.001, "")]
)
def test_bars(share, text):
    assert show.bar(share, 4) == text


def test_numbers_are_whole_where_names_are_long():
    table = show.plain_table("\nfile", *(f">{title}" for title in ("some\nbytes", "other\nbytes")))
    table.add_row("a-file-of-a-long-name.attar", "1,058,010", "13,058,010")

    def printed(width):
        out = StringIO()
        Console(file=out, width=width).print(table)
        return out.getvalue()

    assert "1,058,010 13,058,010" in printed(32)
    assert "1,058… 13,058…" in printed(14)


def test_json_has_no_nan(capsys):
    show.as_json({"a": 1})
    assert capsys.readouterr().out == '{\n  "a": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        show.as_json({"a": float("nan")})


def test_what_was_interrupted_says_how_to_go_on(capsys):
    # The kind: hours of a search that somebody believes lost.
    with pytest.raises(KeyboardInterrupt), show.resumable():
        raise KeyboardInterrupt
    assert "go on with: the same command and --resume" in capsys.readouterr().err
