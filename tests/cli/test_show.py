"""What people read."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from attar._src.cli import show
from attar._src.cli.compare import _SHOWN
from attar._src.cli.compress import print_found
from attar._src.search.comparison.registry import METHODS
from attar._src.search.plan import size_step


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


def test_names_of_methods_and_steps_are_not_wrapped_in_100_columns(capsys):
    """Guards against tables whose first column is two lines high where there is room for one."""
    methods = show.plain_table(*_SHOWN.values())
    for name in METHODS:
        methods.add_row(name, "1,273,300", "0.345", "0.22", "12.3 ms", "0.98×", "123.4 MB")
    out = show.console()
    assert out.width == 100
    out.print(methods)
    file = {
        "drop": 0.345,
        "noise": 0.22,
        "ruined": False,
        "metric": 0.91,
        "file_bytes": 1_273_300,
        "unit": "points of accuracy",
    }
    step = size_step(1_273_300, "dynamic", improved=True).name
    found = {
        "files": [{**file, "name": step, "ms": 12.3, "against_floating": [1, 1, 1]}],
        "best": "",
        "front": [step],
        "words": "",
        "met": True,
        "ended": "",
        "skipped": [],
        "failed": {},
        "validation": 2000,
    }
    print_found(found, Path("found"))
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in (*METHODS, step))
    assert len(lines) == 2 + len(METHODS) + 2 + 1 + 5
    assert "± is one standard error of the loss, for the draw of the 2,000 validation examples." in lines
