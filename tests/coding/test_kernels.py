from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attar._src.coding
from attar._src.coding.kernels import compiled

ROUND_TRIP = """
import sys
import numpy as np
from attar._src.coding.registry import CODERS
assert "numba" not in sys.modules, "numba is imported before it is needed"
coder = CODERS["rans"]
symbols = np.arange(100, dtype=np.uint8) % 7
payload = coder.encode(symbols, b"", 7)
assert (coder.decode(memoryview(payload), 100, b"", 7) == symbols).all()
assert "torch" not in sys.modules
"""


def test_a_compiled_function_does_what_the_plain_one_does() -> None:
    @compiled
    def total(values: np.ndarray) -> float:
        """Sum."""
        result = 0.0
        for value in values:
            result += value
        return result

    assert total(np.arange(10.0)) == 45.0
    assert total.__name__ == "total"
    assert total.__doc__ == "Sum."


@pytest.mark.skipif(os.name != "posix", reason="folders are made read-only by their mode")
def test_without_a_folder_for_its_cache(tmp_path: Path) -> None:
    # A plain file where the cache's folder would be: nobody can write below it, not even root.
    obstacle = tmp_path / "file"
    obstacle.touch()
    package = Path(attar._src.coding.__file__).parents[1]
    (tmp_path / "attar" / "_src").mkdir(parents=True)
    for part in ("core", "coding"):
        (tmp_path / "attar" / "_src" / part).mkdir()
        for source in (package / part).glob("*.py"):
            (tmp_path / "attar" / "_src" / part / source.name).write_bytes(source.read_bytes())
        (tmp_path / "attar" / "_src" / part / "__pycache__").touch()
    (tmp_path / "attar" / "__init__.py").touch()
    (tmp_path / "attar" / "_src" / "__init__.py").touch()
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "HOME": str(obstacle),
        "XDG_CACHE_HOME": str(obstacle),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ROUND_TRIP], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
