"""Entropy coders side by side, measured in this run: ours, zstd, constriction, and the entropy itself.

    python benchmarks/coding.py [--quick] [--json]
    python benchmarks/coding.py --draw benchmarks/coding.json

Each case is one tensor of symbols as the weights of a network have them: bell-shaped (rounded normal, clipped to a
symmetric grid), dense or with 90 % zeros. Sizes are of the payload with its table. What the others get:

- zstd, levels 3 and 19: one byte a symbol ("bytes"), or the symbols packed into whole bits ("packed"); one thread.
- constriction: ``AnsCoder`` with a categorical model of the exact probabilities, which are not counted in its size.

Every repeat times all coders once, one after the other, on one core; figures are medians over the repeats, ratios
medians of the ratios inside each repeat.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import constriction
import matplotlib
import numpy as np
import zstandard
from matplotlib import pyplot
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from attar._src.coding.base import Coder
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.raw import Raw
from attar._src.coding.registry import CODERS

Symbols = NDArray[np.uint8]


@dataclass(frozen=True)
class Contender:
    """Something that codes one tensor: ``encode`` returns its bytes in all and what ``decode`` turns back."""

    name: str
    encode: Callable[[], tuple[int, Any]]
    decode: Callable[[Any], Symbols]


def symbols_of(count: int, bits: int, zeros: float) -> tuple[Symbols, int]:
    """Return ``count`` bell-shaped symbols on a symmetric grid of ``bits``, and its alphabet."""
    random = np.random.default_rng(bits)
    top = 2 ** (bits - 1) - 1
    values = np.clip(np.rint(random.normal(0, max(top / 3.5, 0.7), count)), -top, top)
    if zeros:
        signs = random.choice([-1, 1], count)
        values = np.where(random.random(count) < zeros, 0, np.where(values == 0, signs, values))
    return (values + top).astype(np.uint8), 2 * top + 1


def ours(coder: Coder, symbols: Symbols, alphabet: int) -> Contender:
    """One of the registered coders, its table included."""
    table = coder.table(np.bincount(symbols, minlength=alphabet))

    def encode() -> tuple[int, bytes]:
        payload = coder.encode(symbols, table, alphabet)
        return len(payload) + len(table), payload

    return Contender(
        coder.name, encode, lambda payload: coder.decode(memoryview(payload), symbols.size, table, alphabet)
    )


def zstd(level: int, packed: bool, symbols: Symbols, alphabet: int) -> Contender:
    """The zstd command's library, on bytes or on packed bits."""
    raw = Raw()
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()

    def encode() -> tuple[int, bytes]:
        data = compressor.compress(raw.encode(symbols, b"", alphabet) if packed else symbols.tobytes())
        return len(data), data

    def decode(data: bytes) -> Symbols:
        plain = decompressor.decompress(data)
        return raw.decode(memoryview(plain), symbols.size, b"", alphabet) if packed else np.frombuffer(plain, np.uint8)

    return Contender(f"zstd -{level} {'packed' if packed else 'bytes'}", encode, decode)


def ans_of_constriction(symbols: Symbols, alphabet: int) -> Contender:
    """The coder of the constriction library; like ours, its model is prepared outside the clock."""
    shares = np.bincount(symbols, minlength=alphabet) / symbols.size
    model = constriction.stream.model.Categorical(shares.astype(np.float32), perfect=False)
    wide = symbols.astype(np.int32)

    def encode() -> tuple[int, Any]:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(wide, model)
        words = coder.get_compressed()
        return words.nbytes, words

    def decode(words: Any) -> Symbols:
        back: Symbols = constriction.stream.stack.AnsCoder(words).decode(model, symbols.size).astype(np.uint8)
        return back

    return Contender("constriction ANS", encode, decode)


def measure(bits: int, zeros: float, count: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one case: its entropy, and of each contender size, overhead and speeds."""
    symbols, alphabet = symbols_of(count, bits, zeros)
    entropy = entropy_bits(np.bincount(symbols, minlength=alphabet))
    contenders = [ours(coder, symbols, alphabet) for coder in CODERS.values()]
    contenders += [zstd(level, packed, symbols, alphabet) for level in (3, 19) for packed in (False, True)]
    contenders.append(ans_of_constriction(symbols, alphabet))
    sizes: dict[str, int] = {}
    times: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in contenders}
    for repeat in range(repeats + 1):
        for contender in contenders:
            start = time.perf_counter()
            sizes[contender.name], coded = contender.encode()
            middle = time.perf_counter()
            back = contender.decode(coded)
            end = time.perf_counter()
            if not np.array_equal(back, symbols):
                raise AssertionError(f"{contender.name} does not give back what it was given")
            if repeat:  # the first round compiles and warms up
                times[contender.name].append((middle - start, end - middle))
    rows = []
    yardstick = [decode for _, decode in times["rans"]]
    for name, pairs in times.items():
        encode, decode = (statistics.median(each) for each in zip(*pairs, strict=True))
        rows.append(
            {
                "coder": name,
                "bytes": sizes[name],
                "bits_per_symbol": 8 * sizes[name] / count,
                "overhead_percent": 100 * (8 * sizes[name] / (entropy * count) - 1),
                "encode_msymbols_per_s": count / encode / 1e6,
                "decode_msymbols_per_s": count / decode / 1e6,
                "decode_time_over_rans": statistics.median(
                    theirs / rans for (_, theirs), rans in zip(pairs, yardstick, strict=True)
                ),
            }
        )
    return {"bits": bits, "zeros": zeros, "symbols": count, "entropy_bits": entropy, "coders": rows}


def show(cases: list[dict[str, Any]], console: Console) -> None:
    """Print one table, a block for each case."""
    table = Table(
        title=f"{cases[0]['symbols']:,} symbols, one core, medians",
        caption="bits a symbol with tables; % over the entropy; million symbols a second; decode time over rans",
    )
    table.add_column("", no_wrap=True)
    for column in ("bits", "over %", "enc M/s", "dec M/s", "dec / rans"):
        table.add_column(column, justify="right", no_wrap=True)
    for case in cases:
        kind = f"{100 * case['zeros']:.0f} % zeros" if case["zeros"] else "dense"
        table.add_section()
        table.add_row(f"{case['bits']} bit, {kind}: entropy", f"{case['entropy_bits']:.4f}")
        for row in case["coders"]:
            table.add_row(
                row["coder"],
                f"{row['bits_per_symbol']:.4f}",
                f"{row['overhead_percent']:+.3f}",
                f"{row['encode_msymbols_per_s']:.1f}",
                f"{row['decode_msymbols_per_s']:.1f}",
                f"{row['decode_time_over_rans']:.2f}",
            )
    console.print(table)


def draw(cases: list[dict[str, Any]], path: Path) -> None:
    """Draw bits over the entropy against decoding speed, a point for each coder and case."""
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for row in zip(*(case["coders"] for case in cases), strict=True):
        speeds = [item["decode_msymbols_per_s"] for item in row]
        # An exact hit would have no place on a logarithmic axis.
        over = [max(item["overhead_percent"], 1e-3) for item in row]
        axes.plot(speeds, over, "o", label=row[0]["coder"], alpha=0.8)
    axes.set(
        xscale="log", yscale="log", xlabel="decoded, million symbols a second, one core", ylabel="% over the entropy"
    )
    axes.set_title("2, 4 and 8 bits, dense and 90 % zeros: right and down is better")
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run every case and print a table, or JSON."""
    parser = argparse.ArgumentParser(description="Entropy coders against zstd, constriction and the entropy itself.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer symbols, fewer repeats")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="only draw what --json printed, as .svg beside it")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text())["cases"], options.draw.with_suffix(".svg"))
        return
    count, repeats = (1 << 18, 3) if options.quick else (1 << 21, 5)
    cases = [measure(bits, zeros, count, repeats) for bits in (2, 4, 8) for zeros in (0.0, 0.9)]
    if options.json:
        json.dump({"cases": cases}, sys.stdout, indent=2)
        print()
    else:
        show(cases, Console(width=max(90, Console().width)))


if __name__ == "__main__":
    main()
