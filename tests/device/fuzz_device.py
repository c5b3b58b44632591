"""The fuzzer of whole files in C: the mutations of ``tests/attacks``, read under sanitizers, and in Python.

    python -m tests.device.fuzz_device --cases 100000 --seed 0
    python -m tests.device.fuzz_device --seed 0 --case 1234        # what C reads of one case, and where it differs

A case passes if C and Python both refuse it, or read the same of every tensor
(:func:`tests.device.expected.difference`).
"""

import argparse
import copy
import functools
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.attacks import mutate
from tests.attacks.fuzz import bases as older
from tests.attacks.fuzz import every_kind
from tests.attacks.reseal import Parts, deflate, take_apart
from tests.device.expected import difference
from tests.device.program import build_best, read_files

from attar._src.artifact.writer import pack

BATCH = 500


@functools.cache
def bases() -> tuple[Parts, ...]:
    """Return the files that are mutated, in parts: those of the fuzzer of Python, and one of context coding."""
    return *older(), take_apart(pack(every_kind(), coder="context"))


def make(seed: int, case: int) -> bytes:
    """Return the file of a case, the same each time."""
    rng = random.Random(f"{seed}/{case}")
    parts, other = copy.deepcopy(rng.choice(bases())), rng.choice(bases())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not isinstance(parts.manifest, bytes):
            rng.choices(list(_MUTATIONS), list(_MUTATIONS.values()))[0](parts, rng, other)
    return parts.seal(describe=rng.random() < 0.98)


def change_tensor(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change something in the records of tensors or tables alone, which are what C reads."""
    try:
        key = rng.choice(("tensors", "tensors", "tensors", "tables"))
        part = Parts({key: parts.manifest[key]}, [])
        mutate.change_manifest(part, rng, Parts({key: other.manifest[key]}, []))
        parts.manifest |= part.manifest
    except (KeyError, TypeError):
        return  # an earlier mutation left no such thing


def change_stored(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Damage the manifest inside its DEFLATE stream."""
    sealed = parts.seal()
    stored = sealed[int.from_bytes(sealed[-64:-56], "little") : -64]
    if rng.random() < 0.3:
        stored = deflate(rng.randbytes(rng.randrange(70_000)) + stored, rng.choice(("", "manifest", "graph")))
    parts.footer["stored"] = mutate.damage(stored, rng, b"\x05\x00")


_MUTATIONS = {
    change_tensor: 10,
    mutate.change_manifest: 2,
    mutate.change_bytes: 3,
    mutate.change_stream: 3,
    mutate.change_header: 0.7,
    mutate.change_json: 1,
    change_stored: 1,
}


def run(program: Path, seed: int, start: int, cases: int) -> tuple[Counter[str], list[str]]:
    """Run cases; return how many files and tensors went how, and one line for each fault."""
    files = [make(seed, case) for case in range(start, start + cases)]
    reads, said = read_files([program], files)
    outcomes: Counter[str] = Counter()
    faults = []
    for case, (data, read) in enumerate(zip(files, reads, strict=False), start):
        outcomes[read.status] += 1
        outcomes.update("tensor refused" if tensor.refused else "tensor read" for tensor in read.tensors)
        if found := difference(data, read):
            faults.append(f"--seed {seed} --case {case}: {found}")
    if len(reads) < cases:
        faults.append(f"--seed {seed} --case {start + len(reads)}: {said or 'it ended too early'}")
    return outcomes, faults


def main() -> int:
    """Run from the command line; the exit status is 1 where a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first case")
    parser.add_argument("--case", type=int, help="one case alone")
    options = parser.parse_args()
    outcomes, count, stop = Counter[str](), 0, options.start + options.cases
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        program = build_best(Path(folder))
        if options.case is not None:
            print(*run(program, options.seed, options.case, 1), sep="\n")
            return 0
        for start in range(options.start, stop, BATCH):
            more, faults = run(program, options.seed, start, min(BATCH, stop - start))
            outcomes, count = outcomes + more, count + len(faults)
            print(*faults, sep="\n", end="\n" if faults else "")
            done = min(stop, start + BATCH)
            pace = 1e3 * (time.monotonic() - began) / (done - options.start)
            print(f"up to {done}: {count} faults, {dict(outcomes)}, {pace:.2f} ms a case", flush=True)
    return bool(count)


if __name__ == "__main__":
    sys.exit(main())
