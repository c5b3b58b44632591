"""Run Python with ONNX Runtime and OpenVINO on the kernels of a processor whose newest vectors are AVX2.

    python benchmarks/as_avx2.py [-m MODULE | FILE | -c CODE] [ARGUMENT ...]

Libraries choose their kernels by the answers of ``cpuid``. They run here from copies, in which each ``cpuid`` that
``objdump`` finds is a trap; a handler (``as_avx2.c``, preloaded) executes the instruction and hides AVX-512, VNNI,
AVX-VNNI and AMX. They ask once, when they are loaded, so kernels run at full speed.

What this shows are the kernels for AVX2: their results, bit for bit, and their times relative to each other on this
processor. Its clock, caches and units of execution stay; an older one is slower, and not in everything alike.

Needs x86-64 Linux with AVX2, gcc and objdump (binutils). Processes that are started without the environment of their
parent, as isolated sessions are, end at the first trap.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

#: Package -> its libraries that ask the processor, of those that Python loads.
LIBRARIES = {
    "onnxruntime": ("capi/onnxruntime_pybind11_state*.so",),
    "openvino": ("libs/libopenvino.so*", "libs/libopenvino_intel_cpu_plugin.so", "libs/libtbb.so*"),
}
HANDLER = Path(__file__).with_suffix(".c")
CPUID, TRAP = bytes.fromhex("0fa2"), bytes.fromhex("cc90")


def missing() -> str:
    """Return why no AVX2 processor can be made of this one, or an empty string."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return f"x86-64 Linux is needed, not {platform.machine()} {platform.system()}"
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        return "this processor has no AVX2"
    absent = [tool for tool in ("gcc", "objdump") if shutil.which(tool) is None]
    return f"{' and '.join(absent)} not found: apt-get install gcc binutils" if absent else ""


def hidden() -> bool:
    """Return whether this Python runs in an :func:`environment`."""
    return HANDLER.with_suffix(".so").name in os.environ.get("LD_PRELOAD", "")


def environment(folder: Path, packages: tuple[str, ...] = tuple(LIBRARIES)) -> dict[str, str]:
    """Return the environment in which a new Python sees AVX2, with the copies it needs in ``folder``.

    Packages that are not installed are left out.

    Raises:
        RuntimeError: it cannot be made here.
    """
    if hidden():
        return dict(os.environ)
    if why := missing():
        raise RuntimeError(f"AVX-512 and VNNI cannot be hidden: {why}")
    for package in packages:
        found = find_spec(package)
        if found is not None and found.submodule_search_locations:
            _copy(Path(found.submodule_search_locations[0]), folder / package, LIBRARIES[package])
    handler = folder / HANDLER.with_suffix(".so").name
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", handler, HANDLER], check=True)
    before = {name: os.environ.get(name, "") for name in ("PYTHONPATH", "LD_PRELOAD")}
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), before["PYTHONPATH"]])),
        "LD_PRELOAD": " ".join(filter(None, [str(handler), before["LD_PRELOAD"]])),
    }


def _copy(package: Path, to: Path, libraries: tuple[str, ...]) -> None:
    """Make a package of links and of libraries with traps."""
    shutil.copytree(package, to, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    replaced = 0
    for library in sorted({path for pattern in libraries for path in package.glob(pattern)}):
        data = bytearray(library.read_bytes())
        for place in _places(library):
            if data[place : place + 2] != CPUID:
                raise RuntimeError(f"{library} has no cpuid at {place:#x}, where objdump finds one")
            data[place : place + 2] = TRAP
            replaced += 1
        copy = to / library.relative_to(package)
        copy.unlink()
        copy.write_bytes(data)
    if not replaced:
        raise RuntimeError(f"no cpuid was found in {package}/{', '.join(libraries)}")


def _places(library: Path) -> Iterator[int]:
    """Yield where in a file each ``cpuid`` is; other instructions hold the same two bytes by chance."""
    # Section -> its place in the file minus its address.
    headers = re.findall(r" *\d+ (\S+) +\w+ +(\w+) +\w+ +(\w+) ", "".join(_objdump("--section-headers", library)))
    shifts = {name: int(place, 16) - int(address, 16) for name, address, place in headers}
    shift = 0
    for line in _objdump("--disassemble", "--no-show-raw-insn", library):
        if "\tcpuid" in line:
            yield int(line.partition(":")[0], 16) + shift
        elif line.startswith("Disassembly of section "):
            shift = shifts[line.split()[-1].rstrip(":")]


def _objdump(*arguments: str | Path) -> Iterator[str]:
    """Yield what objdump prints, line by line: hundreds of megabytes."""
    english = os.environ | {"LC_ALL": "C"}
    with subprocess.Popen(["objdump", *arguments], stdout=subprocess.PIPE, text=True, env=english) as ran:
        assert ran.stdout is not None
        yield from ran.stdout
    if ran.returncode:
        raise RuntimeError(f"objdump cannot read {arguments[-1]}")


def main(arguments: list[str]) -> None:
    """Run Python with the arguments."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            there = environment(Path(folder))
        except RuntimeError as error:
            sys.exit(str(error))
        sys.exit(subprocess.run([sys.executable, *arguments], env=there, check=False).returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
