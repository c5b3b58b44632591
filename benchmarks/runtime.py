"""Latency of files beside the same networks on ONNX Runtime and OpenVINO, on one thread.

    python benchmarks/runtime.py [CASE ...] [--json] [--rounds N] [--cpu avx2]
    python benchmarks/runtime.py --draw benchmarks/runtime.json

Networks: ResNet-20 of ``examples/resnet.py`` (weights and images of ``$ATTAR_DATA``) and one four times as wide, LSTMs
over 32 steps, and a transformer (4 layers, width 256, 4 heads, 1024 in between) over 128 tokens. All but ResNet-20 have
random weights, which cost the same.

A variant is what ``attar.quantize`` makes. Peers are those of ``attar bench --peers``, made from the floating-point
network: ONNX Runtime in float32, with dynamic and with static int8 (per channel, min-max, on the same inputs as the
variants), and OpenVINO of the static variant's export (extra ``[bench]``).

In each round every model has a turn of two runs, in random order, of which the second is timed. A ratio is the median
of the ratios inside each round. Accuracy is on the first 1,000 test images of CIFAR-10.

``--cpu avx2`` hides from the runtimes what this processor has beyond AVX2 (:mod:`as_avx2`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

import as_avx2
import attar
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.checkpoint import read_state
from attar._src.measure.latency import summarize, time_in_turns
from attar._src.measure.peers import Peer, PeerSource, build_peers
from attar._src.measure.runner import Runner, open_runner
from attar._src.runtime.engine import saturates
from attar._src.runtime.lower import lower
from attar._src.runtime.preprocess import preprocess

HERE = Path(__file__).resolve().parent.parent
EXAMPLES, IMAGES, CALIBRATED = 128, 1000, 32
RESNET = f"{HERE / 'examples' / 'resnet.py'}:resnet20"
#: Flags of a processor that decide which kernels run.
INTEGERS = ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
#: Variant -> options of ``attar.quantize``.
VARIANTS: dict[str, dict[str, Any]] = {
    "static 8/8": {"bits": 8, "activations": 8},
    "dynamic": {"bits": 8, "activations": "dynamic"},
    "weights 8": {"bits": 8},
}


@dataclass(frozen=True)
class Case:
    """A network, the shape of one input of it, and the batches it is timed at; with trained weights, its data set."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batches: tuple[int, ...]
    weights: str = ""
    data: str = ""


class Recurrent(nn.Module):
    """Layers of LSTM and a linear one."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(width, width, layers, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, time, 10)``."""
        made: Tensor = self.head(self.rows(x)[0])
        return made


class Transformer(nn.Module):
    """Four layers of an encoder, the mean over tokens, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, 10)``."""
        made: Tensor = self.head(self.layers(x).mean(1))
        return made


CASES = {
    "ResNet-20": Case(load_object(RESNET), (3, 32, 32), (1, 32), "weights/cifar10_resnet20.safetensors", "cifar10"),
    "ResNet-20, 4x wide": Case(partial(load_object(RESNET), width=4), (3, 32, 32), (1, 32)),
    "LSTM 2x512": Case(partial(Recurrent, 2, 512), (32, 512), (1, 32)),
    "LSTM 3x256": Case(partial(Recurrent, 3, 256), (32, 256), (1,)),
    "transformer": Case(Transformer, (128, 256), (1, 8)),
}


def images(name: str, split: str, count: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the first images of a split as a network sees them, and their labels."""
    found = load_dataset(name, split)
    how = find_preprocessing("imagenet")
    assert found.y is not None
    assert how is not None
    return preprocess(how, found.x[:count]), found.y[:count]


def measure(name: str, rounds: int | None) -> list[dict[str, Any]]:
    """Return the figures of a network at each batch."""
    case = CASES[name]
    torch.manual_seed(0)
    net = case.make().eval()
    if case.weights:
        net.load_state_dict(read_state(Path(os.environ["ATTAR_DATA"]) / case.weights, net))
        x = images(case.data, "train", EXAMPLES)[0]
    else:
        x = np.random.default_rng(0).standard_normal((EXAMPLES, *case.shape), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        at, inputs = Path(folder), torch.from_numpy(x)
        variants = {variant: at / f"{i}.attar" for i, variant in enumerate(VARIANTS)}
        for variant, path in variants.items():
            attar.quantize(net, inputs, **VARIANTS[variant]).save(path)
        attar.quantize(net, inputs, keep=("*",)).save(at / "float32.attar")
        (at / "float32.onnx").write_bytes(lower(attar.open_artifact(at / "float32.attar"), floating=True).serialized())
        return [{"case": name} | _timed(case, variants, at, x, batch, rounds) for batch in case.batches]


def _timed(
    case: Case, variants: Mapping[str, Path], folder: Path, x: NDArray[np.float32], batch: int, rounds: int | None
) -> dict[str, Any]:
    """Return the figures of a network at one batch."""
    ours = {variant: open_runner(path, threads=1) for variant, path in variants.items()}
    static = next(iter(ours.values()))
    assert static.session is not None
    feed = {static.inputs[0]: x[:batch]}
    seen = [{static.inputs[0]: x[i : i + CALIBRATED]} for i in range(0, EXAMPLES, CALIBRATED)]
    source = PeerSource(static.session.artifact, folder, feed, seen, folder / "float32.onnx")
    peers: list[Peer] = build_peers(source, threads=1)
    models = ours | {peer.name: peer.runner for peer in peers if peer.runner is not None}
    times = time_in_turns([partial(each.run, each.feed(feed)) for each in models.values()], rounds=rounds)
    columns = dict(zip(models, times.T, strict=True))
    scored = case.data != "" and batch == 1
    found = {
        model: {
            "ms": round(latency.median_ms, 4),
            "spread": round(latency.spread, 3),
            "bytes": models[model].file_bytes,
            **({"accuracy": accuracy(models[model], case.data)} if scored else {}),
        }
        for model, latency in zip(models, summarize(times), strict=True)
    }
    over = {
        variant: {
            peer: round(float(np.median(columns[variant] / columns[peer])), 3) for peer in models if peer not in ours
        }
        for variant in ours
    }
    missing = {peer.name: peer.reason for peer in peers if peer.runner is None}
    load = round(os.getloadavg()[0], 1)
    return {"batch": batch, "rounds": len(times), "load": load, "models": found, "ratios": over, "missing": missing}


def accuracy(runner: Runner, data: str) -> float:
    """Return the share of right predictions, one image at a time."""
    x, y = images(data, "test", IMAGES)
    predicted = [next(iter(runner.run({runner.inputs[0]: x[i : i + 1]}).values())).argmax() for i in range(len(x))]
    return float(np.mean(np.array(predicted) == y))


def machine() -> dict[str, Any]:
    """Return the processor, what it has for products of integers, and the versions of what ran."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in facts.get("flags", "").split() if flag in INTEGERS]
    versions = {}
    for package in ("attar", "onnxruntime", "openvino", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    processor = facts.get("model name", platform.processor() or platform.machine())
    if as_avx2.hidden():
        check_hidden()
        processor, flags = f"AVX2 kernels on an {processor} whose AVX-512 and VNNI are hidden", ["avx2"]
    return {"processor": processor, "flags": flags, "cores": os.cpu_count(), "threads": 1, "versions": versions}


def check_hidden() -> None:
    """Raise RuntimeError if a runtime takes kernels that should be hidden from it, by running one of them."""
    if not saturates():
        raise RuntimeError("ONNX Runtime's products of integers are exact, so it still sees VNNI")
    try:
        openvino: Any = importlib.import_module("openvino")
    except ModuleNotFoundError:
        return
    x = openvino.opset13.parameter([1, 64], np.float32)
    compiled = openvino.compile_model(openvino.Model([openvino.opset13.relu(x)], [x]), "CPU")
    found = [node.get_rt_info()["primitiveType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    if "jit_avx2_f32" not in found:
        raise RuntimeError(f"OpenVINO takes the kernels {', '.join(found)}, so it still sees AVX-512")


def table(found: dict[str, Any]) -> str:
    """Return the milliseconds as Markdown, with the ratio of each variant to the fastest peer."""
    models = list(dict.fromkeys(model for case in found["cases"] for model in case["models"]))
    variants = list(found["cases"][0]["ratios"])
    rows = [["ms", *models, *(f"{variant} / fastest peer" for variant in variants)]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for case in found["cases"]:
        cells = [f"{case['models'][model]['ms']:.3f}" if model in case["models"] else "-" for model in models]
        ratios = [f"{max(case['ratios'][variant].values()):.3f}" for variant in variants]
        rows.append([f"{case['case']}, batch {case['batch']}", *cells, *ratios])
        scores = [case["models"].get(model, {}).get("accuracy") for model in models]
        if any(score is not None for score in scores):
            said = ["-" if score is None else f"{100 * score:.1f} %" for score in scores]
            rows.append([f"{case['case']}, accuracy", *said, *[""] * len(variants)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the time of each model over that of the first variant, a group of bars for each case."""
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    models = list(dict.fromkeys(model for case in found["cases"] for model in case["models"]))
    first, width = models[0], 0.8 / len(models)
    for place, model in enumerate(models):
        shown = [(i, case["models"]) for i, case in enumerate(found["cases"]) if model in case["models"]]
        heights = [row[model]["ms"] / row[first]["ms"] for _, row in shown]
        axes.bar([i + (place - len(models) / 2) * width for i, _ in shown], heights, width, align="edge", label=model)
    axes.axhline(1, color="black", linewidth=0.6)
    names = [case["case"].replace(", ", "\n") + f"\nbatch {case['batch']}" for case in found["cases"]]
    axes.set_xticks(range(len(names)), names)
    axes.set(yscale="log", ylabel=f"time / {first}")
    axes.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{found['machine']['processor']}. One thread: lower is faster")
    axes.legend(fontsize=7, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {'; '.join(CASES)}; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, help="rounds of a case; about five seconds by default")
    parser.add_argument("--cpu", choices=("avx2",), help="hide from the runtimes what this processor has beyond it")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="only draw what --json printed, as .svg beside it")
    given = parser.parse_args()
    if given.draw:
        found = json.loads(given.draw.read_text())
        draw(found, given.draw.with_suffix(".svg"))
        print(table(found))
        return
    if given.cpu and not as_avx2.hidden():
        as_avx2.main(sys.argv)
    torch.set_num_threads(1)
    # Random weights change predictions by few bits, which is what the warnings are about.
    warnings.simplefilter("ignore", attar.AttarWarning)
    described = machine()
    cases = [row for name in given.cases or CASES for row in measure(name, given.rounds)]
    found = {"machine": described, "cases": cases}
    print(json.dumps(found, indent=1) if given.json else table(found), file=sys.stdout)


if __name__ == "__main__":
    main()
