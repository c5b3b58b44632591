"""A slow decoder of tables, rANS and Huffman, written from sections 4.2 to 4.4 of docs/format.md and nothing else."""

from __future__ import annotations


class Bits:
    def __init__(self, data: bytes) -> None:
        self.bits = [byte >> place & 1 for byte in data for place in range(8)]
        self.position = 0

    def take(self, count: int = 1) -> int:
        taken = self.bits[self.position : self.position + count]
        assert len(taken) == count
        self.position += count
        return sum(bit << place for place, bit in enumerate(taken))

    def golomb(self, order: int) -> int:
        zeros = 0
        while not self.take():
            zeros += 1
        exponent = zeros + order
        assert exponent <= 16
        return (1 << exponent) + self.take(exponent) - (1 << order)

    def finish(self) -> None:
        left = self.bits[self.position :]
        assert len(left) < 8
        assert not any(left)


def table(data: bytes, alphabet: int) -> tuple[int, list[int]]:
    """The tag and the levels."""
    if not data:
        return 1, [1] * alphabet
    assert len(data) <= 1024
    tag, order, predictor = data[0] & 7, data[0] >> 3 & 7, data[0] >> 6
    assert predictor in (0, 1)
    bits = Bits(data[1:])
    levels: list[int] = []
    run_before = False
    while len(levels) < alphabet:
        s = len(levels)
        if predictor == 1 and s >= (alphabet + 1) // 2:
            expected = levels[alphabet - 1 - s]
        else:
            expected = levels[s - 1] if s else 0
        v = bits.golomb(order)
        if v > 2 * expected:
            level = v
        elif v % 2:
            level = expected + (v + 1) // 2
        else:
            level = expected - v // 2
        assert level <= 4095
        levels.append(level)
        assert not (run_before and level == 0)
        run_before = level == 0
        if level == 0:
            levels += [0] * bits.golomb(0)
    assert len(levels) == alphabet
    assert any(levels)
    bits.finish()
    return tag, levels


def spread(slots: int, weights: list[int], sure: set[int]) -> list[tuple[int, int]]:
    """Start and frequency of each symbol."""
    total = sum(weights)

    def bound(s: int) -> int:
        given = sum(1 for other in sure if other <= s)
        return given + sum(weights[: s + 1]) * (slots - len(sure)) // total

    return [(bound(s - 1), bound(s) - bound(s - 1)) for s in range(len(weights))]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def chunks(payload: bytes, count: int) -> list[tuple[bytes, int]]:
    """The bytes and the number of symbols of each chunk."""
    number = -(-count // 2**19)
    if number == 0:
        assert payload == b""
        return []
    lengths, at = [], 0
    for _ in range(number - 1):
        length, at = varint(payload, at)
        lengths.append(length)
    lengths.append(len(payload) - at - sum(lengths))
    result = []
    for index, length in enumerate(lengths):
        result.append((payload[at : at + length], min(2**19, count - index * 2**19)))
        at += length
    return result


def rans(payload: bytes, count: int, data: bytes, alphabet: int) -> list[int]:
    tag, levels = table(data, alphabet)
    slots = 2 ** (tag + 8)
    weights = [q * q for q in levels]
    rare = [s for s, q in enumerate(levels) if q > 0 and weights[s] * (slots - 1) < sum(weights)]
    if rare:
        stand_in = rare[0]
        pooled = [weights[s] if s in rare else 0 for s in range(alphabet)]
        first = [sum(pooled) if s == stand_in else 0 if s in rare else weights[s] for s in range(alphabet)]
        steps = [spread(slots, first, {stand_in}), spread(slots, pooled, set(rare))]
    else:
        stand_in = -1
        steps = [spread(slots, weights, set())]
    for step in steps:
        assert sum(frequency for _, frequency in step) == slots
    symbols_of = [[s for s, (_, frequency) in enumerate(step) for _ in range(frequency)] for step in steps]

    decoded = []
    for chunk, size in chunks(payload, count):
        lanes = 1
        if size >= 4096:
            lanes, chunk = chunk[0], chunk[1:]
            assert lanes in (1, 8)
        if lanes == 8:
            states = [int.from_bytes(chunk[4 * lane : 4 * lane + 4], "little") for lane in range(8)]
            assert all(state >= 2**16 for state in states)
            rest = chunk[32:]
        else:
            length = len(chunk) if len(chunk) < 4 else 4 if len(chunk) % 2 == 0 else 3
            assert length == 0 or chunk[length - 1] != 0
            states = [int.from_bytes(chunk[:length], "little")]
            rest = chunk[length:]
        assert len(rest) % 2 == 0
        words = [rest[at] | rest[at + 1] << 8 for at in range(0, len(rest), 2)]
        words.reverse()  # the next one is at the end

        def pop(lane: int, step: int, may_run_dry: bool, states: list[int] = states, words: list[int] = words) -> int:
            d = states[lane] % slots
            symbol = symbols_of[step][d]
            start, frequency = steps[step][symbol]
            states[lane] = frequency * (states[lane] // slots) + d - start
            if states[lane] < 2**16 and (words or not may_run_dry):
                states[lane] = states[lane] * 2**16 + words.pop()
            return symbol

        part = [pop(i % lanes, 0, lanes == 1) for i in range(size)]
        for i, symbol in enumerate(part):
            if symbol == stand_in:
                part[i] = pop(0, 1, True)
        assert not words
        assert all(state == (2**16 if lanes == 8 else 0) for state in states)
        decoded += part
    return decoded


def huffman(payload: bytes, count: int, data: bytes, alphabet: int) -> list[int]:
    if data:
        tag, levels = table(data, alphabet)
        assert tag == 0
        lengths = {s: level - 1 for s, level in enumerate(levels) if level}
    else:
        bits = (alphabet - 1).bit_length()
        short = 2**bits - alphabet
        lengths = {s: bits - (s >= alphabet - short) for s in range(alphabet)}
    assert max(lengths.values()) <= 15
    assert sum(2 ** (15 - length) for length in lengths.values()) == 2**15
    code, previous = 0, 0
    codes = {}
    for symbol in sorted(lengths, key=lambda s: (lengths[s], s)):
        code <<= lengths[symbol] - previous
        previous = lengths[symbol]
        codes[previous, code] = symbol
        code += 1

    decoded = []
    for chunk, size in chunks(payload, count):
        reader = Bits(chunk)
        for _ in range(size):
            code = length = 0
            while (length, code) not in codes:
                code = code << 1 | reader.take()
                length += 1
            decoded.append(codes[length, code])
        reader.finish()
    return decoded
