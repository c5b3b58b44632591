"""The layers hold: import-linter's contracts, no cycles, and what stays out of a quick start."""

from __future__ import annotations

import graphlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from tests.house.repository import ROOT

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "sklearn", "lightning_fabric")


def test_the_contracts_hold():
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program, "import-linter is not installed beside the interpreter; run `make test`"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_around_a_corner():
    graph = grimp.build_graph("attar", cache_dir=None, exclude_type_checking_imports=False)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("code", "barred"),
    [
        ("import attar", HEAVY),
        ("import attar; dir(attar); attar.ArtifactError", HEAVY),
        ("from attar._src.cli import main; main(['--help'])", HEAVY),
        ("from attar._src.cli import main; main(['--version'])", HEAVY),
        ("from attar._src.cli import main; main(['quantize', '--help'])", ("torch",)),
        ("from attar._src.cli import main; main(['eval', '--help'])", ("torch",)),
        ("import attar; attar.Session; attar.open_artifact", ("torch", "onnxscript", "sklearn")),
        ("import attar._src.measure, attar._src.data, attar._src.backends", ("torch", "onnxscript", "sklearn")),
    ],
)
def test_what_starts_quickly_leaves_the_heavy_packages_alone(code, barred):
    report = "import json, sys; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not loaded & set(barred)
