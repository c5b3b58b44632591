"""Messages name options on the command line, and arguments in Python: one place translates, for every command."""

import re
import warnings
from pathlib import Path

import pytest
import typer

from attar._src.cli import COMMANDS, _application, main, show
from attar._src.cli.option_words import OptionWords, in_option_words, option_words_of

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"


def words(command):
    application = typer.main.get_command(_application([command]))
    return OptionWords.of(command, application.commands[command].params)


@pytest.mark.parametrize(
    ("command", "said", "wanted"),
    [
        (
            "compress",
            "give max_drop=0.5 or max_bytes=40_000",
            "give --max-drop 0.5 or --max-bytes 40000",
        ),
        ("compress", "add train=(x, y); or train=False", "add --train; or --no-train"),
        ("compress", "go on with it (resume=True)", "go on with it (--resume)"),
        ("compress", "minutes=5: too few", "--time 5m: too few"),
        ("compress", "compress.max_drop: is below 0", "--max-drop: is below 0"),
        ("compress", "give more, or validation=", "give more, or --validation"),
        ("compare", "methods=['quantization'], bytes=3", "--method quantization, --bytes 3"),
        ("quantize", "with keep_activations=['a', 'b c']", "with --keep-activations a --keep-activations 'b c'"),
        ("quantize", "activations='dynamic' and overrides={'conv1': 8}", "--activations dynamic and --set conv1=8"),
        ("quantize", "activations=None is faster", "no --activations is faster"),
        ("quantize", "minutes=5 and best=True", "--minutes 5 and --best"),
        ("prune", "max_ms= tells how much; leave out round_to=", "--max-ms tells how much; leave out --round-to"),
        ("prune", "takes batch=4, dynamic=(); export it", "takes --fixed-batch 4; export it"),
        ("compress", "augment='flop': no such", "--augment flop: no such"),
    ],
)
def test_arguments_become_options(command, said, wanted):
    assert words(command).translated(said) == wanted


@pytest.mark.parametrize(
    "said",
    [
        "use_cache=False and requires_grad=False",
        "runs/max_bytes.json, 'max_bytes' and report.max_bytes",
        "called with split='train', dynamic=() and data=(x, y)",
        "equal_predictions=0.9",
        "a max-bytes bytes drop train",
        # A folder of the user, and fields of a recipe.
        "max_bytes has a search already; name another folder",
        "max_bytes/compare.json, ../max_bytes",
        "max_bytes: 9000, and in {max_drop: 0.5}, or max_ms",
        "recipe.models.net.stages.0.max_bytes: no number",
    ],
)
def test_other_words_stay(said):
    assert words("compress").translated(said) == said


@pytest.mark.parametrize(
    "said",
    [
        'trial 0: overrides={"conv1": 2} -> 61,204 bytes',
        "quantize them by name, overrides={'table': 8}, or accept it with keep=['table']",
    ],
)
def test_fields_of_recipes_stay(said):
    """Guards against ``--set conv1=2`` in what ``attar run`` says, where --set is of the whole recipe."""
    assert words("run").translated(said) == said
    assert words("run").translated("go on with it (resume=True)") == "go on with it (--resume)"


def test_outside_of_commands_nothing_is_translated():
    assert in_option_words("give max_bytes=3") == "give max_bytes=3"


def test_all_that_is_printed_is_translated(capsys):
    """Guards against a way of printing that has the words of Python."""
    with option_words_of("compress", []):
        assert in_option_words("give max_bytes=3") == "give max_bytes=3"
    parameters = typer.main.get_command(_application(["compress"])).commands["compress"].params
    with option_words_of("compress", parameters):
        show.say("", "give max_bytes=3")
        show.console().print("give max_bytes=4")
        table = show.plain_table("what")
        table.add_row("give max_bytes=5")
        show.console().print(table)
        show.warnings_first({"": ["give max_bytes=6"]})
    out, err = capsys.readouterr()
    assert "--max-bytes 3" in err
    assert all(f"--max-bytes {number}" in out for number in (4, 5, 6))


@pytest.mark.filterwarnings("default")
def test_errors_and_warnings_of_a_command_are_translated(capsys, tmp_path, monkeypatch):
    given = [f"{DIGITS}:DigitNet", "--arg", "width=4", "-d", "digits"]
    assert main(["prune", *given, "--max-ms", "0", "-o", str(tmp_path / "m.attar")]) == 1
    assert "--max-ms 0: give a time above 0" in capsys.readouterr().err
    assert main(["compress", *given, "--max-drop", "-1", "-o", str(tmp_path / "s")]) == 1
    assert "--max-drop: Input should be" in capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    given_here = [*given, "--no-train", "--max-drop", "1"]
    Path("max_bytes").mkdir()
    Path("max_bytes", "journal.jsonl").write_text('{"event": "begin", "what": "search", "facts": {}}\n')
    assert main(["compress", *given_here, "-o", "max_bytes"]) == 1
    assert "max_bytes has a search already; go on with it (--resume)" in capsys.readouterr().err
    assert main(["compress", *given, "--max-drop", "1", "--augment", "flop", "-o", "t"]) == 1
    err = capsys.readouterr().err
    assert "--augment flop: no augmentation named 'flop'; did you mean 'flip'" in err
    assert "recipe." not in err

    def warned(*_, **__):
        warnings.warn("give more, or validation=", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr("attar._src.cli.options.shared.call_with_data", warned)
    assert main(["compress", *given, "--max-drop", "1", "-o", str(tmp_path / "s")]) == 130
    assert "give more, or --validation" in capsys.readouterr().err


def test_messages_outside_of_the_command_line_name_arguments_alone():
    """Guards against ``(--resume, resume=True)``, of which the command line would say one thing twice."""
    room = Path(__file__).parents[2] / "src" / "attar" / "_src"
    both = re.compile(r"(?<!var)\(--[a-z-]+|=; --[a-z]|--[a-z-]+ \w+ \(\w+=")
    found = [
        f"{path.name}: {match[0]}"
        for path in room.rglob("*.py")
        if "cli" not in path.parts
        for match in both.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_words(command):
    assert all(each.written.startswith("--") for each in words(command).options.values())


def test_a_file_of_a_commands_name_is_no_option():
    """Guards against ``report.json:``, which is a file, as the option --json of attar report."""
    text = "error: runs/x has no report.json: a run writes it; report.json: is a file"
    assert words("report").translated(text) == text
