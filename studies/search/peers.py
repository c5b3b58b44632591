"""``attar compress`` beside the defaults of NNCF and ONNX Runtime: same networks, examples, and bound on the loss.

    ATTAR_DATA=... python studies/search/peers.py [NETWORK ...]   measures what peers.json lacks, or what is named
    python studies/search/peers.py --time [NETWORK ...]           times the files in runs/peers again
    python studies/search/peers.py --draw                         only writes the tables of peers.md

Tools see the same calibration examples; those that look at a loss see it on the same validation examples. Of the files
that ``attar compress --max-drop --no-train --time 15m`` makes, those of fewest bytes and of fewest milliseconds that
hold are compared. Every file is judged one example at a time, on the test examples once, and timed in turns with the
others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer_networks import NETWORKS, ROOT, Labelled, Network

import attar
from attar._src.core.errors import short_message
from attar._src.measure.latency import time_in_turns
from attar._src.measure.peers import FLOAT32, PeerSource, build_peers
from attar._src.measure.runner import Runner, open_runner
from attar._src.runtime.lower import lower
from runtime import machine

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "peers.json", HERE / "peers.md"
RUNS = ROOT / "runs" / "peers"
#: Seconds that files of a network are timed for, and minutes of a search by default.
SECONDS, MINUTES = 30.0, 15.0
BYTES, MS = "Attar, fewest bytes", "Attar, fewest ms"
#: What ``measure/peers.py`` makes -> its name here. It sets what ONNX Runtime's documents advise for x86.
DEPLOYED = {
    FLOAT32: FLOAT32,
    "ONNX Runtime static int8": "ONNX Runtime static, a scale a channel, uint8",
    "ONNX Runtime dynamic int8": "ONNX Runtime dynamic, a scale a channel",
    "OpenVINO of the export": "Attar, fewest ms, exported to OpenVINO",
}
#: Those that are no peers: the network as it was, and our own file on another runtime.
NO_PEERS = (FLOAT32, BYTES, MS, DEPLOYED["OpenVINO of the export"])


def measure(network: Network, folder: Path, minutes: float) -> dict[str, Any]:
    """Return the figures of all files of a network, ours of a search of so many minutes."""
    reference, begun = untouched(network), time.process_time()
    found = searched(network, reference, minutes, folder / "compress")
    seconds = {BYTES: time.process_time() - begun, MS: time.process_time() - begun}
    floating = folder / "float32.onnx"
    first = attar.open_artifact(found.folder / found.files[0].file)
    floating.write_bytes(lower(first, floating=True).serialized())
    ours = chosen(network, found, reference)
    files = {kind: open_runner(found.folder / each.file, threads=1) for kind, each in ours.items()}
    feed, failed = {"x": network.validation[0][:1]}, dict[str, str]()
    made = {**deployed(network, folder, files[MS].path, floating), **quantizers(network, folder, floating)}
    for by, make in made.items():
        begun = time.process_time()
        try:
            files[by] = make()
            files[by].run(files[by].feed(feed))
        except Exception as error:  # noqa: BLE001 -- a tool that fails is a result, named as such
            files.pop(by, None)
            failed[by] = f"{type(error).__name__}: {short_message(error)}"
        seconds[by] = time.process_time() - begun
        print(by, failed.get(by, "made"), round(seconds[by], 1), file=sys.stderr)
    tested = {by: value(each, network, network.test) for by, each in files.items()}
    rows = []
    for by, each in files.items():
        drop = network.scale * (reference - value(each, network, network.validation))
        row = {
            "by": by,
            "file": str(each.path.relative_to(RUNS)),
            "bytes": each.file_bytes,
            "drop": round(drop, 4),
            "holds": drop <= network.max_drop + 1e-9,
            "test": round(network.scale * tested[by], 4),
            "test_drop": round(network.scale * (tested[FLOAT32] - tested[by]), 4),
            "processor_seconds": round(seconds[by], 1),
        }
        rows.append(row | ({"name": ours[by].name, "options": ours[by].options} if by in ours else {}))
    return {
        "unit": network.unit,
        "max_drop": network.max_drop,
        "examples": [len(part[1]) for part in (network.calibration, network.validation, network.test)],
        **timed(network, rows),
        "failed": failed,
        "search": {"minutes": minutes, "tried": len(found.files), "ended": found.ended, "failed": dict(found.failed)},
    }


def timed(network: Network, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows with the times of their files, in turns with one example, and the number of rounds."""
    files, x = [open_runner(RUNS / row["file"], threads=1) for row in rows], network.validation[0][:1]
    times = time_in_turns([partial(each.run, each.feed({"x": x})) for each in files], seconds=SECONDS)
    ours = times[:, [row["by"] for row in rows].index(MS)]
    found = [
        row | {"ms": round(float(np.median(own)), 5), "ours_over_its": quartiles(ours / own)}
        for row, own in zip(rows, times.T, strict=True)
    ]
    return {"rounds": len(times), "rows": found}


def untouched(network: Network) -> float:
    """Return the figure of the module itself on the validation examples."""
    x, y = network.validation
    with torch.no_grad():
        made = [network.module(torch.from_numpy(x[i : i + 64])).numpy() for i in range(0, len(x), 64)]
    return float(network.judge(np.concatenate(made), y).mean())


def searched(network: Network, reference: float, minutes: float, folder: Path) -> attar.CompressionResult:
    """Return what ``attar compress --no-train`` finds within the bound."""
    calibration, validation = (tuple(map(torch.from_numpy, part)) for part in (network.calibration, network.validation))
    return attar.compress(
        network.module,
        calibration,
        folder,
        max_drop=100 * network.max_drop / abs(reference) if "metric" in network.options else network.max_drop,
        minutes=minutes,
        validation=validation,
        resume=(folder / "journal.jsonl").exists(),
        on_step=lambda line: print(line, file=sys.stderr),
        **network.options,
    )


def chosen(network: Network, found: attar.CompressionResult, reference: float) -> dict[str, Any]:
    """Return the file of fewest bytes, and that of fewest milliseconds, of those that hold the bound."""
    known: dict[str, bool] = {}

    def holds(file: Any) -> bool:
        if file.name not in known:
            runner = open_runner(found.folder / file.file, threads=1)
            loss = network.scale * (reference - value(runner, network, network.validation))
            known[file.name] = loss <= network.max_drop
        return known[file.name]

    # The ratio to the floating-point file in the same rounds says more than milliseconds of other minutes.
    orders: dict[str, Callable[[Any], Any]] = {
        BYTES: lambda file: file.file_bytes,
        MS: lambda file: file.against_floating[1],
    }
    return {kind: next(filter(holds, sorted(found.files, key=order))) for kind, order in orders.items()}


def deployed(network: Network, folder: Path, ours: Path, floating: Path) -> dict[str, Callable[[], Runner]]:
    """Return what opens the peers of ``attar bench --peers``."""
    x = network.calibration[0]
    batches = [{"x": x[i : i + 64]} for i in range(0, len(x), 64)]
    source = PeerSource(attar.open_artifact(ours), folder, {"x": x[:1]}, batches, floating)

    def opened(peer: Any) -> Runner:
        if peer.runner is None:
            raise RuntimeError(peer.reason)
        runner: Runner = peer.runner
        return runner

    return {DEPLOYED[each.name]: partial(opened, each) for each in build_peers(source, threads=1)}


def quantizers(network: Network, folder: Path, floating: Path) -> dict[str, Callable[[], Runner]]:
    """Return what makes and opens the files of ONNX Runtime's and NNCF's defaults."""
    tools = importlib.import_module("onnxruntime.quantization")
    x, prepared = network.calibration[0], folder / "prepared.onnx"  # written for the peers of ``deployed``

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches = iter([x[i : i + 64] for i in range(0, len(x), 64)])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {open_runner(floating).inputs[0]: batch}

    def static(path: Path) -> None:
        tools.quantize_static(prepared, path, Reader())

    def dynamic(path: Path) -> None:
        tools.quantize_dynamic(prepared, path)

    def controlled(function: str, path: Path) -> None:
        getattr(importlib.import_module("peer_control"), function)(network, floating, path)

    def opened(make: Callable[[Path], None], path: Path) -> Runner:
        make(path)
        return open_runner(path, threads=1)

    return {
        "ONNX Runtime static, defaults": partial(opened, static, folder / "static-defaults.onnx"),
        "ONNX Runtime dynamic, defaults": partial(opened, dynamic, folder / "dynamic-defaults.onnx"),
        "NNCF, ONNX": partial(opened, partial(controlled, "on_onnx"), folder / "nncf.onnx"),
        "NNCF, OpenVINO": partial(opened, partial(controlled, "on_openvino"), folder / "nncf.xml"),
    }


def value(runner: Runner, network: Network, part: Labelled) -> float:
    """Return the figure of a file on examples, run one at a time."""
    x, y = part
    made = [next(iter(runner.run(runner.feed({"x": x[i : i + 1]})).values())) for i in range(len(x))]
    return float(network.judge(np.concatenate(made), y).mean())


def quartiles(ratios: NDArray[np.float64]) -> list[float]:
    """Return the three quartiles."""
    return [round(float(each), 4) for each in np.percentile(ratios, [25, 50, 75])]


def beaten(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return in sentences where a peer that holds the bound has fewer bytes, or is faster in three of four rounds."""
    least, told = next(each["bytes"] for each in rows if each["by"] == BYTES), []
    for each in rows:
        if each["by"] in NO_PEERS or not each["holds"]:
            continue
        if each["bytes"] < least:
            told.append(f"{each['by']} has {each['bytes']:,} bytes, ours {least:,}")
        if each["ours_over_its"][0] > 1:
            told.append(f"{each['by']} is {each['ours_over_its'][1]:.2f} times as fast")
    return told


def write_table(found: dict[str, Any]) -> None:
    """Write the tables of peers.md between its marks."""
    lines: list[str] = []
    for name, each in found["networks"].items():
        calibration, validation, test = each["examples"]
        lines += [
            f"**{name}**: at most {each['max_drop']:g} {each['unit']} lost on {validation:,} validation examples; "
            f"{calibration:,} calibrate, {test:,} test. The search had {each['search']['minutes']:g} minutes and made "
            f"{each['search']['tried']} files; it ended as {each['search']['ended']}.",
            "",
            f"| {name} | bytes | lost | holds | lost on test | ms | our time over its | made in, s |",
            "|---|---:|---:|---|---:|---:|---:|---:|",
        ]
        for row in each["rows"]:
            low, ratio, high = row["ours_over_its"]
            lines.append(
                f"| {row['by']} | {row['bytes']:,} | {row['drop']:.3f} | {'yes' if row['holds'] else 'no'} | "
                f"{row['test_drop']:.3f} | {row['ms']:.3f} | {ratio:.2f} ({low:.2f} to {high:.2f}) | "
                f"{row['processor_seconds']:.0f} |"
            )
        lines += [f"| {by} | failed: {why} | | | | | | |" for by, why in each["failed"].items()]
        told = beaten(each["rows"]) or ["no file that holds has fewer bytes or is faster than ours"]
        lines += ["", *(f"> {sentence}." for sentence in told), ""]
    begin, end = "<!-- table: studies/search peers -->", "<!-- end of table -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text("\n".join([before + begin, *lines[:-1], end + after]))


def main() -> None:
    """Measure what is missing or named, and write peers.json and the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of: {', '.join(NETWORKS)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of a search")
    parser.add_argument("--time", action="store_true", help="only time the files in runs/peers again")
    parser.add_argument("--draw", action="store_true", help="only write the tables")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"networks": {}}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", attar.AttarWarning)
    known = found["networks"]
    wanted = given.networks or [name for name in NETWORKS if (name in known) == given.time]
    for name in () if given.draw else wanted:
        network = NETWORKS[name]()
        again = known[name] | timed(network, known[name]["rows"]) if given.time else None
        known[name] = again or measure(network, RUNS / name.lower().replace(" ", "-"), given.minutes)
        found["networks"] = known = {each: known[each] for each in NETWORKS if each in known}
        found |= {"machine": machine(), "nncf": version("nncf")}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    write_table(found)


if __name__ == "__main__":
    main()
