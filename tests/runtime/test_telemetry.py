"""ONNX Runtime reports nothing to its maker and writes nothing into the user's folders, unless the user asks for it."""

import os
import subprocess
import sys

import pytest
from tests.house.repository import SOURCE
from tests.samples import conv_net

from attar._src.artifact.writer import pack

RUN = """
import sys
from attar import Session
session = Session(sys.argv[1], threads=1)
session.run(session.example())
"""
VERIFY = "import sys; from attar._src.cli import main; sys.exit(main(['verify', sys.argv[1]]))"
BENCH = "import sys; from attar._src.cli import main; sys.exit(main(['bench', sys.argv[1], '--rounds', '1']))"


def run(code, path, **more):
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=kept | more, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [RUN, VERIFY, BENCH], ids=["Session", "verify", "bench"])
def test_nothing_is_written_into_a_fresh_home(tmp_path, code):
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    (tmp_path / "m.attar").write_bytes(pack(conv_net()))
    folders = {name: str(home / name.lower()) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    run(code, tmp_path / "m.attar", HOME=str(home), TMPDIR=str(temporary), **folders)
    assert not [*home.rglob("*"), *temporary.rglob("*")]


@pytest.mark.parametrize("choice", ["1", "true"])
def test_what_the_user_has_set_is_kept(choice):
    code = "import os, attar._src.runtime.engine; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(code, "", ORT_DISABLE_TELEMETRY=choice) == f"{choice}\n"


def test_one_file_imports_onnx_runtime():
    """Else it could be imported before the variable is set."""
    importing = [path for path in SOURCE.rglob("*.py") if "import onnxruntime" in path.read_text(encoding="utf-8")]
    importing += [path for path in SOURCE.rglob("*.py") if "from onnxruntime" in path.read_text(encoding="utf-8")]
    assert {path.name for path in importing} == {"engine.py"}
