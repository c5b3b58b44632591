"""Strings of a file are printed as text: none of them commands the terminal, or the markup of tables."""

import io
import sys

import numpy as np
import pytest
from tests.attacks.reseal import take_apart
from tests.cases.test_hostile import sealed
from tests.samples import conv_net

from attar._src.artifact.writer import pack
from attar._src.cli import main
from attar._src.cli.show import PlainConsole

HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H",
    "colour": "\x9b31mred",
    "overwrite": "sound\rlost",
    "backspace": "ab\b\bcd",
    "reversed": "\u202egnp.exe",
}
COMMANDS = "\x1b\x07\x08\x0d\x9b\u202e"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_prints_commands_as_text(text, terminal):
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=terminal, width=80, color_system=None)
    console.print(text, markup=False)
    assert not set(out.getvalue()) & set(COMMANDS)


def test_our_own_colours_stay():
    out = io.StringIO()
    PlainConsole(file=out, force_terminal=True, highlight=False, color_system="standard").print("[red]a[/]", "\x1b[2J")
    assert out.getvalue() == "\x1b[31ma\x1b[0m \\x1b[2J\n"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_commands_print_a_file_as_text(tmp_path, capsys, text):
    files = {
        "prose": sealed(licence=text, class_names=[text]).seal(),
        "name": sealed(task=text).seal(),
        "key": sealed(**{text: 1}).seal(),
        "graph": take_apart(pack(conv_net(), compact=False))
        .graph(lambda model: setattr(model.graph.node[0], "op_type", text))
        .seal(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        for command in ("inspect", "verify"):
            main([command, str(tmp_path / name)])
    main(["inspect", str(tmp_path / f"no{text}.attar")])
    printed = capsys.readouterr()
    assert not set(printed.out + printed.err) & set(COMMANDS)
    assert "licence" in printed.out


def test_class_names_are_not_markup(tmp_path, capsys):
    contents = take_apart(pack(conv_net(), compact=False))
    contents.manifest["class_names"] = [f"[link=http://example.org]{n}[/link]\x1b[2J" for n in range(10)]
    (tmp_path / "m.attar").write_bytes(contents.seal())
    x, y = np.zeros((20, 3, 8, 8), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / "data.npz", x=x, y=y)
    assert main(["eval", str(tmp_path / "m.attar"), "--data", f"npz:{tmp_path / 'data.npz'}"]) == 0
    printed = capsys.readouterr().out
    assert "[link=http://example.org]" in printed.replace("\n", "")
    assert "\x1b" not in printed


@pytest.mark.skipif(sys.platform == "win32", reason="isolated processes need POSIX")
def test_verify_runs_a_file_behind_the_wall(tmp_path, capsys):
    (tmp_path / "m.attar").write_bytes(pack(conv_net()))
    assert main(["verify", str(tmp_path / "m.attar"), "--run"]) == 0
    assert "sound and run" in capsys.readouterr().out
