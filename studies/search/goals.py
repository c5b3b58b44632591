"""Run the searches of goals.md that were not run yet, and evaluate each best file once on the test split.

    ATTAR_DATA=... python studies/search/goals.py [digits] [lenet] ...

Writes goals.json and the table of goals.md; searches and their files are in runs/search. HALF in a command is half the
milliseconds of the floating-point file, measured before the search.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.core.registry import load_object
from attar._src.measure.latency import time_in_turns
from attar._src.measure.runner import example_feed, open_runner

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNS = ROOT / "runs" / "search"
_RESNET20 = (
    "attar compress examples/resnet.py:resnet20 -w $ATTAR_DATA/weights/cifar10_resnet20.safetensors -d cifar10 "
    "-p imagenet"
)
#: Name -> what is asked for, the command without its folder, and the data of the test.
GOALS = {
    "digits": (
        "at most 9 KB, under 5 minutes",
        "attar compress examples/digits.py:DigitNet --arg width=64 -d digits --max-drop 0.5 "
        "-w runs/demo/state/seed-0/teacher/0-train/epoch-000015.safetensors",
        "digits",
    ),
    "lenet": (
        "at most 9 KB",
        "attar compress studies/lenet/models.py:lenet5 -d mnist --max-drop 0.1 --time 40m "
        "-w runs/pruning/lenet/state/seed-0/lenet5/0-distill/epoch-000006.safetensors",
        "mnist",
    ),
    "resnet20": ("at most 90 KB, no training", f"{_RESNET20} --max-drop 0.5 --no-train --time 15m", "cifar10"),
    "resnet20-faster": (
        "half the time of FP32, a drop under 1.5",
        f"{_RESNET20} --max-ms HALF --no-train --time 15m",
        "cifar10",
    ),
    "resnet20-trained": (
        "at most 40 KB",
        f"{_RESNET20} --teacher examples/resnet.py:resnet56 "
        "--teacher-weights $ATTAR_DATA/weights/cifar10_resnet56.safetensors --max-drop 1 --time 2h",
        "cifar10",
    ),
    "gru": (
        "0.02 bits a character: a sixth of the bytes, faster than FP32",
        "python studies/search/gru.py FOLDER 0.02",
        None,
    ),
}


def main() -> None:
    """Run and evaluate the searches that are named, all by default, and write goals.json and the table."""
    path = HERE / "goals.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or GOALS:
        found[name] = measured(name)
        path.write_text(json.dumps(found, indent=1) + "\n")
    write_table(found)


def measured(name: str) -> dict[str, Any]:
    """Return the figures of one search."""
    asked, command, data = GOALS[name]
    folder = RUNS / name
    attar = [sys.executable, "-m", "attar"]
    seconds = None
    if "HALF" in command:
        command = command.replace("HALF", f"{half_the_time(command, folder.with_suffix('.attar')):.3f}")
    if not (folder / "search.json").exists():
        begun, before = time.monotonic(), os.times()
        program, *words = shlex.split(os.path.expandvars(command).replace("FOLDER", str(folder)))
        words = [sys.executable, *words] if program == "python" else [*attar, *words, "-o", str(folder)]
        resume = ["--resume"] if (folder / "journal.jsonl").exists() else []
        subprocess.run([*words, *resume], cwd=ROOT, check=False)
        after = os.times()
        seconds = {
            "wall": round(time.monotonic() - begun, 1),
            "processor": round(
                after.children_user - before.children_user + after.children_system - before.children_system, 1
            ),
        }
    search = json.loads((folder / "search.json").read_text())
    best = next(each for each in search["files"] if each["name"] == search["best"])
    first = search["files"][0]
    test = {}
    trained = [each["file"] for each in search["files"] if each["way"]]
    for file in ("best.attar", first["file"], *trained):
        if data is None:
            test[file] = load_object(f"{HERE / 'gru.py'}:tested")(folder / file)
            continue
        said = subprocess.run(
            [*attar, "eval", str(folder / file), "-d", data, "--json"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        test[file] = json.loads(said.stdout)["accuracy"]
    return {
        "asked": asked,
        "command": command.replace("FOLDER", f"runs/search/{name}")
        if "FOLDER" in command
        else f"{command} -o runs/search/{name}",
        "met": search["met"],
        "seconds": seconds,
        "bits": data is None,
        "ended": search["ended"],
        "best": best,
        "floating": {key: first[key] for key in ("file_bytes", "metric", "ms")},
        "front": [each for each in search["files"] if each["name"] in search["front"]],
        "tried": len(search["files"]),
        "failed": search["failed"],
        "skipped": search["skipped"],
        "test": {"best": test["best.attar"], "floating": test[first["file"]]},
        "test_of_trained": {each["name"]: test[each["file"]] for each in search["files"] if each["way"]},
    }


def half_the_time(command: str, file: Path) -> float:
    """Return half the milliseconds of the floating-point file of a command's model on one thread."""
    words = shlex.split(os.path.expandvars(command.partition(" --max-ms")[0]).replace("attar compress", "quantize"))
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        plain = ["--bits", "8", "--keep", "*", "-o", str(file)]
        subprocess.run([sys.executable, "-m", "attar", *words, *plain], cwd=ROOT, check=True)
    runner = open_runner(file, threads=1)
    times = time_in_turns([partial(runner.run, example_feed(runner, 1))], seconds=3.0)
    return float(np.median(times)) / 2


def write_table(found: dict[str, Any]) -> None:
    """Write the table of goals.md between its marks."""
    lines = [
        "| search | asked | file | bytes | lost on validation | test, % or bits (floating point) | time, of FP32 "
        "| files | processor, s |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, each in found.items():
        best, test = each["best"], each["test"]
        scale = 1 if each.get("bits") else 100
        figures = [scale * test[of] for of in ("best", "floating")]
        seconds = each["seconds"] or {}
        lines.append(
            f"| {name} | {each['asked']} | {best['name']} | {best['file_bytes']:,} | {best['drop']:.2f} | "
            f"{figures[0]:.2f} ({figures[1]:.2f}) | {best['against_floating'][1]:.2f} | {each['tried']} | "
            f"{seconds.get('processor', '')} |"
        )
    document = HERE / "goals.md"
    begin, end = "<!-- table: studies/search goals -->", "<!-- end of table -->"
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    document.write_text("\n".join([before + begin, *lines, end + after]))


if __name__ == "__main__":
    main()
