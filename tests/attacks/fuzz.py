"""The fuzzer: sound files, mutated and sealed again with right checksums, opened, verified and run.

    python -m tests.attacks.fuzz --cases 100000 --seed 0
    python -m tests.attacks.fuzz --cases 100000 --seed 0 --start 40000   # go on where its last line says
    python -m tests.attacks.fuzz --seed 0 --case 1234        # one case again, in this process

A case passes if the file is refused with an ``ArtifactError``, or is sound and ONNX Runtime runs it or says why not.
Cases run in a process of their own, so that one that crashes, hangs or takes too much memory is noticed and named.
"""

import copy
import faulthandler
import functools
import multiprocessing
import random
import sys
import warnings
from collections import Counter
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tests import samples
from tests.attacks.many import fuzz
from tests.attacks.mutate import mutate
from tests.attacks.reseal import Parts, take_apart

from attar._src.artifact.contents import Contents
from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError, AttarError
from attar._src.core.scheme import PerBlock
from attar._src.runtime.session import Session

CODERS = ("rans", "huffman", "raw")
#: Low enough that a case is quick, high enough for every sample.
LIMITS = Limits(
    file_bytes=2**22,
    manifest_bytes=2**20,
    elements=2**18,
    graph_bytes=2**20,
    value_elements=2**18,
    graph_elements=2**20,
    work=2**30,
    folded=2**22,
)
SECONDS = 60  # a case that takes longer hangs
GROWTH = 1 << 29  # bytes a process may grow by over a batch
BATCH = 2000


@functools.cache
def bases() -> tuple[Parts, ...]:
    """Return the files that are mutated, in parts."""
    models = (samples.conv_net, samples.lstm, samples.transformer)
    more = (every_kind, samples.dynamic_transformer, samples.dynamic_lstm)
    files = [pack(model(), coder=coder, compact=False) for model in models for coder in CODERS]
    files += [pack(model(), compact=False) for model in more] + [
        pack(model()) for model in (*models, *more, samples.on_steps)
    ]
    files.append(pack(every_kind(), coder="context"))
    return tuple(take_apart(data) for data in files)


def every_kind() -> Contents:
    """The convolutional net, its linear layer dynamic, with a tensor of every kind beside it."""
    rng = np.random.default_rng(9)
    net = samples.conv_net()
    more = {
        "sparse": samples.sparse(rng, (6, 7)),
        "sparse.dense": samples.sparse(rng, (9,), lambda count: samples.dense(rng, count)),
        "asymmetric": samples.quantized(rng, (3, 5), bits=5, symmetric=False),
        "blocks": samples.quantized(rng, (4, 2, 3), granularity=PerBlock(sizes=(2, 1, 3))),
        "f16": samples.narrowed(samples.quantized(rng, (8, 3)), "f16"),
        "bf16": samples.narrowed(samples.codebook(rng, (4, 9)), "bf16"),
        "sparse.f16": samples.sparse(
            rng, (40,), lambda count: samples.narrowed(samples.quantized(rng, (count,)), "f16")
        ),
        "empty": samples.dense(rng, 0, 3),
        "scalar": samples.dense(rng),
    }
    fields = {name: getattr(net, name) for name in net.__dataclass_fields__}
    fields["graphs"] = (replace(net.graphs[0], dynamic=("fc",)),)
    return Contents(**fields | {"tensors": {**net.tensors, **more}, "aliases": {"again": "sparse"}})


def make(seed: int, case: int) -> bytes:
    """Return the file of a case, the same each time."""
    rng = random.Random(f"{seed}/{case}")
    parts = copy.deepcopy(rng.choice(bases()))
    mutate(parts, rng, rng.choice(bases()))
    return parts.seal(describe=rng.random() < 0.98)


def exercise(data: bytes) -> str:
    """Open, verify and run a file; return how that went. Anything raised is a fault."""
    try:
        artifact = open_artifact(data, limits=LIMITS)
        artifact.verify()
    except ArtifactError:
        return "refused"
    try:
        session = Session(artifact, threads=1)
        session.run(session.example())
    except AttarError:
        return "refused to run"
    return "ran"


def run(cases: int, seed: int, start: int = 0) -> tuple[Counter[str], list[str]]:
    """Run cases in processes of their own; return how many went how, and one line for each fault."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("fuzzing", total=cases)
        case, stop = start, start + cases
        while case < stop:
            for done, outcome in _batch(seed, case, min(stop, case + BATCH)):
                case = done + 1
                progress.update(task, completed=case - start, description=f"fuzzing, {len(faults)} faults")
                if outcome in ("refused", "refused to run", "ran"):
                    outcomes[outcome] += 1
                else:
                    faults.append(f"--seed {seed} --case {done}: {outcome}")
    return outcomes, faults


def _batch(seed: int, start: int, stop: int):
    """Yield each case of a batch and how it went; the last may be a fault that ended the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(seed, start, stop, theirs), daemon=True)
    process.start()
    theirs.close()
    case = start
    try:
        while case < stop:
            if not ours.poll(SECONDS):
                yield case, f"more than {SECONDS} seconds"
                return
            try:
                outcome = ours.recv()
            except EOFError:
                process.join()
                yield case, f"the process ended with {process.exitcode}"
                return
            yield case, outcome
            case += 1
    finally:
        ours.close()
        process.kill()
        process.join()


def _work(seed: int, start: int, stop: int, results: Connection) -> None:
    faulthandler.disable()  # the parent says which case it was
    warnings.simplefilter("error")
    bases()
    before = None
    for case in range(start, stop):
        try:
            outcome = exercise(make(seed, case))
        except Exception as error:  # noqa: BLE001 -- whatever is raised is what is looked for
            outcome = f"{type(error).__name__}: {error}"[:500]
        before = before or _peak()
        if outcome in ("refused", "refused to run", "ran") and _peak() - before > GROWTH:
            before = _peak()
            outcome = f"the process has grown to {_peak() >> 20} MiB"
        results.send(outcome)


def _peak() -> int:
    """Return the most memory this process has held, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(
        fuzz(__doc__.splitlines()[0], run, lambda seed, case: exercise(make(seed, case)), cases=10_000, batch=BATCH)
    )
