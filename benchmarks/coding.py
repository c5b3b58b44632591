"""Entropy coders side by side, measured in this run: ours, zstd, constriction, and the entropy itself.

    ATTAR_DATA=... python benchmarks/coding.py [--quick] [--json]
    python benchmarks/coding.py --draw benchmarks/coding.json

Each case is one tensor of symbols: bell-shaped (rounded normal, clipped to a symmetric grid), dense or with zeros,
and independent of each other, so that contexts tell nothing. The weights of trained networks are different; from the
folder ``ATTAR_DATA``, where it has them, two kinds are measured, too, tensor by tensor and added up:

- ``coding``: the codes of eight files. ``nnc`` is the coder of ISO/IEC 15938-17 on the same codes (nncodec 2.1.3, best
  of its settings, measured apart).
- ``weights``: the trained ResNet-20 with 8 bits per output channel, of each layer the smallest weights pruned and none
  trained further.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import zstandard
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import load_file

from attar._src.coding.base import Coder
from attar._src.coding.contexts.fit import fit_table
from attar._src.coding.entropy import entropy_bits
from attar._src.coding.raw import Raw
from attar._src.coding.registry import CODERS
from coding_tables import as_markdown, draw, show

Symbols = NDArray[np.uint8]
#: Bits, and the share of zeros.
CASES = ((2, 0.0), (2, 0.9), (4, 0.0), (4, 0.9), (8, 0.0), (8, 0.5), (8, 0.9), (8, 0.95))
#: Shares of the weights that are pruned.
PRUNED = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Tensor:
    """The codes of a trained weight, the file it is counted in, and the bytes of the standard's coder, if measured."""

    file: str
    codes: NDArray[np.int8]
    standard: int | None = None


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


def codes_of_files(folder: Path) -> Iterator[Tensor]:
    """Yield the codes of the studies' files, with the bytes that the standard's coder takes."""
    tensors = np.load(folder / "codes.npz")
    standard = json.loads((folder / "nnc_cabac.json").read_text())
    for key in tensors.files:
        file, tensor = key.replace("@", "/").split("#")
        yield Tensor(file, tensors[key], standard[f"{file}|{tensor}"]["cabac_bytes"])


def pruned_codes(path: Path) -> Iterator[Tensor]:
    """Yield 8-bit codes of the weights in a file of safetensors, of which shares are pruned."""
    weights = [weight for _, weight in sorted(load_file(path).items()) if weight.ndim > 1]
    for share in PRUNED:
        for weight in weights:
            left = np.where(np.abs(weight) < np.quantile(np.abs(weight), share), 0, weight)
            scales = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) / 127
            yield Tensor(f"resnet20, 8 bit, {100 * share:.0f} % pruned", np.rint(left / scales).astype(np.int8))


def measure_weights(tensors: Iterable[Tensor], repeats: int) -> list[dict[str, Any]]:
    """Return for each file of trained weights the figures of each contender, summed over its tensors."""
    files: dict[str, dict[str, Any]] = {}
    for tensor in tensors:
        codes = tensor.codes.astype(int)
        largest = max(int(np.abs(codes).max()), 1)
        top = 2 ** largest.bit_length() - 1
        symbols, alphabet = (codes + top).astype(np.uint8).reshape(-1), 2 * top + 1
        contenders = [ours(CODERS["rans"], symbols, alphabet), with_contexts(symbols, codes.shape, alphabet)]
        contenders += [zstd(19, True, symbols, alphabet), ans_of_constriction(symbols, alphabet)]
        sizes, times = time_in_turns(contenders, symbols, repeats)
        found = files.setdefault(tensor.file, {"file": tensor.file, "symbols": 0, "entropy_bytes": 0.0})
        found["symbols"] += symbols.size
        found["entropy_bytes"] += entropy_bits(np.bincount(symbols)) * symbols.size / 8
        if tensor.standard is not None:
            found.setdefault("nnc", {"bytes": 0})["bytes"] += tensor.standard
        rows = {name: (size, statistics.median(decode for _, decode in times[name])) for name, size in sizes.items()}
        # What a file holds: the smaller of the two for each tensor.
        rows["auto"] = min(rows["rans"], rows["context"])
        for name, (size, seconds) in rows.items():
            row = found.setdefault(name, {"bytes": 0, "decode_seconds": 0.0})
            row["bytes"] += size
            row["decode_seconds"] += seconds
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


def main() -> None:
    """Run every case and print a table, or JSON."""
    parser = argparse.ArgumentParser(description="Entropy coders against zstd, constriction and the entropy itself.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer symbols, fewer repeats")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="only draw what --json printed, as .svg beside it")
    options = parser.parse_args()
    if options.draw:
        found = json.loads(options.draw.read_text())
        draw(found["cases"], options.draw.with_suffix(".svg"))
        print(as_markdown(found))
        return
    count, repeats = (1 << 18, 3) if options.quick else (1 << 21, 5)
    cases = [measure(bits, zeros, count, repeats) for bits, zeros in CASES]
    found = {"cases": cases}
    data = Path(os.environ.get("ATTAR_DATA", ""))
    if (data / "coding" / "codes.npz").is_file():
        found["weights"] = measure_weights(codes_of_files(data / "coding"), repeats)
    if (weights := data / "weights" / "cifar10_resnet20.safetensors").is_file():
        found["pruned"] = measure_weights(pruned_codes(weights), repeats)
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        show(found, Console(width=max(180, Console().width)))


if __name__ == "__main__":
    main()
