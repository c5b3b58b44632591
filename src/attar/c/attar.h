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
 * An open table is only read, and threads may decode by it at once; but for one of the context coder, whose workspace
 * changes while it decodes.
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

typedef enum attar_coder { ATTAR_RAW, ATTAR_RANS, ATTAR_HUFFMAN, ATTAR_CONTEXT } attar_coder;

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
#define ATTAR_HEAD 11            /* bytes of a table of the context coder */
#define ATTAR_BUCKETS 32         /* of the context coder, at most */
#define ATTAR_MEANS 68           /* its counts by expected magnitude, 0 to 16, and expected value */
#define ATTAR_PLACES 256         /* its counts by position, or by two neighbours */
#define ATTAR_VALUES 32          /* its counts by expected value */
#define ATTAR_COUNTS (1 + ATTAR_MEANS + ATTAR_PLACES + ATTAR_VALUES)
#define ATTAR_RECENT 64          /* symbols of its running sum */
#define ATTAR_ONCE 16            /* what a symbol adds to a count */
#define ATTAR_FULL 60000         /* the total from which counts are halved */

/* One of the two coding steps of rANS. */
typedef struct attar_step {
    const uint8_t *slots; /* 2^k, the symbol of each */
    uint16_t starts[ATTAR_ALPHABET];
    uint16_t frequencies[ATTAR_ALPHABET];
} attar_step;

/* The table of the context coder. */
typedef struct attar_context {
    int center;               /* a symbol s stands for the value s - center */
    uint32_t row, width;      /* distances of neighbours */
    unsigned period;
    unsigned shift, buckets;  /* a bucket holds 2^shift values, the first from `lowest` */
    int lowest;
    int values[4];            /* weights in sixteenths of the expected value */
    uint32_t sizes[7];        /* weights in sixteenths of the expected magnitude */
} attar_context;

typedef struct attar_table {
    attar_coder coder;
    unsigned alphabet;     /* 1 to 256 */
    unsigned bits;         /* raw: of a symbol; rANS: k; Huffman: of the longest code */
    int stand_in;          /* rANS: the first rare symbol, -1 if none is */
    attar_step steps[2];   /* rANS */
    const uint16_t *codes; /* Huffman: length << 8 | symbol for the next `bits` bits */
    attar_context context;
    uint16_t *work;        /* context: its counts and columns */
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

/* ---- 4.5 Context ---- */

#if defined(__GNUC__)
#define ATTAR_INLINE static inline __attribute__((always_inline))
#else
#define ATTAR_INLINE static inline
#endif

ATTAR_INLINE unsigned attar_length(uint32_t value)
{
#if defined(__GNUC__)
    return value ? 32 - (unsigned)__builtin_clz(value) : 0;
#else
    unsigned length = 0;
    for (; value; value >>= 1)
        length++;
    return length;
#endif
}

ATTAR_INLINE uint32_t attar_size(int value)
{
    return (uint32_t)(value < 0 ? -value : value);
}

/* Read the table of the context coder: 11 bytes. */
ATTAR_API attar_status attar_open_context(attar_table *table, const uint8_t *bytes, size_t length)
{
    attar_context *c = &table->context;
    unsigned nibbles[12], i;
    int largest, highest = (int)table->alphabet - 1;
    if (length != ATTAR_HEAD)
        return ATTAR_BAD_TABLE;
    c->row = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
    c->width = bytes[2];
    c->period = bytes[3];
    c->center = bytes[4];
    for (i = 0; i < 12; i++)
        nibbles[i] = bytes[5 + i / 2] >> 4 * (i % 2) & 15;
    for (i = 0; i < 4; i++)
        c->values[i] = (int)(nibbles[i] ^ 8) - 8;
    for (i = 0; i < 7; i++)
        c->sizes[i] = nibbles[4 + i];
    c->shift = nibbles[11];
    if (!c->row || c->width < 2 || !c->period || c->period > 32 || c->center > highest || c->shift > 8)
        return ATTAR_BAD_TABLE;
    largest = c->center > highest - c->center ? c->center : highest - c->center;
    largest = largest > 1 ? largest : 1;
    c->lowest = -largest;
    c->buckets = (2u * (unsigned)largest >> c->shift) + 1;
    return c->buckets < 2 || c->buckets > ATTAR_BUCKETS ? ATTAR_BAD_TABLE : ATTAR_OK;
}

/* Adaptive counts of the buckets are `room` upper bounds, `room` counts, their total, and the number of symbols until the
 * bounds follow the counts; room is 16 where that is enough, else 32. The first are those of all symbols. */
ATTAR_INLINE size_t attar_record(unsigned room)
{
    return 2 * room + 2;
}

ATTAR_API unsigned attar_room(const attar_context *c)
{
    return c->buckets <= 16 ? 16 : ATTAR_BUCKETS;
}

/* Return the numbers that a workspace of the context coder should have: 12,138 or 23,562, and one for each column. */
ATTAR_API size_t attar_context_work(const attar_context *c)
{
    return ATTAR_COUNTS * attar_record(attar_room(c)) + c->row;
}

ATTAR_INLINE void attar_bound(uint16_t *counts, unsigned buckets, unsigned room)
{
    uint32_t running = 0, ratio = ((32768 - buckets) << 16) / counts[2 * room];
    unsigned s;
    for (s = 0; s < room; s++) {
        running += counts[room + s];
        /* No symbol reaches the bound of the last bucket, nor those behind it. */
        counts[s] = (uint16_t)(s + 1 < buckets ? (running * ratio >> 16) + s + 1 : 32767);
    }
}

/* Begin counts that were never used with three symbols' worth of those of all symbols. */
ATTAR_INLINE void attar_begin(uint16_t *counts, const uint16_t *all, unsigned buckets, unsigned room)
{
    uint32_t before = 0, bound, total = 0;
    unsigned s;
    memcpy(counts, all, room * sizeof *counts);
    for (s = 0; s < buckets; s++, before = bound) {
        bound = s + 1 < buckets ? all[s] : 32768;
        counts[room + s] = (uint16_t)(((bound - before) * (3 * ATTAR_ONCE) >> 15) + 1);
        total += counts[room + s];
    }
    counts[2 * room] = (uint16_t)total;
    counts[2 * room + 1] = 1;
}

ATTAR_INLINE void attar_count(uint16_t *counts, unsigned bucket, unsigned buckets, unsigned room)
{
    uint32_t total = 0, wait;
    unsigned s;
    counts[room + bucket] = (uint16_t)(counts[room + bucket] + ATTAR_ONCE);
    counts[2 * room] = (uint16_t)(counts[2 * room] + ATTAR_ONCE);
    if (--counts[2 * room + 1])
        return;
    if (counts[2 * room] > ATTAR_FULL) {
        for (s = 0; s < buckets; s++) {
            counts[room + s] = (uint16_t)((counts[room + s] + 1) >> 1);
            total += counts[room + s];
        }
        counts[2 * room] = (uint16_t)total;
    }
    attar_bound(counts, buckets, room);
    wait = counts[2 * room] / (8 * ATTAR_ONCE);
    counts[2 * room + 1] = (uint16_t)(wait < 1 ? 1 : wait > 128 ? 128 : wait);
}

/* What is known of the next symbol: its neighbours' values and magnitudes, sums, and where it is. */
typedef struct attar_sight {
    int left, up_right, up, up_left;
    uint32_t left_size, second_size, up_right_size, up_size, up_left_size, above_size;
    uint32_t recent, rows;
    uint32_t column;
    unsigned position, rate;
    uint16_t *columns;
    int negative;                    /* whether the expected value is: buckets then count downwards */
    uint16_t *mean, *place, *value;  /* the three counts that predict it */
} attar_sight;

ATTAR_INLINE void attar_reset(const attar_context *c, attar_sight *sight, uint16_t *work, unsigned room)
{
    unsigned s;
    memset(sight, 0, sizeof *sight);
    memset(work, 0, attar_context_work(c) * sizeof *work);
    sight->columns = work + ATTAR_COUNTS * attar_record(room);
    sight->rate = 1;
    for (s = 0; s < c->buckets; s++)
        work[room + s] = 2;
    work[2 * room] = (uint16_t)(2 * c->buckets);
    work[2 * room + 1] = 1;
    attar_bound(work, c->buckets, room);
}

/* Look at symbol i, whose neighbours lie before it. */
ATTAR_INLINE void attar_look(const attar_context *c, attar_sight *sight, uint16_t *work, const uint8_t *symbols, size_t i,
                             unsigned room)
{
    const size_t record = attar_record(room);
    const int *v = c->values;
    const uint32_t *w = c->sizes;
    uint32_t size, expected;
    unsigned level, coarse, ratio, place, near;
    int value, x, y;
    sight->second_size = sight->left_size;
    sight->up_left = sight->up;
    sight->up_left_size = sight->up_size;
    sight->up = sight->up_right;
    sight->up_size = sight->up_right_size;
    sight->left = i ? (int)symbols[i - 1] - c->center : 0;
    sight->left_size = attar_size(sight->left);
    sight->up_right = i + 1 < c->width ? 0 : (int)symbols[i + 1 - c->width] - c->center;
    sight->up_right_size = attar_size(sight->up_right);
    sight->above_size = i < c->row ? 0 : attar_size((int)symbols[i - c->row] - c->center);
    sight->recent += sight->left_size;
    if (i > ATTAR_RECENT)
        sight->recent -= attar_size((int)symbols[i - 1 - ATTAR_RECENT] - c->center);

    value = v[0] * sight->left + v[1] * sight->up + v[2] * sight->up_right + v[3] * sight->up_left;
    size = 64 * (w[0] * sight->left_size + w[1] * sight->second_size + w[2] * sight->up_size
                 + w[3] * (sight->up_right_size + sight->up_left_size) + w[4] * sight->above_size)
           + w[5] * sight->recent + (w[6] * sight->columns[sight->column] >> 2);
    sight->negative = value < 0;
    expected = attar_size(value) << 6;
    level = attar_length(size >> (c->shift + 1));
    ratio = (unsigned)(2 * expected >= size + 16) + (expected >= size + 16) + (2 * expected >= 3 * size + 16);
    coarse = level < 2 ? 0 : (level - 2) / 2;
    place = 8 * sight->position + coarse;
    if (c->period == 1) {
        x = (sight->negative ? -sight->left : sight->left) + (256 << c->shift);
        y = (sight->negative ? -sight->up : sight->up) + (256 << c->shift);
        x = (x >> c->shift) - 256;
        y = (y >> c->shift) - 256;
        x = x < -5 ? -5 : x > 5 ? 5 : x;
        y = y < -5 ? -5 : y > 5 ? 5 : y;
        place = (unsigned)(11 * (x + 5) + y + 5);
    }
    near = attar_size(value) >> (c->shift + 1);
    near = near < ATTAR_VALUES ? near : ATTAR_VALUES - 1;
    sight->mean = work + (1 + 4 * level + ratio) * record;
    sight->place = work + (1 + ATTAR_MEANS + place) * record;
    sight->value = work + (1 + ATTAR_MEANS + ATTAR_PLACES + near) * record;
    if (!sight->mean[2 * room])
        attar_begin(sight->mean, work, c->buckets, room);
    if (!sight->place[2 * room])
        attar_begin(sight->place, work, c->buckets, room);
    if (!sight->value[2 * room])
        attar_begin(sight->value, work, c->buckets, room);
}

/* The upper bound of a bucket, of 2^16: the mean of three. */
ATTAR_INLINE uint32_t attar_upper(const attar_sight *sight, unsigned bucket)
{
    return sight->mean[bucket] + ((uint32_t)(sight->place[bucket] + sight->value[bucket]) >> 1);
}

ATTAR_INLINE void attar_learn(const attar_context *c, attar_sight *sight, uint16_t *work, unsigned bucket, uint32_t size,
                              unsigned room)
{
    uint16_t *column = &sight->columns[sight->column];
    attar_count(work, bucket, c->buckets, room);
    attar_count(sight->mean, bucket, c->buckets, room);
    attar_count(sight->place, bucket, c->buckets, room);
    attar_count(sight->value, bucket, c->buckets, room);
    /* The column's mean, in units of 1/256; a difference is rounded down. */
    *column = (uint16_t)(size << 8 >= *column ? *column + (((size << 8) - *column) >> sight->rate)
                                              : *column - ((*column - (size << 8) + (1u << sight->rate) - 1) >> sight->rate));
    if (++sight->position == c->period)
        sight->position = 0;
    if (++sight->column == c->row) {
        sight->column = 0;
        sight->rows++;
        sight->rate = attar_length(sight->rows + 1);
        sight->rate = sight->rate < 5 ? sight->rate : 5;
    }
}

/* Take a word where the state is below 2^16 and one is left. */
#define ATTAR_TAKE(x, at, end)                                                                                         \
    do {                                                                                                               \
        if ((x) < ATTAR_LOWEST && (at) != (end)) {                                                                     \
            (x) = (x) << 16 | attar_word(at);                                                                          \
            (at) += 2;                                                                                                 \
        }                                                                                                              \
    } while (0)

ATTAR_INLINE attar_status attar_decode_buckets(const attar_context *c, unsigned alphabet, uint16_t *work,
                                               const uint8_t *at, const uint8_t *end, uint32_t x, uint8_t *symbols,
                                               size_t count, const unsigned room)
{
    const unsigned buckets = c->buckets, shift = c->shift, zero = (unsigned)-c->lowest >> shift;
    attar_sight sight;
    size_t i;
    attar_reset(c, &sight, work, room);
    for (i = 0; i < count; i++) {
        uint16_t upper[ATTAR_BUCKETS], slot = (uint16_t)x, below = 0;
        unsigned s, bucket, place;
        uint32_t from, to;
        int value;
        attar_look(c, &sight, work, symbols, i, room);
        /* Where zero is likely its bounds alone are compared: the branch is predicted, and the next symbol's context with
           it. Elsewhere all are, without one. */
        if (!shift && zero && sight.mean[zero] - sight.mean[zero - 1] > 20000) {
            from = attar_upper(&sight, zero - 1);
            to = zero + 1 < buckets ? attar_upper(&sight, zero) : 65536;
            if (slot >= from && slot < to) {
                x = (to - from) * (x >> 16) + slot - from;
                ATTAR_TAKE(x, at, end);
                symbols[i] = (uint8_t)c->center;
                attar_learn(c, &sight, work, zero, 0, room);
                continue;
            }
        }
        for (s = 0; s < room; s++)
            upper[s] = (uint16_t)attar_upper(&sight, s);
        for (s = 0; s < room; s++)
            below = (uint16_t)(below + (upper[s] <= slot));
        bucket = below < buckets - 1 ? below : buckets - 1;
        from = bucket ? upper[bucket - 1] : 0;
        to = bucket < buckets - 1 ? upper[bucket] : 65536;
        x = (to - from) * (x >> 16) + slot - from;
        ATTAR_TAKE(x, at, end);
        place = bucket << shift;
        if (shift) {
            place |= x & ((1u << shift) - 1);
            x >>= shift;
            ATTAR_TAKE(x, at, end);
        }
        value = (int)place + c->lowest;
        value = (sight.negative ? -value : value) + c->center;
        if (value < 0 || value >= (int)alphabet)
            return ATTAR_BAD_SYMBOLS;
        symbols[i] = (uint8_t)value;
        attar_learn(c, &sight, work, bucket, attar_size(value - c->center), room);
    }
    return at != end || x ? ATTAR_BAD_SYMBOLS : ATTAR_OK;
}

ATTAR_LOOP attar_status attar_decode_context(const attar_table *table, const uint8_t *chunk, size_t length,
                                             uint8_t *symbols, size_t count)
{
    const unsigned size = length < 4 ? (unsigned)length : 4 - (unsigned)(length % 2);
    uint32_t state = 0;
    unsigned i;
    for (i = 0; i < size; i++)
        state |= (uint32_t)chunk[i] << 8 * i;
    if (size && !chunk[size - 1])
        return ATTAR_BAD_STATE;
    return attar_room(&table->context) == 16
               ? attar_decode_buckets(&table->context, table->alphabet, table->work, chunk + size, chunk + length, state,
                                      symbols, count, 16)
               : attar_decode_buckets(&table->context, table->alphabet, table->work, chunk + size, chunk + length, state,
                                      symbols, count, ATTAR_BUCKETS);
}

/* ---- Opening a table ---- */

/* Read a table of `length` bytes for an alphabet of 1 to 256 symbols. `work` has room for `room` numbers and must stay
 * as long as the table is used. rANS takes 2^(k-1) of them, 2^k with rare symbols; Huffman 2^(longest code); raw none. */
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
    if (coder == ATTAR_CONTEXT) {
        table->work = work;
        status = attar_open_context(table, bytes, length);
        return status != ATTAR_OK ? status : room < attar_context_work(&table->context) ? ATTAR_NO_ROOM : ATTAR_OK;
    }
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
    case ATTAR_CONTEXT:
        return attar_decode_context(table, chunk, length, symbols, count);
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
