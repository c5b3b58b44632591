"""The fuzzer of ``attar.h``: mutated streams, decoded in C under sanitizers and in Python, which must agree.

    python -m tests.attacks.fuzz_streams --cases 1000000 --seed 0
    python -m tests.attacks.fuzz_streams --seed 0 --case 1234        # what one case is

A case is a stream with its table, something of it changed. It passes if C and Python both refuse it, or both give the
same symbols, and if the extension, where it is built, does as well.
"""

import functools
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from tests.attacks.many import fuzz
from tests.attacks.mutate import damage

from attar._src.coding import kernels
from attar._src.coding.chunks import CHUNK
from attar._src.coding.contexts.fit import fit_table
from attar._src.coding.levels import write_levels
from attar._src.coding.registry import CODERS
from attar._src.core.errors import ArtifactError

HERE = Path(__file__).parent
HEADER = HERE.parents[1] / "src" / "attar" / "c"
NAMES = ("raw", "rans", "huffman", "context")
WORK = 23919 + 65535  # what a table of the context coder may need
NO_ROOM = 1
BATCH = 2000
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-pedantic", "-Werror")
FLAGS = ("-std=c99", "-O1", "-g", *WARNINGS, "-fno-sanitize-recover=all")
SANITIZERS = ("-fsanitize=address,undefined",)


@dataclass(frozen=True)
class Stream:
    """A stream as the manifest and its sections describe it."""

    coder: str
    alphabet: int
    table: bytes
    payload: bytes
    count: int
    room: int = WORK

    def packed(self) -> bytes:
        """What ``streams.c`` reads."""
        sizes = (NAMES.index(self.coder), self.alphabet, self.room, len(self.table), len(self.payload), self.count)
        return struct.pack("<6I", *sizes) + self.table + self.payload


@functools.cache
def bases() -> tuple[Stream, ...]:
    """Sound streams: every coder, lone symbols, rare ones, one lane and eight, one chunk and several."""
    rng = np.random.default_rng(19)
    found = []
    for coder in NAMES:
        for alphabet in (1, 2, 3, 15, 16, 255, 256):
            for count in (0, 1, 7, 60, 300):
                symbols = np.clip(np.rint(rng.normal(alphabet / 2, alphabet / 7 + 0.3, count)), 0, alphabet - 1)
                found.append(_coded(coder, symbols.astype(np.uint8), alphabet))
    with patch("attar._src.coding.rans.WORTH_LANES", 0):  # eight lanes wherever they are allowed
        for alphabet, share in ((4, 0.9), (15, 0.3), (256, 0.01)):
            symbols = np.where(rng.random(4200) < share, alphabet // 2, rng.integers(0, alphabet, 4200))
            found += [_coded("rans", symbols[:size].astype(np.uint8), alphabet) for size in (4095, 4096, 4200)]
    symbols = np.full(4500, 9, np.uint8)
    symbols[rng.permutation(4500)[:100]] = rng.integers(0, 256, 100)
    found += [_coded(coder, symbols, 256) for coder in ("rans", "huffman", "context")]
    found += [_coded(coder, np.full(CHUNK + 3, 5, np.uint8), 16) for coder in ("rans", "huffman")]
    return tuple(found)


def _coded(coder: str, symbols: np.ndarray, alphabet: int) -> Stream:
    table = CODERS[coder].table(np.bincount(symbols, minlength=alphabet))
    if coder == "context" and symbols.size > 20:
        table = fit_table(symbols[: symbols.size // 20 * 20], (symbols.size // 20, 5, 4), alphabet).write()
    return Stream(coder, alphabet, table, CODERS[coder].encode(symbols, table, alphabet), symbols.size)


def make(seed: int, case: int) -> Stream:
    """Return the stream of a case, the same each time."""
    rng = random.Random(f"{seed}/{case}")
    stream = rng.choice(bases())
    if stream.count > 2**16 and rng.random() < 0.95:  # they take Python a hundred times as long
        stream = bases()[rng.randrange(60)]
    for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2, 3))):
        stream = _mutated(stream, rng, rng.choice(bases()))
    return stream


def _mutated(stream: Stream, rng: random.Random, other: Stream) -> Stream:
    match rng.randrange(16):
        case 0 | 1 | 2 | 3 | 4 | 5:
            return replace(stream, payload=damage(stream.payload, rng, other.payload[:64] or b"\0"))
        case 6 | 7 | 8 | 9:
            return replace(stream, table=damage(stream.table, rng, other.table or b"\x48"))
        case 10:
            return replace(stream, table=other.table, alphabet=rng.choice((stream.alphabet, other.alphabet)))
        case 11:
            return replace(stream, count=max(0, stream.count + rng.choice((-8, -1, 1, 2, 64))))
        case 12:
            return replace(stream, alphabet=min(256, max(1, stream.alphabet + rng.choice((-1, 1, 100)))))
        case 13:
            return replace(stream, table=_random_table(rng, stream.alphabet, stream.coder))
        case 14:
            return replace(stream, room=rng.choice((0, 1, 127, 128, 256, 1024, 4096, 16384, 26000)))
    data = rng.randbytes(rng.choice((0, 1, 2, 3, 4, 5, 40)))
    return replace(stream, payload=data, count=rng.choice((len(data), stream.count)))


def _random_table(rng: random.Random, alphabet: int, coder: str) -> bytes:
    if coder == "context":
        head = rng.choice((1, 20, 300)), rng.choice((0, 0, 1)), rng.choice((2, 3, 255)), rng.choice((1, 4, 32))
        return bytes([min(255, head[0]), *head[1:], rng.randrange(alphabet), *rng.randbytes(5), rng.randrange(144)])
    top = rng.choice((1, 3, 16, 100, 4095))
    levels = [rng.choice((0, 1, top, rng.randint(0, top))) for _ in range(alphabet)]
    levels[rng.randrange(alphabet)] = top
    return write_levels(np.array(levels), rng.randrange(8))


def decode(stream: Stream, native: bool) -> bytes | None:
    """Return the symbols; None if the stream is refused."""
    with patch.object(kernels, "NATIVE", native):
        try:
            payload = memoryview(stream.payload)
            return CODERS[stream.coder].decode(payload, stream.count, stream.table, stream.alphabet).tobytes()
        except ArtifactError:
            return None


def build(folder: Path, *flags: str) -> Path:
    """Build the program, with sanitizers unless other flags are given.

    Raises:
        CalledProcessError: there is no compiler, or it has no sanitizers.
    """
    program = folder / "streams"
    command = [shutil.which("cc") or "gcc", *FLAGS, *(flags or SANITIZERS), f"-I{HEADER}", str(HERE / "streams.c")]
    subprocess.run([*command, "-o", str(program)], check=True, capture_output=True)
    return program


def run(program: Path, seed: int, start: int, cases: int) -> tuple[Counter[str], list[str]]:
    """Run cases; return how many went how, and one line for each fault."""
    streams = [make(seed, case) for case in range(start, start + cases)]
    given = b"".join(stream.packed() for stream in streams)
    done = subprocess.run([program], input=given, capture_output=True, check=False)
    outcomes, faults = Counter[str](), []
    for case, (stream, (status, symbols)) in enumerate(
        zip(streams, _answers(done.stdout, streams), strict=False), start
    ):
        found = [decode(stream, native) for native in {False, kernels.NATIVE}]
        if status == NO_ROOM and stream.room < WORK:
            outcomes["no room"] += 1
        elif any(other != symbols for other in found):
            faults.append(f"--seed {seed} --case {case}: status {status}, {stream}"[:500])
        else:
            outcomes["refused" if status else "decoded"] += 1
    if done.returncode:
        case = start + sum(outcomes.values()) + len(faults)
        faults.append(f"--seed {seed} --case {case}: {done.stderr.decode(errors='replace')[-3000:]}")
    return outcomes, faults


def _answers(data: bytes, streams: list[Stream]) -> Iterator[tuple[int, bytes | None]]:
    at = 0
    for stream in streams:
        if at == len(data):
            return
        size = 0 if data[at] else stream.count
        yield data[at], None if data[at] else data[at + 1 : at + 1 + size]
        at += 1 + size


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run_cases = functools.partial(run, build(Path(folder)))
        sys.exit(fuzz(__doc__.splitlines()[0], run_cases, make, cases=20_000, batch=BATCH))
