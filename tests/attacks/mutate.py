"""Mutations of sound files: what the fuzzer does to one before it seals it again."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from tests.attacks.mutate_graph import FLOATS, GRAPH_MUTATIONS, NUMBERS, WORDS
from tests.attacks.reseal import Parts

OTHERS: list[Any] = [None, True, False, [], {}, [[]], [0], {"kind": "dense"}, [None] * 100]


def mutate(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change one thing, or a few, in a file that is in parts; ``other`` is one to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if isinstance(parts.manifest, bytes):
            return  # it is text now, and no longer in parts
        rng.choices(list(_MUTATIONS), list(_MUTATIONS.values()))[0](parts, rng, other)


def hostile(rng: random.Random, old: Any = None) -> Any:
    """Return a value that is likely to be wrong, often close to the one that was there."""
    if isinstance(old, int) and not isinstance(old, bool) and rng.random() < 0.5:
        return rng.choice((old + 1, old - 1, -old, old * 2, old // 2, old + 64, old ^ 1 << rng.randrange(16)))
    if isinstance(old, float) and rng.random() < 0.5:
        return rng.choice((-old, old * 1e10, old * 1e-10, 0.0))
    return rng.choice((rng.choice(NUMBERS), rng.choice(FLOATS), rng.choice(WORDS), copy.deepcopy(rng.choice(OTHERS))))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def change_manifest(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Replace, remove, double or move a value of the manifest."""
    container, key = rng.choice(list(_places(parts.manifest)))
    kind = rng.randrange(6)
    if kind < 3:
        container[key] = hostile(rng, container[key])
    elif kind == 3:
        del container[key]
    elif kind == 4:
        source, taken = rng.choice(list(_places(rng.choice((parts, other)).manifest)))
        container[key] = copy.deepcopy(source[taken])  # a copy: the manifest must stay a tree
    elif isinstance(container, list):
        container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
    else:
        container[rng.choice(WORDS)] = copy.deepcopy(container[key])


def change_bytes(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Overwrite, cut, lengthen or splice the bytes of a section."""
    if not parts.sections:
        return
    index = rng.randrange(len(parts.sections))
    parts.sections[index] = damage(parts.sections[index], rng, rng.choice(other.sections or [b""]))


def change_stream(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Lengthen or cut one stream of a tensor, or a coding table, with all lengths in agreement."""
    streams = []
    for container, key in _places(parts.manifest):
        if key == "length" and isinstance(container["length"], int) and "crc32" not in container:
            streams.append(container)
    if not streams or not parts.sections:
        return
    record = rng.choice(streams)
    change = rng.choice((-2, -1, 1, 2, 8))
    index = rng.randrange(len(parts.sections))
    data = parts.sections[index]
    place = rng.randrange(len(data) + 1)
    record["length"] += change
    parts.sections[index] = (
        data[:place] + rng.randbytes(change) + data[place:] if change > 0 else data[:place] + data[place - change :]
    )


def change_text(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change the bytes of a graph inside its DEFLATE stream."""

    def edit(text: bytes) -> bytes:
        return damage(text, rng, b"\x0a\x00\x12\x01a")

    _each_graph(parts, edit)


def change_graph(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Change a graph as a message."""

    def edit(text: bytes) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(text)
        except Exception:  # noqa: BLE001 -- an earlier mutation left no message
            return text
        for _ in range(rng.choice((1, 1, 2, 4))):
            rng.choice(GRAPH_MUTATIONS)(model, rng)
        return model.SerializeToString()

    _each_graph(parts, edit)


def change_header(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Put a number that fits into a field of header or footer."""
    field = rng.choice(("major", "minor", "start", "length", "inflated", "crc32"))
    width = {"major": 16, "minor": 16, "crc32": 32}.get(field, 64)
    number = rng.choice(NUMBERS) % 2**width
    (parts.header if width == 16 else parts.footer)[field] = number


def change_sizes(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Give an input another size, in the record and in the graph."""
    try:
        record = parts.manifest["graphs"][0]
        port = rng.choice(record["inputs"])
        axis = rng.randrange(len(port["example"]))
        size = rng.choice((0, 1, 2, 3, 5, 64, 1000, 2**16, 2**31, -1))
        port["example"][axis] = size
        if isinstance(port["shape"][axis], int):
            port["shape"][axis] = size
            index = record["inputs"].index(port)
            parts.graph(lambda m: setattr(m.graph.input[index].type.tensor_type.shape.dim[axis], "dim_value", size))
    except Exception:  # noqa: BLE001 -- an earlier mutation left no such thing
        return


def change_dynamic(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Let any nodes of a graph be dynamic."""
    try:
        record = parts.manifest["graphs"][0]
        model = onnx.ModelProto.FromString(parts.graph_text(0))
        named = [node for node in model.graph.node if isinstance(node.name, str)]  # not UTF-8: bytes, which JSON lacks
        names = [node.name for node in named]
        products = [node.name for node in named if node.op_type in ("Gemm", "MatMul", "LSTM", "GRU")]
        record["dynamic"] = rng.sample(rng.choice((names, products)), rng.randrange(len(products) + 1))
        parts.header["minor"] = max(parts.header["minor"], 3)
    except Exception:  # noqa: BLE001 -- an earlier mutation left no such thing
        return


def change_json(parts: Parts, rng: random.Random, other: Parts) -> None:
    """Turn the manifest into text that repeats keys, nests, grows or does not end."""
    if not isinstance(parts.manifest, dict):
        return
    text = json.dumps(parts.manifest)
    places = [index for index, letter in enumerate(text) if letter in "{[,:"]
    place = rng.choice(places) + 1
    count = rng.choice((1, 2, 40, 1000, 100_000))
    filling = rng.choice(
        (
            '"a":0,' * count,
            "".join(f'"{number}":0,' for number in range(min(count, 20_000))),
            "[" * count + "]" * count + ",",
            '{"a":' * count + "0" + "}" * count + ",",
            "[[]]," * count,
            "0," * count,
            "9" * count + ",",
            '"' + "\\" * count + '",',
            '"\\ud800",' * count,
            "-" * count,
            " " * count,
            '"' + "\x1b[2J" * count + '",',
            "NaN,",
        )
    )
    parts.manifest = (text[:place] + filling + text[place:]).encode()


def _each_graph(parts: Parts, edit: Callable[[bytes], bytes]) -> None:
    try:
        for index in range(len(parts.manifest["graphs"])):
            parts.graph_bytes(edit(parts.graph_text(index)), index)
    except Exception:  # noqa: BLE001 -- an earlier mutation left no such section
        return


def damage(data: bytes, rng: random.Random, filling: bytes) -> bytes:
    """Flip a bit of some bytes, or overwrite, cut, lengthen or splice them."""
    if not data:
        return filling
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 64)))
    kind = rng.randrange(6)
    if kind < 2:
        return data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
    if kind == 2:
        return data[:start] + rng.randbytes(stop - start) + data[stop:]
    if kind == 3:
        return data[:start] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (stop - start) + data[stop:]
    if kind == 4:
        return data[:start] + data[stop:]
    return data[:start] + rng.choice((filling, data))[: stop - start] + data[start:]


_MUTATIONS = {
    change_manifest: 6,
    change_bytes: 3,
    change_stream: 2,
    change_text: 2,
    change_graph: 8,
    change_header: 0.3,
    change_dynamic: 2,
    change_sizes: 1,
    change_json: 0.5,
}
