"""Post-training quantization beside other tools, on trained weights: same calibration inputs, rows, tests and seeds.

    python benchmarks/quantization.py [NETWORK ...] [--row W4 ...] [--by NAME ...] [--seed 0] [--nnc PYTHON]
    python benchmarks/quantization.py --json              prints what quantization.json has, without measuring
    python benchmarks/quantization.py --table             prints its tables

Results are added to ``quantization.json``; those that are there already are left alone, so that a killed run goes on.

Rows: ``W4`` has weights of 4 bits and activations in floating point, ``W4A4`` both, ``W8A8 dynamic`` finds ranges at
each run. First and last layer have 8 bits where weights have fewer. All weights, one scale for each output channel.

By: each kind of Attar's (``OURS``), files decoded and run by ``attar.Session``; ONNX Runtime's own quantizers; the
tools of ``PEERS``, whose modules run in PyTorch; and the program of the NNC standard (``--nnc``, the Python of its
environment), which codes all parameters at several steps. A tool that is not installed, fails or cannot do a row is
named with the reason. Bytes: of Attar's whole file, of ONNX Runtime's, of NNC's stream; for other tools what the codes
of convolutions and linear layers take packed, with a float32 scale a channel and the rest in float32, is computed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import attar
from attar._src.measure.peers import PEERS as DEPLOYED
from attar._src.measure.peers import PeerSource, build_peers
from attar._src.measure.runner import open_runner
from attar._src.runtime.lower import lower
from row import Asked, Batches, Unable
from runtime import machine
from trained import TASKS, Task, characters, resnet, stories

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "quantization.json"
BATCH = 64
IMAGES = 1024
#: Pieces of 200 characters, or stories of 64 tokens, that calibrate.
PIECES = 640
NNC = "NNC"
STEPS = (-32, -28, -24, -22, -20, -18, -16)


#: Row -> bits of weights, bits of activations, whether dynamic.
ROWS: dict[str, tuple[int, int | None, bool]] = {
    "W8A8": (8, 8, False),
    "W8A8 dynamic": (8, 8, True),
    "W4": (4, None, False),
    "W3": (3, None, False),
    "W2": (2, None, False),
    "W4A4": (4, 4, False),
}
IMPROVED: dict[str, Any] = {"steps": 400, "network_steps": 400}
#: Where activations have few bits, AdaRound of the blocks gains nothing; as in studies/post-training.
ROUNDED_AGAIN: dict[str, Any] = {
    "reround": True,
    "steps": 0,
    "network_steps": 150,
    "lr": 1e-3,
    "augment": ("crop", "flip", "cutmix"),
}
#: As in studies/post-training: zero points where weights alone are rounded, and training of the whole network.
SEQUENCES: dict[str, Any] = {"steps": 0, "network_steps": 200, "lr": 0.004, "batch": 32}
#: Attar's kinds -> options of ``attar.quantize``.
OURS: dict[str, dict[str, Any]] = {
    "Attar gptq": {"scales": "gptq"},
    "Attar reconstruct": {"scales": "gptq", "reconstruct": IMPROVED},
}
#: Tools -> the package, and what makes a module of a network.
PEERS = {
    "Brevitas GPTQ": ("brevitas", "peer_brevitas:gptq"),
    "torchao PT2E": ("torchao", "peer_torchao:pt2e"),
    "torchao quantize_": ("torchao", "peer_torchao:quantized"),
    "NNCF": ("nncf", "peer_nncf:quantized"),
    "Neural Compressor": ("neural_compressor", "peer_neural_compressor:quantized"),
}
#: Network -> the rows and the names of its first and last layer.
NETWORKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ResNet-20": (("W8A8", "W4", "W3", "W2", "W4A4"), ("conv1", "linear")),
    "ResNet-56": (("W8A8", "W4", "W3", "W2", "W4A4"), ("conv1", "linear")),
    "character GRU": (("W4", "W3"), ("encoder", "decoder")),
    "stories Llama": (("W8A8 dynamic", "W4", "W3"), ("embedding", "head")),
    "sentence encoder": (("W8A8 dynamic", "W4"), ()),
}


def task_of(network: str, seed: int) -> Task:
    """Return a network and its test; a ResNet with 1,024 training images of the seed for calibration."""
    if network.startswith("ResNet"):
        return resnet(network.replace("-", "").lower(), IMAGES, seed)
    if network == "character GRU":
        return characters(PIECES)
    if network == "stories Llama":
        return stories(calibrated=PIECES)
    return TASKS[network]()


def measure(task: Task, row: str, by: str, ends: tuple[str, ...]) -> dict[str, Any]:
    """Return the figure, the bytes and the processor time of a row, or why there is none."""
    bits, activations, dynamic = ROWS[row]
    asked = Asked(bits, activations, dynamic, ends if bits < 8 else ())
    begun = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if by in OURS:
                run, size = _ours(task, asked, by, Path(folder))
            elif by in DEPLOYED:
                run, size = _deployed(task, asked, by, Path(folder))
            else:
                run, size = _peer(task, asked, by)
            seconds = time.process_time() - begun
            return {"figure": _score(task, run), "bytes": size, "processor_seconds": round(seconds, 1)}
    except (Unable, ModuleNotFoundError) as reason:
        return {"unable": str(reason)}
    except Exception as error:  # a peer that fails is a result, named as such
        if by in OURS:
            raise
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}


Run = Callable[[dict[str, NDArray[Any]]], NDArray[np.float32]]


def _ours(task: Task, asked: Asked, by: str, folder: Path) -> tuple[Run, int]:
    if asked.bits == 8 and "reconstruct" in OURS[by]:
        raise Unable("with 8 bits rounding to the nearest is fine")
    options: dict[str, Any] = {"bits": asked.bits, **OURS[by], **task.options}
    if asked.bits < 8:
        options["overrides"] = {f"{name}.weight": 8 for name in asked.ends}
    if asked.activations is None and not any(each.ndim == 4 for each in task.calibration.values()):
        options |= {"symmetric": False} | ({"reconstruct": SEQUENCES} if "reconstruct" in options else {})
    if asked.activations is not None:
        options |= {"activations": "dynamic" if asked.dynamic else asked.activations, "observer": "mse"}
        if asked.activations < 8:
            # As for the peers.
            options["activation_overrides"] = dict.fromkeys(asked.ends, 8)
            options |= {"reconstruct": ROUNDED_AGAIN} if "reconstruct" in options else {}
    inputs = {name: torch.from_numpy(array) for name, array in task.calibration.items()}
    attar.quantize(task.module, inputs, examples=IMAGES, **options).save(folder / "m.attar")
    runner = open_runner(folder / "m.attar", threads=1)
    return _runs(runner), (folder / "m.attar").stat().st_size


def _deployed(task: Task, asked: Asked, by: str, folder: Path) -> tuple[Run, int]:
    """Return what ONNX Runtime's own quantizers make, as ``attar bench --peers`` has them."""
    if asked.bits != 8 or asked.dynamic != ("dynamic" in by):
        raise Unable("8 bits, static or dynamic")
    inputs = {name: torch.from_numpy(array) for name, array in task.calibration.items()}
    attar.quantize(task.module, inputs, keep=("*",)).save(folder / "float32.attar")
    artifact = attar.open_artifact(folder / "float32.attar")
    (folder / "float32.onnx").write_bytes(lower(artifact, floating=True).serialized())
    feeds = _batches(task.calibration)
    source = PeerSource(artifact, folder, feeds[0], feeds, folder / "float32.onnx")
    (peer,) = [each for each in build_peers(source, threads=1) if each.name == by]
    if peer.runner is None:
        raise Unable(peer.reason)
    return _runs(peer.runner), int(peer.runner.file_bytes)


def _peer(task: Task, asked: Asked, by: str) -> tuple[Run, int]:
    package, made_by = PEERS[by]
    if find_spec(package) is None:
        raise Unable(f"{package} is not installed")
    file, _, function = made_by.partition(":")
    make: Callable[[nn.Module, Batches, Asked], nn.Module] = getattr(importlib.import_module(file), function)
    torch.manual_seed(0)
    batches = [tuple(torch.from_numpy(each) for each in batch.values()) for batch in _batches(task.calibration)]
    made = make(copy.deepcopy(task.module), batches, asked)
    return _module(made), _packed(task.module, asked)


def standard(task: Task, python: str) -> list[dict[str, Any]]:
    """Return the figures of the NNC standard's program at several steps."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        state = {name: each.numpy() for name, each in task.module.state_dict().items() if each.is_floating_point()}
        np.savez(Path(folder) / "weights.npz", **state)
        command = [python, str(HERE / "peer_nnc.py"), f"{folder}/weights.npz", folder, "--qp", *map(str, STEPS)]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
        for step, size in json.loads(told.stdout.splitlines()[-1]).items():
            net = copy.deepcopy(task.module)
            decoded = np.load(Path(folder) / f"{step}.npz")
            net.load_state_dict({name: torch.from_numpy(decoded[name]) for name in decoded}, strict=False)
            found.append({"row": f"qp {step}", "figure": _score(task, _module(net)), "bytes": size})
    return found


def _runs(runner: Any) -> Run:
    return lambda batch: np.asarray(next(iter(runner.run(runner.feed(batch)).values())), np.float32)


def _module(net: nn.Module) -> Run:
    def run(batch: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        with torch.no_grad():
            made: NDArray[np.float32] = net(*map(torch.from_numpy, batch.values())).float().numpy()
        return made

    return run


def _score(task: Task, run: Run) -> float:
    parts, start = [], 0
    for batch in _batches(task.test):
        count = len(next(iter(batch.values())))
        parts.append(task.reduced(run(batch), slice(start, start + count)))
        start += count
    return round(task.score(np.concatenate(parts)), 4)


def _batches(inputs: dict[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    count = len(next(iter(inputs.values())))
    return [{name: array[i : i + BATCH] for name, array in inputs.items()} for i in range(0, count, BATCH)]


def _packed(net: nn.Module, asked: Asked) -> int:
    """Return what the codes of convolutions and linear layers take at the asked bits, and the rest in float32."""
    size, ends = 0.0, [f"{name}.weight" for name in asked.ends]
    products = {f"{name}.weight" for name, each in net.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}
    for name, each in net.named_parameters():
        bits = 32 if name not in products else 8 if name in ends else asked.bits
        size += each.numel() * bits / 8 + (4 * len(each) if bits < 32 else 0)
    return round(size)


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown, a table for each network: who, then figure and bytes of each row."""
    lines = []
    for network in dict.fromkeys(each["network"] for each in found):
        mine = [each for each in found if each["network"] == network and each["by"] != NNC]
        rows = [row for row in ROWS if any(each["row"] == row for each in mine)]
        lines += [f"| {network}: {mine[0]['measured']} (bytes) | " + " | ".join(rows) + " |"]
        lines += ["|---|" + "---:|" * len(rows)]
        for by in dict.fromkeys(each["by"] for each in mine):
            cells = [_cell([each for each in mine if (each["by"], each["row"]) == (by, row)]) for row in rows]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {by} | " + " | ".join(cells) + " |")
        lines.append("")
        standards = [each for each in found if each["network"] == network and each["by"] == NNC]
        if standards:
            lines.append("| NNC | figure | bytes |\n|---|---:|---:|")
            lines += [f"| {each['row']} | {each['figure']:.2f} | {each['bytes']:,} |" for each in standards] + [""]
    return "\n".join(lines)


def _cell(found: list[dict[str, Any]]) -> str:
    figures = [each for each in found if "figure" in each]
    if not figures:
        return "failed" if any("failed" in each for each in found) else "-"
    mean = sum(each["figure"] for each in figures) / len(figures)
    return f"{mean:.3f} ({sum(each['bytes'] for each in figures) / len(figures):,.0f})"


def main() -> None:
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    everybody = (*OURS, *(name for name in DEPLOYED if "int8" in name), *PEERS)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {'; '.join(NETWORKS)}; all by default")
    parser.add_argument("--row", nargs="+", choices=ROWS, default=[*ROWS], help="all by default")
    parser.add_argument("--by", nargs="+", metavar="NAME", default=everybody, help=f"of {'; '.join(everybody)}")
    parser.add_argument("--seed", type=int, default=0, help="draws the calibration images of the ResNets")
    parser.add_argument("--nnc", metavar="PYTHON", help="the Python of an environment with nncodec; codes the ResNets")
    parser.add_argument("--json", action="store_true", help="only print what quantization.json has")
    parser.add_argument("--table", action="store_true", help="only print its tables")
    given = parser.parse_args()
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else []
    if not (given.json or given.table):
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")  # what the warnings are about is what is measured here
        for network in given.networks or NETWORKS:
            _measure(network, given, found)
    print(RESULTS.read_text() if given.json else table(found))


def _measure(network: str, given: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    rows, ends = NETWORKS[network]
    known = {(each["network"], each["row"], each["by"], each["seed"]) for each in found}
    missing = [
        (row, by) for row in rows for by in given.by if row in given.row and (network, row, by, given.seed) not in known
    ]
    nnc = given.nnc and network.startswith("ResNet") and not any((network, NNC) == (each[0], each[2]) for each in known)
    if not missing and not nnc:
        return
    task = task_of(network, given.seed)
    of = {"network": network, "measured": task.figure, "seed": given.seed}
    for row, by in missing:
        _keep(found, of | {"row": row, "by": by} | measure(task, row, by, ends))
    if nnc:
        for each in standard(task, given.nnc):
            _keep(found, of | {"by": NNC} | each)


def _keep(found: list[dict[str, Any]], result: dict[str, Any]) -> None:
    found.append(result)
    packages = {name: version(name) for name in ("nncf", "torchao", "brevitas", "neural-compressor") if _has(name)}
    RESULTS.write_text(json.dumps({"machine": machine(), "packages": packages, "results": found}, indent=1) + "\n")
    print(json.dumps(result), file=sys.stderr)


def _has(name: str) -> bool:
    return find_spec(name.replace("-", "_")) is not None


if __name__ == "__main__":
    main()
