"""The loops in C and in Python give the same; which are used, and what is built without a compiler."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from attar._src.coding import kernels
from attar._src.coding.base import LANES, Status
from attar._src.coding.chunks import CHUNK
from attar._src.coding.rans import SMALL
from attar._src.coding.registry import CODERS

ROOT = Path(__file__).parents[2]
BUILD = "python setup.py build_ext --inplace"
BUILT = importlib.util.find_spec("attar._src.coding._native") is not None
needs_native = pytest.mark.skipif(not kernels.NATIVE, reason="the extension is not built")
every_coder = pytest.mark.parametrize("name", list(CODERS))


def symbols_of(count: int, alphabet: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(count)
    values = np.where(random.random(count) < 0.4, alphabet // 2, random.integers(0, alphabet, count))
    return values.astype(np.uint8)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.skipif(os.environ.get("ATTAR_NO_NATIVE", "0") != "0", reason="the extension is not wanted")
def test_the_extension_is_built_where_there_is_a_compiler() -> None:
    assert kernels.NATIVE, f"run `{BUILD}`, or install the checkout again"


@needs_native
@every_coder
@pytest.mark.parametrize("count", [0, 1, 7, SMALL - 1, SMALL, 60_001, CHUNK + 3000])
@pytest.mark.parametrize("alphabet", [2, 15, 256])
def test_c_and_python_give_the_same(name: str, count: int, alphabet: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "context" and count > 4096:
        count = 4096 + count % 4096  # Python takes seconds for more; chunks are what all coders share
    coder, symbols = CODERS[name], symbols_of(count, alphabet)
    table = coder.table(np.bincount(symbols, minlength=alphabet))
    payloads = []
    for native in (True, False):
        monkeypatch.setattr(kernels, "NATIVE", native)
        payloads.append(coder.encode(symbols, table, alphabet))
        back = coder.decode(memoryview(payloads[0]), count, table, alphabet)
        np.testing.assert_array_equal(back, symbols)
    assert payloads[0] == payloads[1]


@needs_native
def test_the_numbers_of_a_status_are_those_of_the_header() -> None:
    text = (ROOT / "src" / "attar" / "c" / "attar.h").read_text()
    listed = text[text.index("typedef enum attar_status") : text.index("} attar_status")]
    names = [line.split()[0].strip(",") for line in listed.splitlines() if line.strip().startswith("ATTAR_")]
    assert names[: len(Status)] == [f"ATTAR_{status.name}" for status in Status]
    assert names[len(Status)] == "ATTAR_END", "from there on they are statuses of whole files"


@needs_native
def test_a_chunk_is_decoded_without_the_lock_of_the_interpreter() -> None:
    payload, symbols = np.zeros(1 << 26, np.uint8), np.zeros(1 << 26, np.uint8)
    decode = kernels.decoder("raw", b"", 256)
    assert decode
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # a thread gives the lock away only where it means to
    try:
        assert any(_runs_beside(lambda: decode(payload, symbols)) for _ in range(5))
        assert not _runs_beside(lambda: sum(range(300_000)))  # this does not
    finally:
        sys.setswitchinterval(interval)


def _runs_beside(work: Callable[[], object]) -> bool:
    """Whether another thread ran between the first and the last moment of ``work``."""
    started, done = threading.Event(), []

    def run() -> None:
        started.set()
        work()
        done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    beside = not done
    thread.join()
    return beside


@needs_native
def test_the_encoders_check_what_they_are_given() -> None:
    native = kernels._native
    entries = np.zeros((2, 256), np.uint32)
    one, none = np.zeros(1, np.uint8), np.zeros(0, np.uint8)
    for first, rare in ((one, none), (none, one)):
        with pytest.raises(ValueError, match="no frequency"):
            native.encode_rans(first, rare, entries, 8, LANES)
    for wrong in ((entries[0], 8, 1), (entries, 7, 1), (entries, 16, 1), (entries, 8, 2)):
        with pytest.raises(ValueError, match="encode_rans"):
            native.encode_rans(one, none, *wrong)
    with pytest.raises(ValueError, match="encode_huffman"):
        native.encode_huffman(one, entries)
    with pytest.raises(ValueError, match="PyCapsule"):
        native.decode(object(), one, one)
    for coder, alphabet in ((-1, 4), (3, 4), (1, 0), (1, 257), (1, -1)):
        assert native.open_table(coder, b"", alphabet) == Status.BAD_TABLE


ROUND_TRIP = """
import sys
import numpy as np
from attar._src.coding import kernels
from attar._src.coding.registry import CODERS
for coder in CODERS.values():
    symbols = np.arange(5000, dtype=np.uint8) % 7
    table = coder.table(np.bincount(symbols))
    payload = coder.encode(symbols, table, 7)
    assert (coder.decode(memoryview(payload), 5000, table, 7) == symbols).all()
assert "torch" not in sys.modules
print(kernels.NATIVE)
"""


@pytest.mark.parametrize(("value", "native"), [("1", False), ("0", BUILT), ("", BUILT)])
def test_the_environment_chooses_python(value: str, native: bool) -> None:
    environment = os.environ | {"ATTAR_NO_NATIVE": value}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ROUND_TRIP], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(native)


@pytest.mark.skipif(
    os.name != "posix" or not importlib.util.find_spec("setuptools"), reason="no POSIX, or no setuptools"
)
@pytest.mark.parametrize("compiler", ["cc", "no-such-compiler"])
def test_an_installation_goes_on_without_a_compiler(tmp_path: Path, compiler: str) -> None:
    if compiler == "cc" and not shutil.which("cc"):
        pytest.skip("no C compiler")
    (tmp_path / "src" / "attar").mkdir(parents=True)
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "src" / "attar" / "c", tmp_path / "src" / "attar" / "c")
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "lib", "--build-temp", "made"]
    environment = os.environ | {"CC": compiler, "LDSHARED": f"{compiler} -shared"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("_native", "_columns"):
        assert len(list(tmp_path.glob(f"lib/attar/_src/**/{name}*"))) == (compiler == "cc")
        assert (name in done.stderr) == (compiler != "cc")  # what failed, and no warning of a compiler
