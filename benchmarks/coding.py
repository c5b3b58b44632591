"""Entropy coders side by side, measured in this run: ours, zstd, constriction, and the entropy itself.

    ATTAR_DATA=... python benchmarks/coding.py [--quick] [--json]
    python benchmarks/coding.py --draw benchmarks/coding.json

Each case is one tensor of symbols: bell-shaped (rounded normal, clipped to a symmetric grid), dense or with 90 % zeros,
and independent of each other, so that contexts tell nothing. The weights of trained networks are different; where
``coding`` is in the folder ``ATTAR_DATA``, the codes of eight files are measured, too, tensor by tensor and added up:
``nnc`` is the coder of ISO/IEC 15938-17 on the same codes (nncodec 2.1.3, best of its settings, measured apart).
Sizes are of the payload with its table. What the others get:

- zstd, levels 3 and 19: one byte a symbol ("bytes"), or the symbols packed into whole bits ("packed"); one thread.
- constriction: ``AnsCoder`` with a categorical model of the exact probabilities, which are not counted in its size.

Every repeat times all coders once, one after the other, on one core; figures are medians over the repeats, ratios
medians of the ratios inside each repeat.
"""

from __future__ import annotations

import argparse
import json
import os
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
from attar._src.coding.contexts.fit import fit_table
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


def with_contexts(symbols: Symbols, shape: tuple[int, ...], alphabet: int) -> Contender:
    """The context coder, its table fitted to the tensor inside the clock."""
    coder = CODERS["context"]

    def encode() -> tuple[int, tuple[bytes, bytes]]:
        table = fit_table(symbols, shape, alphabet).write()
        payload = coder.encode(symbols, table, alphabet)
        return len(payload) + len(table), (table, payload)

    def decode(coded: tuple[bytes, bytes]) -> Symbols:
        table, payload = coded
        return coder.decode(memoryview(payload), symbols.size, table, alphabet)

    return Contender(coder.name, encode, decode)


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


def time_in_turns(
    contenders: list[Contender], symbols: Symbols, repeats: int
) -> tuple[dict[str, int], dict[str, list[tuple[float, float]]]]:
    """Return the bytes of each contender, and its seconds of encoding and decoding in each repeat."""
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
    return sizes, times


def measure_weights(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Return for each file of trained weights the figures of each contender, summed over its tensors."""
    tensors = np.load(folder / "codes.npz")
    standard = json.loads((folder / "nnc_cabac.json").read_text())
    files: dict[str, dict[str, Any]] = {}
    for key in tensors.files:
        file, tensor = key.replace("@", "/").split("#")
        codes = tensors[key]
        largest = max(int(np.abs(codes.astype(int)).max()), 1)
        top = 2 ** largest.bit_length() - 1
        symbols, alphabet = (codes.astype(int) + top).astype(np.uint8).reshape(-1), 2 * top + 1
        contenders = [ours(CODERS["rans"], symbols, alphabet), with_contexts(symbols, codes.shape, alphabet)]
        contenders += [zstd(19, True, symbols, alphabet), ans_of_constriction(symbols, alphabet)]
        sizes, times = time_in_turns(contenders, symbols, repeats)
        found = files.setdefault(file, {"file": file, "symbols": 0, "entropy_bytes": 0.0, "nnc": {"bytes": 0}})
        found["symbols"] += symbols.size
        found["entropy_bytes"] += entropy_bits(np.bincount(symbols)) * symbols.size / 8
        found["nnc"]["bytes"] += standard[f"{file}|{tensor}"]["cabac_bytes"]
        for name, size in sizes.items():
            row = found.setdefault(name, {"bytes": 0, "decode_seconds": 0.0})
            row["bytes"] += size
            row["decode_seconds"] += statistics.median(decode for _, decode in times[name])
        # What a file holds: the smaller of the two for each tensor.
        auto = found.setdefault("auto", {"bytes": 0, "decode_seconds": 0.0})
        best = min(("rans", "context"), key=sizes.__getitem__)
        auto["bytes"] += sizes[best]
        auto["decode_seconds"] += statistics.median(decode for _, decode in times[best])
    return list(files.values())


def measure(bits: int, zeros: float, count: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one case: its entropy, and of each contender size, overhead and speeds."""
    symbols, alphabet = symbols_of(count, bits, zeros)
    entropy = entropy_bits(np.bincount(symbols, minlength=alphabet))
    contenders = [ours(coder, symbols, alphabet) for coder in CODERS.values()]
    contenders += [zstd(level, packed, symbols, alphabet) for level in (3, 19) for packed in (False, True)]
    contenders.append(ans_of_constriction(symbols, alphabet))
    sizes, times = time_in_turns(contenders, symbols, repeats)
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


def show_weights(files: list[dict[str, Any]], console: Console) -> None:
    """Print bytes, and symbols a second, of the files of trained weights."""
    names = ["nnc", "auto", "context", "rans", "zstd -19 packed", "constriction ANS"]
    table = Table(
        title="trained weights: bytes, and million symbols decoded a second", caption="entropy: of histograms"
    )
    table.add_column("", no_wrap=True)
    for column in ("symbols", "entropy", *names):
        table.add_column(column, justify="right", no_wrap=True)
    whole: dict[str, Any] = {"file": "all", "symbols": 0, "entropy_bytes": 0.0}
    for item in files:
        for name in ("symbols", "entropy_bytes"):
            whole[name] += item[name]
        for name in names:
            row = whole.setdefault(name, dict.fromkeys(item[name], 0))
            whole[name] = {figure: row[figure] + value for figure, value in item[name].items()}
    for item in [*files, whole]:
        cells = [f"{item['symbols']:,}", f"{item['entropy_bytes']:,.0f}"]
        for name in names:
            seconds = item[name].get("decode_seconds")
            speed = f" ({item['symbols'] / seconds / 1e6:,.0f})" if seconds else ""
            cells.append(f"{item[name]['bytes']:,}{speed}")
        table.add_row(item["file"], *cells)
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
    folder = Path(os.environ.get("ATTAR_DATA", "")) / "coding"
    weights = measure_weights(folder, repeats) if (folder / "codes.npz").is_file() else []
    if options.json:
        json.dump({"cases": cases, "weights": weights}, sys.stdout, indent=2)
        print()
        return
    console = Console(width=max(130, Console().width))
    show(cases, console)
    if weights:
        show_weights(weights, console)
    else:
        console.print("ATTAR_DATA has no folder coding: trained weights were not measured")


if __name__ == "__main__":
    main()
