/* attar.h: decodes the codes of an .attar file. The format is docs/format.md; sections below are sections of that page.
 *
 * C99 in one header: no allocation, nothing of the C library but memcpy and memset, no access that depends on alignment
 * or byte order, no undefined behaviour; for processors of 32 bits or more. It reads hostile bytes: what the page says
 * a decoder MUST refuse gives a status other than ATTAR_OK, and nothing beyond the given bytes is read, nothing beyond
 * the given buffers written. After a refusal the output has no meaning. Pointers must not be null, even where a length
 * is 0.
 *
 *     static uint16_t work[ATTAR_WORK];  // 64 KiB; most tables take less, see attar_open_table
 *     static attar_table table;          // 2 KiB; opening it takes 6 KiB of stack
 *     uint8_t symbols[120];              // numbers of 0 to 14
 *     if (attar_open_table(&table, ATTAR_RANS, bytes, length, 15, work, ATTAR_WORK) == ATTAR_OK &&
 *         attar_decode(&table, payload, payload_length, symbols, 120) == ATTAR_OK)
 *         ...
 *
 * An open table is only read: threads may decode by it at once.
 */
#ifndef ATTAR_H
#define ATTAR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef ATTAR_API
#define ATTAR_API static inline
#endif

/* A loop that needs all registers, and is slower where it is put into its caller. */
#if defined(__GNUC__)
#define ATTAR_LOOP static __attribute__((noinline, unused))
#else
#define ATTAR_LOOP static
#endif

typedef enum attar_status {
    ATTAR_OK = 0,
    ATTAR_NO_ROOM,     /* the workspace of a table is too small */
    ATTAR_BAD_TABLE,   /* 4.2, and a table of the raw coder */
    ATTAR_BAD_CODE,    /* 4.4: lengths that are no complete code of at most 15 bits, or a tag */
    ATTAR_BAD_LENGTH,  /* the lengths of chunks are malformed or exceed the payload, or states and words do not fill a
                          chunk (4.3); the payload is not as long as its symbols (4.1) */
    ATTAR_BAD_LANES,   /* 4.3: neither 1 nor 8 lanes */
    ATTAR_BAD_STATE,   /* 4.3: a chunk begins with a state below the lowest */
    ATTAR_BAD_SYMBOLS, /* a chunk does not hold the symbols asked for (4.3, 4.4); one is not below the alphabet (4.1) */
    ATTAR_BAD_PADDING  /* 4.1: bits are set after the last symbol */
} attar_status;

typedef enum attar_coder { ATTAR_RAW, ATTAR_RANS, ATTAR_HUFFMAN } attar_coder;

#define ATTAR_ALPHABET 256     /* symbols at most */
#define ATTAR_WORK 32768       /* numbers of a workspace that is enough for every table */
#define ATTAR_CHUNK 524288     /* 2^19, symbols of every chunk but the last */
#define ATTAR_SMALL_CHUNK 4096 /* a chunk of fewer symbols has one lane */
#define ATTAR_LANES 8
#define ATTAR_LOWEST 65536u    /* 2^16, the least state of each of 8 lanes */
#define ATTAR_TABLE_BYTES 1024
#define ATTAR_LEVEL 4095       /* the largest */
#define ATTAR_LONGEST 15       /* bits of a Huffman code */
#define ATTAR_EXPONENT 16      /* the largest of a Golomb code */

/* One of the two coding steps of rANS. */
typedef struct attar_step {
    const uint8_t *slots; /* 2^k, the symbol of each */
    uint16_t starts[ATTAR_ALPHABET];
    uint16_t frequencies[ATTAR_ALPHABET];
} attar_step;

typedef struct attar_table {
    attar_coder coder;
    unsigned alphabet;     /* 1 to 256 */
    unsigned bits;         /* raw: of a symbol; rANS: k; Huffman: of the longest code */
    int stand_in;          /* rANS: the first rare symbol, -1 if none is */
    attar_step steps[2];   /* rANS */
    const uint16_t *codes; /* Huffman: length << 8 | symbol for the next `bits` bits */
} attar_table;

/* ---- 4.2 Tables ---- */

typedef struct attar_bits {
    const uint8_t *data;
    size_t at, end; /* in bits */
} attar_bits;

ATTAR_API unsigned attar_bit(attar_bits *bits)
{
    unsigned bit = bits->data[bits->at >> 3] >> (bits->at & 7) & 1;
    bits->at++;
    return bit;
}

/* Return a number in the exponential Golomb code of an order, -1 if it is malformed. */
ATTAR_API int32_t attar_golomb(attar_bits *bits, unsigned order)
{
    unsigned exponent = order, place;
    uint32_t value;
    for (;; exponent++) {
        if (exponent > ATTAR_EXPONENT || bits->at == bits->end)
            return -1;
        if (attar_bit(bits))
            break;
    }
    if (bits->end - bits->at < exponent)
        return -1;
    value = (uint32_t)1 << exponent;
    for (place = 0; place < exponent; place++)
        value += (uint32_t)attar_bit(bits) << place;
    return (int32_t)(value - ((uint32_t)1 << order));
}

ATTAR_API attar_status attar_read_levels(const uint8_t *data, size_t length, unsigned alphabet, uint16_t *levels,
                                         unsigned *tag)
{
    attar_bits bits;
    unsigned order, predictor, symbol = 0, after_run = 0, any = 0;
    if (length < 1 || length > ATTAR_TABLE_BYTES || data[0] >> 6 > 1)
        return ATTAR_BAD_TABLE;
    *tag = data[0] & 7;
    order = data[0] >> 3 & 7;
    predictor = data[0] >> 6;
    bits.data = data;
    bits.at = 8;
    bits.end = 8 * length;
    memset(levels, 0, alphabet * sizeof *levels);
    while (symbol < alphabet) {
        int mirrored = predictor && symbol >= (alphabet + 1) / 2;
        int32_t expected = mirrored ? levels[alphabet - 1 - symbol] : symbol ? levels[symbol - 1] : 0;
        int32_t level = attar_golomb(&bits, order);
        if (level < 0)
            return ATTAR_BAD_TABLE;
        if (level <= 2 * expected)
            level = level % 2 ? expected + (level + 1) / 2 : expected - level / 2;
        if (level > ATTAR_LEVEL || (after_run && level == 0))
            return ATTAR_BAD_TABLE;
        levels[symbol++] = (uint16_t)level;
        after_run = level == 0;
        any |= (unsigned)level;
        if (after_run) {
            int32_t more = attar_golomb(&bits, 0);
            if (more < 0 || (uint32_t)more > alphabet - symbol)
                return ATTAR_BAD_TABLE;
            symbol += (unsigned)more;
        }
    }
    if (!any || bits.end - bits.at >= 8)
        return ATTAR_BAD_TABLE;
    while (bits.at < bits.end)
        if (attar_bit(&bits))
            return ATTAR_BAD_TABLE;
    return ATTAR_OK;
}

/* ---- 4.3 rANS: frequencies ---- */

/* Spread 2^k slots over `weights`, of which those of `sure` symbols get one in any case. */
ATTAR_API void attar_spread(attar_step *step, uint8_t *slots, unsigned k, unsigned alphabet, const uint64_t *weights,
                            const uint8_t *sure)
{
    uint64_t whole = 0, running = 0;
    uint32_t given = 0, all = 0, start = 0;
    unsigned symbol;
    for (symbol = 0; symbol < alphabet; symbol++) {
        whole += weights[symbol];
        all += sure[symbol];
    }
    step->slots = slots;
    for (symbol = 0; symbol < alphabet; symbol++) {
        uint32_t bound;
        running += weights[symbol];
        given += sure[symbol];
        bound = given + (uint32_t)(running * (((uint32_t)1 << k) - all) / whole);
        step->starts[symbol] = (uint16_t)start;
        step->frequencies[symbol] = (uint16_t)(bound - start);
        memset(slots + start, (int)symbol, bound - start);
        start = bound;
    }
}

ATTAR_API attar_status attar_open_rans(attar_table *table, const uint16_t *levels, uint16_t *work, size_t room)
{
    uint64_t weights[2][ATTAR_ALPHABET], whole = 0, rare_whole = 0;
    uint8_t sure[2][ATTAR_ALPHABET];
    uint8_t *slots = (uint8_t *)work;
    size_t size = (size_t)1 << table->bits;
    unsigned symbol, alphabet = table->alphabet;
    table->stand_in = -1;
    for (symbol = 0; symbol < alphabet; symbol++)
        whole += (uint64_t)levels[symbol] * levels[symbol];
    memset(sure, 0, sizeof sure);
    for (symbol = 0; symbol < alphabet; symbol++) {
        uint64_t weight = (uint64_t)levels[symbol] * levels[symbol];
        int rare = weight > 0 && weight * (size - 1) < whole;
        weights[0][symbol] = rare ? 0 : weight;
        weights[1][symbol] = rare ? weight : 0;
        sure[1][symbol] = (uint8_t)rare;
        rare_whole += rare ? weight : 0;
        if (rare && table->stand_in < 0)
            table->stand_in = (int)symbol;
    }
    if (room < (table->stand_in < 0 ? size : 2 * size) / 2)
        return ATTAR_NO_ROOM;
    if (table->stand_in >= 0) {
        weights[0][table->stand_in] = rare_whole;
        sure[0][table->stand_in] = 1;
        attar_spread(&table->steps[1], slots + size, table->bits, alphabet, weights[1], sure[1]);
    }
    attar_spread(&table->steps[0], slots, table->bits, alphabet, weights[0], sure[0]);
    return ATTAR_OK;
}

/* ---- 4.4 Huffman: codes ---- */

ATTAR_API attar_status attar_open_huffman(attar_table *table, const uint16_t *levels, uint16_t *work, size_t room)
{
    uint32_t whole = 0, code = 0;
    unsigned symbol, length, longest = 0;
    for (symbol = 0; symbol < table->alphabet; symbol++) {
        if (levels[symbol] > ATTAR_LONGEST + 1)
            return ATTAR_BAD_CODE;
        if (levels[symbol]) {
            length = levels[symbol] - 1u;
            whole += (uint32_t)1 << (ATTAR_LONGEST - length);
            longest = length > longest ? length : longest;
        }
    }
    if (whole != (uint32_t)1 << ATTAR_LONGEST)
        return ATTAR_BAD_CODE;
    if (room < (size_t)1 << longest)
        return ATTAR_NO_ROOM;
    table->bits = longest;
    table->codes = work;
    /* `code` counts through the codes of `longest` bits, of which a code of fewer has several; bits are read from the
       lowest, so it is mirrored. */
    for (length = 0; length <= longest; length++)
        for (symbol = 0; symbol < table->alphabet; symbol++) {
            uint32_t end = code + ((uint32_t)1 << (longest - length));
            if (levels[symbol] != length + 1)
                continue;
            for (; code < end; code++) {
                uint32_t mirrored = 0;
                unsigned place;
                for (place = 0; place < longest; place++)
                    mirrored |= (code >> place & 1) << (longest - 1 - place);
                work[mirrored] = (uint16_t)(length << 8 | symbol);
            }
        }
    return ATTAR_OK;
}

ATTAR_API unsigned attar_width(unsigned alphabet)
{
    unsigned width = 0;
    while ((alphabet - 1) >> width)
        width++;
    return width;
}

/* Read a table of `length` bytes for an alphabet of 1 to 256 symbols. `work` has room for `room` numbers and must stay
 * as long as the table is used. rANS takes 2^(k-1) of them, 2^k with rare symbols; Huffman 2^(longest code); raw 0. */
ATTAR_API attar_status attar_open_table(attar_table *table, attar_coder coder, const uint8_t *bytes, size_t length,
                                        unsigned alphabet, uint16_t *work, size_t room)
{
    uint16_t levels[ATTAR_ALPHABET];
    unsigned symbol, width, tag = 1;
    attar_status status;
    if (alphabet < 1 || alphabet > ATTAR_ALPHABET)
        return ATTAR_BAD_TABLE;
    width = attar_width(alphabet);
    table->coder = coder;
    table->alphabet = alphabet;
    table->bits = width;
    table->stand_in = -1;
    table->codes = 0;
    if (coder == ATTAR_RAW)
        return length ? ATTAR_BAD_TABLE : ATTAR_OK;
    if (length) {
        status = attar_read_levels(bytes, length, alphabet, levels, &tag);
        if (status != ATTAR_OK)
            return status;
        if (coder == ATTAR_HUFFMAN && tag)
            return ATTAR_BAD_CODE;
    } else {
        for (symbol = 0; symbol < alphabet; symbol++) {
            int shorter = symbol >= 2 * alphabet - (1u << width);
            levels[symbol] = (uint16_t)(coder == ATTAR_RANS ? 1 : width + 1 - (shorter ? 1u : 0u));
        }
    }
    table->bits = tag + 8;
    return coder == ATTAR_RANS ? attar_open_rans(table, levels, work, room)
                               : attar_open_huffman(table, levels, work, room);
}

/* ---- 4.1 Raw ---- */

ATTAR_API attar_status attar_decode_raw(const attar_table *table, const uint8_t *data, size_t length, uint8_t *symbols,
                                        size_t count)
{
    const unsigned width = table->bits, mask = (1u << width) - 1;
    unsigned largest = 0, place, size;
    uint64_t rest = 0;
    if (length != count / 8 * width + (count % 8 * width + 7) / 8)
        return ATTAR_BAD_LENGTH;
    /* Eight symbols are `width` bytes, of which eight are read at once while there are as many. */
    for (; count > 0; count -= size, symbols += size) {
        uint64_t eight = 0;
        size = count < 8 ? (unsigned)count : 8;
        if (length >= 8)
            for (place = 0; place < 8; place++)
                eight |= (uint64_t)data[place] << 8 * place;
        else
            for (place = 0; place < length; place++)
                eight |= (uint64_t)data[place] << 8 * place;
        for (place = 0; place < size; place++, eight >>= width) {
            unsigned symbol = (unsigned)eight & mask;
            symbols[place] = (uint8_t)symbol;
            largest = symbol > largest ? symbol : largest;
        }
        data += size * width / 8;
        length -= size * width / 8;
        rest = eight;
    }
    return largest >= table->alphabet ? ATTAR_BAD_SYMBOLS : rest ? ATTAR_BAD_PADDING : ATTAR_OK;
}

/* ---- 4.3 rANS: chunks ---- */

ATTAR_API uint32_t attar_word(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8;
}

/* Pop a symbol off a state, which takes no word yet. */
ATTAR_API uint8_t attar_pop(const attar_step *step, unsigned k, uint32_t *state)
{
    uint32_t slot = *state & (((uint32_t)1 << k) - 1);
    uint8_t symbol = step->slots[slot];
    *state = step->frequencies[symbol] * (*state >> k) + slot - step->starts[symbol];
    return symbol;
}

/* One step of a lane: pop a symbol off `x`, then take a word if the state is below 2^16. The word is moved in by
 * arithmetic, since a branch would be mispredicted every other time: `low` is all ones if the state is below, or 0. */
#define ATTAR_POP_LANE(lane)                                                                                           \
    do {                                                                                                               \
        uint32_t slot = x##lane & mask;                                                                                \
        uint8_t symbol = slots[slot];                                                                                  \
        uint32_t low;                                                                                                  \
        symbols[i + lane] = symbol;                                                                                    \
        x##lane = frequencies[symbol] * (x##lane >> k) + slot - starts[symbol];                                        \
        low = (uint32_t)(((uint64_t)x##lane - ATTAR_LOWEST) >> 32);                                                    \
        x##lane = x##lane << (16 & low) | (attar_word(at) & low);                                                      \
        at += 2 & low;                                                                                                 \
    } while (0)

/* Pop `count` symbols off eight lanes in turn; return where the next word is, 0 if words run out. */
ATTAR_LOOP const uint8_t *attar_pop_lanes(const attar_table *table, const uint8_t *at, const uint8_t *end, uint32_t *x,
                                          uint8_t *symbols, size_t count)
{
    const unsigned k = table->bits;
    const uint32_t mask = ((uint32_t)1 << k) - 1;
    const uint8_t *slots = table->steps[0].slots;
    const uint16_t *starts = table->steps[0].starts, *frequencies = table->steps[0].frequencies;
    /* Variables, not an array, so that compilers keep states in registers. */
    uint32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3], x4 = x[4], x5 = x[5], x6 = x[6], x7 = x[7];
    size_t i = 0;
    /* Eight symbols take eight words at most: while these are there, none needs a check. */
    for (; count - i >= ATTAR_LANES && end - at >= 2 * ATTAR_LANES; i += ATTAR_LANES) {
        ATTAR_POP_LANE(0);
        ATTAR_POP_LANE(1);
        ATTAR_POP_LANE(2);
        ATTAR_POP_LANE(3);
        ATTAR_POP_LANE(4);
        ATTAR_POP_LANE(5);
        ATTAR_POP_LANE(6);
        ATTAR_POP_LANE(7);
    }
    x[0] = x0;
    x[1] = x1;
    x[2] = x2;
    x[3] = x3;
    x[4] = x4;
    x[5] = x5;
    x[6] = x6;
    x[7] = x7;
    for (; i < count; i++) {
        uint32_t *state = &x[i % ATTAR_LANES];
        symbols[i] = attar_pop(&table->steps[0], k, state);
        if (*state < ATTAR_LOWEST) {
            if (at == end)
                return 0;
            *state = *state << 16 | attar_word(at);
            at += 2;
        }
    }
    return at;
}

/* Pop one symbol off a lane that takes a word only where one is left. */
ATTAR_API uint8_t attar_pop_one(const attar_step *step, unsigned k, uint32_t *state, const uint8_t **at,
                                const uint8_t *end)
{
    uint8_t symbol = attar_pop(step, k, state);
    if (*state < ATTAR_LOWEST && *at != end) {
        *state = *state << 16 | attar_word(*at);
        *at += 2;
    }
    return symbol;
}

/* Return whether one of eight symbols is `symbol`. */
ATTAR_API int attar_has(const uint8_t *symbols, uint8_t symbol)
{
    const uint64_t ones = ~(uint64_t)0 / 255;
    uint64_t eight;
    memcpy(&eight, symbols, sizeof eight);
    eight ^= ones * symbol; /* a byte of 0 where it is, and a borrow from it below */
    return ((eight - ones) & ~eight & ones << 7) != 0;
}

/* Replace stand-ins, which are few; return where the next word is. */
ATTAR_API const uint8_t *attar_pop_rare(const attar_table *table, const uint8_t *at, const uint8_t *end,
                                        uint32_t *state, uint8_t *symbols, size_t count)
{
    const uint8_t stand_in = (uint8_t)table->stand_in;
    size_t i = 0, stop;
    while (i < count) {
        stop = i + 8 < count ? i + 8 : count;
        if (stop == i + 8 && !attar_has(symbols + i, stand_in))
            i = stop;
        for (; i < stop; i++)
            if (symbols[i] == stand_in)
                symbols[i] = attar_pop_one(&table->steps[1], table->bits, state, &at, end);
    }
    return at;
}

ATTAR_API attar_status attar_decode_rans(const attar_table *table, const uint8_t *at, size_t length, uint8_t *symbols,
                                         size_t count)
{
    const uint8_t *end = at + length;
    uint32_t states[ATTAR_LANES] = {0}, rest = 0;
    unsigned lanes = 1, size, i;
    size_t place;
    if (count >= ATTAR_SMALL_CHUNK) {
        if (!length || (*at != 1 && *at != ATTAR_LANES))
            return ATTAR_BAD_LANES;
        lanes = *at++;
        length--;
    }
    size = lanes > 1 ? 4 * ATTAR_LANES : length < 4 ? (unsigned)length : 4 - (unsigned)(length % 2);
    if (length < size || (length - size) % 2)
        return ATTAR_BAD_LENGTH;
    for (i = 0; i < size; i++)
        states[i / 4] |= (uint32_t)at[i] << 8 * (i % 4);
    if (lanes == 1 && size && !at[size - 1])
        return ATTAR_BAD_STATE;
    for (i = 0; lanes > 1 && i < lanes; i++)
        if (states[i] < ATTAR_LOWEST)
            return ATTAR_BAD_STATE;
    at += size;
    if (lanes > 1) {
        at = attar_pop_lanes(table, at, end, states, symbols, count);
        if (!at)
            return ATTAR_BAD_SYMBOLS;
    } else {
        for (place = 0; place < count; place++)
            symbols[place] = attar_pop_one(&table->steps[0], table->bits, states, &at, end);
    }
    if (table->stand_in >= 0)
        at = attar_pop_rare(table, at, end, states, symbols, count);
    for (i = 0; i < lanes; i++)
        rest |= states[i] ^ (lanes > 1 ? ATTAR_LOWEST : 0);
    return at != end || rest ? ATTAR_BAD_SYMBOLS : ATTAR_OK;
}

/* ---- 4.4 Huffman: chunks ---- */

ATTAR_API attar_status attar_decode_huffman(const attar_table *table, const uint8_t *data, size_t length,
                                            uint8_t *symbols, size_t count)
{
    const uint8_t *end = data + length;
    uint32_t mask = ((uint32_t)1 << table->bits) - 1, held = 0;
    unsigned bits = 0, code;
    size_t i;
    for (i = 0; i < count; i++) {
        while (bits < ATTAR_LONGEST && data != end) {
            held |= (uint32_t)*data++ << bits;
            bits += 8;
        }
        code = table->codes[held & mask];
        if (code >> 8 > bits)
            return ATTAR_BAD_SYMBOLS;
        held >>= code >> 8;
        bits -= code >> 8;
        symbols[i] = (uint8_t)code;
    }
    return data != end || bits >= 8 || held ? ATTAR_BAD_SYMBOLS : ATTAR_OK;
}

/* ---- Chunks of a payload ---- */

/* Decode one chunk of at most ATTAR_CHUNK symbols (raw: a payload of any number). */
ATTAR_API attar_status attar_decode_chunk(const attar_table *table, const uint8_t *chunk, size_t length,
                                          uint8_t *symbols, size_t count)
{
    switch (table->coder) {
    case ATTAR_RANS:
        return attar_decode_rans(table, chunk, length, symbols, count);
    case ATTAR_HUFFMAN:
        return attar_decode_huffman(table, chunk, length, symbols, count);
    default:
        return attar_decode_raw(table, chunk, length, symbols, count);
    }
}

/* Return the length of a chunk, -1 if it is malformed, and move on. */
ATTAR_API int32_t attar_chunk_length(const uint8_t **at, const uint8_t *end)
{
    int32_t value = 0;
    unsigned place;
    for (place = 0; place < 4 && *at != end; place++) {
        uint8_t byte = *(*at)++;
        value |= (int32_t)(byte & 127) << 7 * place;
        if (byte < 128)
            return byte == 0 && place ? -1 : value;
    }
    return -1;
}

/* Decode a payload of `count` symbols. */
ATTAR_API attar_status attar_decode(const attar_table *table, const uint8_t *payload, size_t length, uint8_t *symbols,
                                    size_t count)
{
    const uint8_t *at = payload, *end = payload + length, *chunk = payload;
    size_t left = count;
    if (table->coder == ATTAR_RAW)
        return attar_decode_raw(table, payload, length, symbols, count);
    if (count == 0)
        return length ? ATTAR_BAD_LENGTH : ATTAR_OK;
    for (; left > ATTAR_CHUNK; left -= ATTAR_CHUNK)
        if (attar_chunk_length(&chunk, end) < 0)
            return ATTAR_BAD_LENGTH;
    for (; count > 0; count -= left, symbols += left) {
        size_t size = (size_t)(end - chunk);
        attar_status status;
        left = count > ATTAR_CHUNK ? ATTAR_CHUNK : count;
        if (count > ATTAR_CHUNK) {
            size_t said = (size_t)attar_chunk_length(&at, end);
            if (said > size)
                return ATTAR_BAD_LENGTH;
            size = said;
        }
        status = attar_decode_chunk(table, chunk, size, symbols, left);
        if (status != ATTAR_OK)
            return status;
        chunk += size;
    }
    return ATTAR_OK;
}

#endif
