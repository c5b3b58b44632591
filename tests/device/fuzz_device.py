"""The fuzzer of whole files in C: the mutations of ``tests/attacks``, read under sanitizers, and in Python.

    python -m tests.device.fuzz_device --cases 100000 --seed 0
    python -m tests.device.fuzz_device --seed 0 --case 1234        # what C reads of one case, and where it differs

A case passes if C and Python both refuse it, or read the same of every tensor
(:func:`tests.device.expected.difference`).
"""

import copy
import functools
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.attacks import mutate
from tests.attacks.fuzz import bases
from tests.attacks.many import fuzz
from tests.attacks.reseal import Parts, deflate
from tests.device.expected import difference
from tests.device.program import build_best, read_files

BATCH = 500


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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run_cases = functools.partial(run, build_best(Path(folder)))
        sys.exit(
            fuzz(
                __doc__.splitlines()[0],
                run_cases,
                lambda seed, case: run_cases(seed=seed, start=case, cases=1),
                cases=10_000,
                batch=BATCH,
            )
        )
