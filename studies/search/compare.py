"""Methods of compression on ResNet-20 at equal bytes: test accuracy of the files that ``attar compare`` took.

    attar compare examples/resnet.py:resnet20 -w $ATTAR_DATA/weights/cifar10_resnet20.safetensors -d cifar10 \\
        -p imagenet --bytes 90k -o compared
    python studies/search/compare.py compared

Validation images of the training split decided; the 10,000 test images are read here, once for each file. It writes
``compare.json``, the figures of the comparison with the test accuracy of each file, and ``compare.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from attar._src.cli.options.labelled import judged_examples
from attar._src.core.format_bytes import format_bytes
from attar._src.data.registry import load_dataset
from attar._src.measure.metric import METRICS, score
from attar._src.runtime.session import Session

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "compare.json", HERE / "compare.md"
TEXT = """# Which method on ResNet-20?

The public ResNet-20 (91.73 % in FP32) on CIFAR-10: `attar compare` tunes methods to the same bytes.

    attar compare examples/resnet.py:resnet20 -w $ATTAR_DATA/weights/cifar10_resnet20.safetensors -d cifar10 \\
        -p imagenet --bytes 90k -o compared
    python studies/search/compare.py compared

Training images decide: {calibration} calibrate, {validation} others judge. The network was trained on them all, so that
points lost on them flatter; the 10,000 test images are read once for each file of the table, by the script. All files
are timed in turns in one run. The figures are in [compare.json](compare.json).

"""
#: Fields of a row that are kept.
KEPT = (
    "method",
    "holds",
    "why",
    "options",
    "sha256",
    "file_bytes",
    "drop",
    "noise",
    "metric",
    "ms",
    "against_floating",
    "peak_memory_bytes",
    "joules",
    "hardware",
    "seconds",
    "tuning_seconds",
    "tries",
    "training_examples",
    "test_accuracy",
)


def main() -> None:
    """Measure, and write the results and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of attar compare")
    folder = parser.parse_args().folder
    found = json.loads((folder / "compare.json").read_text())
    known: dict[str, float] = {}
    rows = [found["floating"], *(row for target in found["targets"] for row in target["rows"])]
    for row in rows:
        if row.get("file"):
            if row["file"] not in known:
                known[row["file"]] = accuracy(folder / row["file"])
            row["test_accuracy"] = known[row["file"]]
    kept = {name: found[name] for name in ("unit", "calibration", "validation", "energy", "instructions", "ended")}
    kept |= {"left_out": found["left_out"], "skipped": found["skipped"], "floating": chosen(found["floating"])}
    kept["targets"] = [{**target, "rows": [chosen(row) for row in target["rows"]]} for target in found["targets"]]
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    TABLE.write_text(TEXT.format(**kept) + table(kept))


def accuracy(path: Path) -> float:
    """Return the accuracy of a decoded file on the test images."""
    session = Session(path)
    batches = judged_examples(session, load_dataset("cifar10", "test"), 250, None)
    return float(score(session, batches, METRICS["accuracy"], classes=False).value)


def chosen(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row that are kept."""
    return {name: row[name] for name in KEPT if name in row}


def table(found: dict[str, Any]) -> str:
    """Return the tables of all targets in Markdown."""
    lines = []
    for target in found["targets"]:
        lines += ["", f"At {target['words']}:", "", *HEAD, cells({**found["floating"], "method": "floating point"})]
        lines += [cells(row) for row in target["rows"]]
        lines += ["", *(f"> {sentence}" for sentence in target["answer"])]
    return "\n".join(lines).lstrip("\n") + "\n"


HEAD = (
    "| method | bytes | points lost | ± | test accuracy % | ms | ratio | peak memory | made in, s | tuned in, s |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


def cells(row: dict[str, Any]) -> str:
    """Return a row of a table."""
    if not row.get("holds", True):
        return f"| {row['method']} | {row['why']} | | | | | | | | |"
    figures = [
        f"{row['file_bytes']:,}",
        f"{row['drop']:.2f}",
        f"{row['noise']:.2f}",
        f"{100 * row['test_accuracy']:.2f}",
        f"{row['ms']:.3f}",
        f"{row['against_floating'][1]:.2f}",
        format_bytes(row["peak_memory_bytes"]),
        f"{row['seconds']:.0f}",
        f"{row.get('tuning_seconds', row['seconds']):.0f}",
    ]
    return f"| {row['method']} | {' | '.join(figures)} |"


if __name__ == "__main__":
    main()
