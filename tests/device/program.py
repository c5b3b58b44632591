"""Builds ``device.c`` for a machine, and reads files with it."""

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.house.repository import SOURCE

HERE = Path(__file__).parent
HEADER = SOURCE / "c" / "attar.h"
WARNINGS = ("-std=c99", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-pedantic")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0")
ELEMENTS = 2**20  # the limit of files; low enough that a case is quick, high enough for every sound file here
#: The names of statuses in their order.
STATUSES = re.findall(
    r"^    ATTAR_([A-Z_]+)", re.search(r"enum attar_status \{(.*?)\}", HEADER.read_text(), re.S)[1], re.M
)


@dataclass
class Result:
    """What reading something gave: a status, and the bytes if it is ``OK``."""

    status: str
    data: bytes = b""


@dataclass
class TensorRead:
    """What was read of a tensor; ``mask`` is None unless it is sparse, ``parts`` are codes, scales and offsets."""

    name: str
    values: Result
    mask: Result | None = None
    parts: list[Result] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether something that the tensor has is malformed."""
        read = [self.values, *self.parts, *([self.mask] if self.mask else [])]
        return any(result.status not in ("OK", "WRONG_KIND") for result in read)


@dataclass
class FileRead:
    """What was read of a file: the status of opening it, then its tensors."""

    status: str
    tensors: list[TensorRead] = field(default_factory=list)


def build(folder: Path, *flags: str, compiler: str = "cc", sources: Sequence[str] = ("device.c", "hosted.c")) -> Path:
    """Build a program, the one that reads files unless there are other sources.

    Raises:
        CalledProcessError: it cannot be built with these flags.
    """
    program = folder / "device"
    includes = [f"-I{HEADER.parent}", f"-I{HERE}"]
    limit = f"-DATTAR_ELEMENTS={ELEMENTS}"
    command = [
        compiler,
        *WARNINGS,
        *flags,
        *includes,
        limit,
        *(str(HERE / name) for name in sources),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def build_best(folder: Path) -> Path:
    """Build the program with sanitizers where the compiler has them."""
    try:
        return build(folder, *SANITIZERS)
    except subprocess.CalledProcessError as error:
        if "sanitize" not in error.stderr and "asan" not in error.stderr:
            raise  # the header does not compile without a warning
    return build(folder, "-O1")


def read_files(program: Sequence[str | Path], files: Sequence[bytes]) -> tuple[list[FileRead], str]:
    """Return what the program reads of files, those before a crash, and what it says of one."""
    given = b"".join(struct.pack("<I", len(data)) + data for data in files)
    done = subprocess.run([*program], input=given, capture_output=True, check=False)
    return list(_parse(done.stdout)), done.stderr.decode(errors="replace")


def has(compiler: str) -> bool:
    """Return whether there is such a compiler."""
    return shutil.which(compiler) is not None


class _Output:
    """What the program wrote, read from the front; an IndexError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def result(self) -> Result:
        status = STATUSES[self.byte()]
        if status != "OK":
            return Result(status)
        length = int.from_bytes(bytes(self.byte() for _ in range(4)), "little")
        self.at += length
        if self.at > len(self.data):
            raise IndexError(self.at)
        return Result(status, self.data[self.at - length : self.at])

    def file(self) -> FileRead:
        read = FileRead(STATUSES[self.byte()])
        while read.status == "OK" and (name := self.result()).status == "OK":
            read.tensors.append(self.tensor(json.loads(b'"' + name.data + b'"')))
        return read

    def tensor(self, name: str) -> TensorRead:
        sparse = self.byte()
        read = TensorRead(name, self.result())
        read.mask = self.result() if sparse else None
        if not sparse or read.mask.status == "OK":
            read.parts = [self.result() for _ in range(3)]
        return read


def _parse(data: bytes) -> Iterator[FileRead]:
    out = _Output(data)
    try:
        while out.at < len(data):
            yield out.file()
    except IndexError:
        return  # it crashed there
