"""A slow decoder of rANS, Huffman and contexts, written from sections 4.2 to 4.5 of docs/format.md and nothing else."""

from __future__ import annotations

from itertools import accumulate, pairwise


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


def lone_state(chunk: bytes) -> tuple[int, bytes]:
    """The state of one lane and the bytes after it."""
    length = len(chunk) if len(chunk) < 4 else 4 if len(chunk) % 2 == 0 else 3
    assert length == 0 or chunk[length - 1] != 0
    return int.from_bytes(chunk[:length], "little"), chunk[length:]


def words_of(rest: bytes) -> list[int]:
    """The words, the next one at the end."""
    assert len(rest) % 2 == 0
    return [rest[at] | rest[at + 1] << 8 for at in range(0, len(rest), 2)][::-1]


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
            state, rest = lone_state(chunk)
            states = [state]
        words = words_of(rest)

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


class Count:
    def __init__(self, numbers: list[int], bounds: list[int] | None = None) -> None:
        self.numbers, self.total = numbers, sum(numbers)
        self.learned, self.waits = 0, 1
        self.bounds = self.bound() if bounds is None else bounds

    def bound(self) -> list[int]:
        q = (32768 - len(self.numbers)) * 2**16 // self.total
        return [(below * q >> 16) + b + 1 for b, below in enumerate(accumulate(self.numbers[:-1]))]

    def heir(self) -> Count:
        bounds = pairwise([0, *self.bounds, 32768])
        return Count([(48 * (high - low) >> 15) + 1 for low, high in bounds], self.bounds)

    def learn(self, b: int) -> None:
        self.numbers[b] += 16
        self.total += 16
        self.learned += 1
        if self.learned == self.waits:
            if self.total > 60_000:
                self.numbers = [(number + 1) >> 1 for number in self.numbers]
                self.total = sum(self.numbers)
            self.bounds = self.bound()
            self.learned, self.waits = 0, min(max(self.total // 128, 1), 128)


def context(payload: bytes, count: int, data: bytes, alphabet: int) -> list[int]:
    assert len(data) == 11
    row, width, period, centre = data[0] | data[1] << 8, *data[2:5]
    halves = [half for byte in data[5:] for half in (byte & 15, byte >> 4)]
    v = [half - 16 if half >= 8 else half for half in halves[:4]]
    w, shift = halves[4:11], halves[11]
    assert row >= 1
    assert width >= 2
    assert 1 <= period <= 32
    assert centre < alphabet
    apart = shift > 8
    shift -= 8 if apart else 0
    m = max(centre, alphabet - 1 - centre, 1)
    if apart:
        m = (m + 2**shift - 1) // 2**shift * 2**shift
    buckets = 2 * m // 2**shift + 1
    assert 2 <= buckets <= 33

    decoded = []
    for chunk, size in chunks(payload, count):
        state, rest = lone_state(chunk)
        words = words_of(rest)
        everything = Count([2] * buckets)
        counts: dict[tuple[int, ...], Count] = {}
        means = [0] * row
        reach = max(64, width + 1, row)
        values = [0] * reach  # the last one is x(1)
        recent = 0  # |x(1)| + ... + |x(64)|
        for i in range(size):
            x1, x2, xw, before, after = values[-1], values[-2], values[-width], values[1 - width], values[-width - 1]
            line, column = divmod(i, row)
            e = v[0] * x1 + v[1] * xw + v[2] * before + v[3] * after
            d = w[0] * abs(x1) + w[1] * abs(x2) + w[2] * abs(xw) + w[3] * (abs(before) + abs(after))
            d = 64 * (d + w[4] * abs(values[-row])) + w[5] * recent + (w[6] * means[column] >> 2)

            n = (d >> (shift + 1)).bit_length()
            assert n <= 16
            r = (128 * abs(e) >= d + 16) + (64 * abs(e) >= d + 16) + (128 * abs(e) >= 3 * d + 16)
            keys: list[tuple[int, ...]] = [(0, n, r)]
            if period > 1:
                keys.append((1, i % period, max(n - 2, 0) >> 1))
            else:
                keys.append((1, *(min(max((-x if e < 0 else x) >> shift, -5), 5) for x in (x1, xw))))
            keys.append((2, min(abs(e) >> (shift + 1), 31)))
            for key in keys:
                if key not in counts:
                    counts[key] = everything.heir()
            first, second, third = (counts[key] for key in keys)

            ends = [u + ((a + b) >> 1) for u, a, b in zip(first.bounds, second.bounds, third.bounds, strict=True)]
            low = state % 2**16
            bucket = sum(end <= low for end in ends)
            start, end = [0, *ends][bucket], [*ends, 2**16][bucket]
            state = (end - start) * (state >> 16) + low - start
            if state < 2**16 and words:
                state = state * 2**16 + words.pop()
            alone = apart and bucket == buckets - 1
            lowest = 0
            if shift > 0 and not alone:
                lowest = state % 2**shift
                state >>= shift
                if state < 2**16 and words:
                    state = state * 2**16 + words.pop()
            value = bucket * 2**shift + lowest - m
            if apart and value >= 0:
                value += 1
            if alone:
                value = 0
            if e < 0:
                value = -value
            assert 0 <= value + centre < alphabet
            decoded.append(value + centre)

            for learner in (everything, first, second, third):
                learner.learn(bucket)
            means[column] += (256 * abs(value) - means[column]) >> min((line + 1).bit_length(), 5)
            recent += abs(value) - abs(values[-64])
            values.append(value)
        assert state == 0
        assert not words
    return decoded
