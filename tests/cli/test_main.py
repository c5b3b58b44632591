"""The command line as a whole: help, versions, errors and exit codes."""

import subprocess
import sys
import warnings

import pytest

from attar._src import cli
from attar._src.cli import COMMANDS, load_command, main
from attar._src.core.errors import AttarError


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out and short.split(".")[0][:30] in out for name, short in COMMANDS.items())


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from attar._src.cli import main; assert main(['--help']) == 0 == main(['--version'])\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'torch', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    assert f"attar {name} " in load_command(name).__doc__
    assert main([name, "--help"]) == 0
    assert "Example" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    import attar

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"attar {attar.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["instpect", "x"], "No such command 'instpect'"),
        (["eval", "x.attar"], "Missing option '--data'"),
        (["bench", "x.attar", "--batch", "0"], "--batch"),
        (["verify", "x.attar", "--wrong"], "--wrong"),
        (["--wrong"], "--wrong"),
    ],
)
def test_wrong_usage_is_2_and_says_where_help_is(arguments, message, capsys):
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: ")
    assert message in streams.err
    assert "--help" in streams.err


def test_without_arguments_there_is_help(capsys):
    assert main([]) == 2
    streams = capsys.readouterr()
    assert "Usage" in streams.out + streams.err


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [(AttarError("a [red] word"), 1, "error: a [red] word"), (KeyboardInterrupt(), 130, "error: interrupted")],
)
def test_errors_are_one_line_and_a_code(monkeypatch, capsys, fault, code, message):
    def fail(*_args, **_options):
        raise fault

    monkeypatch.setattr("attar._src.cli.files.verify.open_artifact", fail)
    assert main(["verify", "x.attar"]) == code
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", f"{message}\n")


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("attar._src.cli.files.verify.open_artifact", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["verify", "x.attar"])


def test_python_m_attar_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "attar", "verify", str(tmp_path / "nothing.attar")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "there is no file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_warning_is_one_line_without_the_code_it_comes_from(capsys, monkeypatch):
    def warned(given):
        warnings.warn("larger than asked", stacklevel=1)
        return 0

    monkeypatch.setattr(cli, "_run", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["run", "recipe.yaml"]) == 0
    assert capsys.readouterr().err == "warning: larger than asked\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise EOFError('cut short')", "raised EOFError: cut short (data.py, line 2: raise EOFError('cut short'))"),
        ("raise SystemExit('no data')", "raised SystemExit: no data (data.py, line 2"),
        ("return open('missing.npy')", "raised FileNotFoundError: [Errno 2] No such file or directory: 'missing.npy'"),
        ("import marshal; return marshal.loads(b'')", "raised EOFError: EOF read where object expected (data.py"),
    ],
)
def test_what_a_user_s_code_raises_is_one_line_with_its_place(code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.py").write_text(f"def load(split):\n    {code}\n")
    (tmp_path / "net.py").write_text("import torch\ndef net():\n    return torch.nn.Linear(3, 2)\n")
    (tmp_path / "recipe.yaml").write_text("data: data.py:load\nmodels:\n  net:\n    source: net.py:net\n")
    assert main(["quantize", "net.py:net", "-d", "data.py:load", "-o", "m.attar"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: data.py:load, called with split='train', raised ")
    assert said in lines[0]
    assert main(["run", "recipe.yaml"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: recipe.data.source: data.py:load, called with split='train', raised ")


def test_the_end_of_a_file_in_a_command_is_no_interruption(monkeypatch, capsys):
    def verify_command():
        """Verify."""
        raise EOFError("half a file")

    monkeypatch.setattr(cli, "load_command", lambda name: verify_command)
    assert main(["verify"]) == 1
    err = capsys.readouterr().err
    assert "EOFError: half a file (test_main.py, line" in err
    assert "interrupted" not in err
