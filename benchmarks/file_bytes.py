"""Bytes of small files, part by part, as they were committed and packed again today; with their accuracy on test data.

    python benchmarks/file_bytes.py [--json] [--coder auto] [--student runs/demo/student.attar] [--no-accuracy]

``ATTAR_DATA`` names a folder with ``mnist`` and ``cifar-10-batches-bin``. The student is of ``examples/demo.yaml``,
trained by ``make demo``; it is left out with a message if there is none. Files are packed as ``attar repack --short``
does: nothing is trained, and codes stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.packing import AUTO
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.artifact.repack import repack
from attar._src.cli import show
from attar._src.coding.registry import CODERS
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.runtime.session import Session

HERE = Path(__file__).parent.parent
STUDIES = HERE / "studies"
#: File -> its data set, and the bytes it should have at most.
FILES = {
    STUDIES / "lenet/lenet_300_100.attar": ("mnist", 10_200),
    STUDIES / "lenet/lenet5.attar": ("mnist", 7_200),
    STUDIES / "polino2018/files/s3-1bit.attar": ("cifar10", 12_900),
    STUDIES / "polino2018/files/s2-1bit.attar": ("cifar10", 36_500),
    STUDIES / "resnet20/w4.attar": ("cifar10", 106_500),
}
STUDENT = ("digits", 6_900)
PARTS = ("codes", "scales", "floats", "tables", "graph", "manifest", "header", "footer", "padding")


def parts_of(artifact: Artifact, data: str | None) -> dict[str, Any]:
    """Return the bytes of a file and of its parts, and its accuracy on the test split of ``data``."""
    found = inspect_artifact(artifact)
    told = {"bytes": found["file_bytes"], "format": found["format"], "parts": found["parts"]}
    if data is None:
        return told
    test = load_dataset(data, "test")
    return told | {"accuracy": evaluate_accuracy(Session(artifact, threads=1), test.x, test.y).accuracy}


def measure(path: Path, data: str, goal: int, coder: str, *, accuracy: bool) -> dict[str, Any]:
    """Return what is measured of one file before and after it is packed again."""
    before = open_artifact(path)
    after = open_artifact(repack(before, coder=coder, short=True))
    on = data if accuracy else None
    told = {"file": path.name, "data": data, "goal": goal}
    return {**told, "before": parts_of(before, on), "after": parts_of(after, on)}


def main() -> int:
    """Measure all files and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--coder", choices=[AUTO, *CODERS], default=AUTO)
    parser.add_argument("--student", type=Path, default=HERE / "runs/demo/student.attar")
    parser.add_argument("--no-accuracy", action="store_true")
    options = parser.parse_args()
    files = dict(FILES)
    if options.student.exists():
        files[options.student] = STUDENT
    else:
        print(f"{options.student} is not there and left out: make demo", file=sys.stderr)
    measured = [measure(path, *told, options.coder, accuracy=not options.no_accuracy) for path, told in files.items()]
    if options.json:
        print(json.dumps({"coder": options.coder, "files": measured}, indent=2))
        return 0
    table = show.plain_table("file", *(f">{head}" for head in ("", "bytes", "goal", *PARTS, "accuracy %")))
    for each in measured:
        for when in ("before", "after"):
            found = each[when]
            accuracy = f"{100 * found['accuracy']:.2f}" if "accuracy" in found else ""
            figures = [f"{found['bytes']:,}", f"{each['goal']:,}", *(f"{found['parts'][part]:,}" for part in PARTS)]
            table.add_row(each["file"] if when == "before" else "", when, *figures, accuracy)
    out = show.console()
    out.width = max(out.width, 140)
    out.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
