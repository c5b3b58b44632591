/* attar.h: reads .attar files. The format is docs/format.md; sections below are sections of that page. Its first part
 * decodes codes by tables (section 4); the second, from "Files" on, opens files and reads their tensors by the first
 * (sections 1 to 3). docs/c.md tells how to use it:
 *
 *     static uint8_t text[4096];         // the manifest, see attar_measure
 *     static uint16_t work[ATTAR_WORK];  // 64 KiB; most tensors take less, see attar_work
 *     attar_file file;
 *     attar_tensor tensor;
 *     if (attar_open(&file, data, length, text, sizeof text, 0) == ATTAR_OK)
 *         while (attar_next(&file, &tensor) == ATTAR_OK)
 *             attar_read_values(&tensor, floats, sizeof floats, work, ATTAR_WORK);
 *
 * C99 in one header: no allocation, nothing of the C library but memcpy and memset, no access that depends on alignment
 * or byte order, no undefined behaviour; for processors of 32 bits or more. It reads hostile bytes: what the page says
 * a decoder MUST refuse gives a status other than ATTAR_OK, and nothing beyond the given bytes is read, nothing beyond
 * the given buffers written. After a refusal the output has no meaning. Pointers must not be null, even where a length
 * is 0.
 *
 * Codes alone, as Python's extension decodes them:
 *
 *     static attar_table table;          // 2 KiB; opening it takes 4 KiB of stack
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
    ATTAR_BAD_PADDING, /* 4.1: bits are set after the last symbol */
    ATTAR_END,         /* there are no more tensors, or none of this name */
    ATTAR_NO_FILE,     /* 1.1: these bytes are no .attar file */
    ATTAR_NEW_VERSION, /* 1.1: they are one of a version that this header cannot read */
    ATTAR_CUT,         /* 1.2: the end is missing */
    ATTAR_DAMAGED,     /* a checksum or the digest does not match */
    ATTAR_BAD_LAYOUT,  /* 1: lengths and positions of the parts of a file contradict each other */
    ATTAR_BAD_DEFLATE, /* 2: the manifest cannot be inflated to its length */
    ATTAR_BAD_JSON,    /* 2: it is no JSON, or nested too deep */
    ATTAR_BAD_MANIFEST, /* 2, 3: a record of tables, sections or tensors is not as it must be */
    ATTAR_TOO_LARGE,   /* 7: there are too many elements */
    ATTAR_BAD_VALUES,  /* 3: a scale, offset, point, zero point, bool or bias is out of its range */
    ATTAR_WRONG_KIND   /* the tensor has not what was asked for */
} attar_status;

typedef enum attar_coder { ATTAR_RAW, ATTAR_RANS, ATTAR_HUFFMAN, ATTAR_CONTEXT } attar_coder;

#define ATTAR_ALPHABET 256     /* symbols at most */
#define ATTAR_WORK 32768       /* numbers of a workspace that is enough but for context tables of rows above 8,849 */
#define ATTAR_CHUNK 524288     /* 2^19, symbols of every chunk but the last */
#define ATTAR_SMALL_CHUNK 4096 /* a chunk of fewer symbols has one lane */
#define ATTAR_LANES 8
#define ATTAR_LOWEST 65536u    /* 2^16, the least state of each of 8 lanes */
#define ATTAR_TABLE_BYTES 1024
#define ATTAR_LEVEL 4095       /* the largest */
#define ATTAR_LONGEST 15       /* bits of a Huffman code */
#define ATTAR_EXPONENT 16      /* the largest of a Golomb code */
#define ATTAR_HEAD 11            /* bytes of a table of the context coder */
#define ATTAR_BUCKETS 33         /* of the context coder, at most */
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
    unsigned apart, zero;     /* whether zero is alone in the last bucket; a bucket that holds zero alone, 0 if none does */
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
ATTAR_API void attar_spread(attar_step *step, uint8_t *slots, unsigned k, unsigned alphabet, const uint32_t *weights,
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
    uint32_t weights[2][ATTAR_ALPHABET], rare_whole = 0; /* 255 weights below a 511th of the sum fit into 32 bits */
    uint64_t whole = 0;
    uint8_t sure[2][ATTAR_ALPHABET];
    uint8_t *slots = (uint8_t *)work;
    size_t size = (size_t)1 << table->bits;
    unsigned symbol, alphabet = table->alphabet;
    table->stand_in = -1;
    for (symbol = 0; symbol < alphabet; symbol++)
        whole += (uint64_t)levels[symbol] * levels[symbol];
    memset(sure, 0, sizeof sure);
    for (symbol = 0; symbol < alphabet; symbol++) {
        uint32_t weight = (uint32_t)levels[symbol] * levels[symbol];
        int rare = weight > 0 && (uint64_t)weight * (size - 1) < whole;
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
ATTAR_API attar_status attar_open_context(attar_context *c, const uint8_t *bytes, size_t length, unsigned alphabet)
{
    unsigned nibbles[12], i;
    int largest, highest = (int)alphabet - 1;
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
    c->apart = c->shift > 8;
    c->shift -= c->apart ? 8 : 0;
    if (!c->row || c->width < 2 || !c->period || c->period > 32 || c->center > highest)
        return ATTAR_BAD_TABLE;
    largest = c->center > highest - c->center ? c->center : highest - c->center;
    largest = largest > 1 ? largest : 1;
    if (c->apart) /* whole buckets on either side of zero */
        largest = (((largest - 1) >> c->shift) + 1) << c->shift;
    c->lowest = -largest;
    c->buckets = (2u * (unsigned)largest >> c->shift) + 1;
    c->zero = c->apart ? c->buckets - 1 : c->shift ? 0 : (unsigned)largest;
    return c->buckets < 2 || c->buckets > ATTAR_BUCKETS ? ATTAR_BAD_TABLE : ATTAR_OK;
}

/* Adaptive counts of the buckets are `room` upper bounds, which the last bucket needs none of, `room` + 1 counts, the number
 * of symbols until the bounds follow the counts, and the counts' total then; room is 16 where that is enough, else 32. The
 * first are those of all symbols. */
ATTAR_INLINE size_t attar_record(unsigned room)
{
    return 2 * room + 3;
}

ATTAR_API unsigned attar_room(const attar_context *c)
{
    return c->buckets <= 17 ? 16 : ATTAR_BUCKETS - 1;
}

/* Return the numbers that a workspace of the context coder should have: 12,495 or 23,919, and one for each column. */
ATTAR_API size_t attar_context_work(const attar_context *c)
{
    return ATTAR_COUNTS * attar_record(attar_room(c)) + c->row;
}

/* Have the bounds follow the counts, whose total is given, until as many symbols have come as a tenth of it stands for. */
ATTAR_INLINE void attar_bound(uint16_t *counts, uint32_t total, unsigned buckets, unsigned room)
{
    uint32_t running = 0, ratio = ((32768 - buckets) << 16) / total, wait = total / (8 * ATTAR_ONCE);
    unsigned s;
    for (s = 0; s < room; s++) {
        running += counts[room + s];
        /* No symbol reaches the bound of the last bucket, nor those behind it. */
        counts[s] = (uint16_t)(s + 1 < buckets ? (running * ratio >> 16) + s + 1 : 32767);
    }
    wait = wait < 1 ? 1 : wait > 128 ? 128 : wait;
    counts[2 * room + 1] = (uint16_t)wait;
    counts[2 * room + 2] = (uint16_t)(total + wait * ATTAR_ONCE);
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
    counts[2 * room + 1] = 1;
    counts[2 * room + 2] = (uint16_t)(total + ATTAR_ONCE);
}

ATTAR_INLINE void attar_count(uint16_t *counts, unsigned bucket, unsigned buckets, unsigned room)
{
    uint32_t total;
    unsigned s;
    counts[room + bucket] = (uint16_t)(counts[room + bucket] + ATTAR_ONCE);
    if (--counts[2 * room + 1])
        return;
    total = counts[2 * room + 2];
    if (total > ATTAR_FULL)
        for (total = 0, s = 0; s < buckets; s++) {
            counts[room + s] = (uint16_t)((counts[room + s] + 1) >> 1);
            total += counts[room + s];
        }
    attar_bound(counts, total, buckets, room);
}

/* What is known of the next symbol: its neighbours' values and magnitudes, sums, and where it is. */
typedef struct attar_sight {
    int left, up_right, up, up_left;
    uint32_t left_size, second_size, up_right_size, up_size, up_left_size, above_size;
    uint32_t recent, rows;
    uint32_t column;
    unsigned position, rate;
    uint16_t *columns;
    int turned;                      /* -1 if the expected value is negative: buckets then count downwards; else 0 */
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
    attar_bound(work, 2 * c->buckets, c->buckets, room);
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
    sight->up_left = sight->up;
    sight->up_left_size = sight->up_size;
    sight->up = sight->up_right;
    sight->up_size = sight->up_right_size;
    sight->up_right = i + 1 < c->width ? 0 : (int)symbols[i + 1 - c->width] - c->center;
    sight->up_right_size = attar_size(sight->up_right);
    sight->above_size = i < c->row ? 0 : attar_size((int)symbols[i - c->row] - c->center);
    if (i > ATTAR_RECENT)
        sight->recent -= attar_size((int)symbols[i - 1 - ATTAR_RECENT] - c->center);

    /* What the last symbol tells is added last, as it is known last. */
    value = v[1] * sight->up + v[2] * sight->up_right + v[3] * sight->up_left;
    size = 64 * (w[1] * sight->second_size + w[2] * sight->up_size
                 + w[3] * (sight->up_right_size + sight->up_left_size) + w[4] * sight->above_size)
           + w[5] * sight->recent + (w[6] * sight->columns[sight->column] >> 2);
    value += v[0] * sight->left;
    size += (64 * w[0] + w[5]) * sight->left_size;
    sight->recent += sight->left_size;
    sight->turned = -(value < 0);
    expected = attar_size(value) << 6;
    level = attar_length(size >> (c->shift + 1));
    ratio = (unsigned)(2 * expected >= size + 16) + (expected >= size + 16) + (2 * expected >= 3 * size + 16);
    coarse = level < 2 ? 0 : (level - 2) / 2;
    place = 8 * sight->position + coarse;
    if (c->period == 1) {
        x = ((sight->left ^ sight->turned) - sight->turned) + (256 << c->shift);
        y = ((sight->up ^ sight->turned) - sight->turned) + (256 << c->shift);
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
    if (!sight->mean[2 * room + 2])
        attar_begin(sight->mean, work, c->buckets, room);
    if (!sight->place[2 * room + 2])
        attar_begin(sight->place, work, c->buckets, room);
    if (!sight->value[2 * room + 2])
        attar_begin(sight->value, work, c->buckets, room);
}

/* The upper bound of a bucket, of 2^16: the mean of three. */
ATTAR_INLINE uint32_t attar_upper(const attar_sight *sight, unsigned bucket)
{
    return sight->mean[bucket] + ((uint32_t)(sight->place[bucket] + sight->value[bucket]) >> 1);
}

ATTAR_INLINE void attar_learn(const attar_context *c, attar_sight *sight, uint16_t *work, unsigned bucket, int value,
                              unsigned room)
{
    uint16_t *column = &sight->columns[sight->column];
    const uint32_t size = attar_size(value);
    attar_count(work, bucket, c->buckets, room);
    attar_count(sight->mean, bucket, c->buckets, room);
    attar_count(sight->place, bucket, c->buckets, room);
    attar_count(sight->value, bucket, c->buckets, room);
    sight->second_size = sight->left_size;
    sight->left = value;
    sight->left_size = size;
    /* The column's mean, in units of 1/256; a difference is rounded down, and made positive for that, for a branch would be
       mispredicted. */
    *column = (uint16_t)(*column + (((size << 8) + 65536 - *column) >> sight->rate) - (65536u >> sight->rate));
    if (++sight->position == c->period)
        sight->position = 0;
    if (++sight->column == c->row) {
        sight->column = 0;
        sight->rows++;
        sight->rate = attar_length(sight->rows + 1);
        sight->rate = sight->rate < 5 ? sight->rate : 5;
    }
}

/* Take a word where the state is below 2^16 and one is left, by arithmetic as above. */
#define ATTAR_TAKE(x, at, end)                                                                                         \
    do {                                                                                                               \
        if ((at) != (end)) {                                                                                           \
            const uint32_t low = (uint32_t)(((uint64_t)(x) - ATTAR_LOWEST) >> 32);                                     \
            (x) = (x) << (16 & low) | (attar_word(at) & low);                                                          \
            (at) += 2 & low;                                                                                           \
        }                                                                                                              \
    } while (0)

ATTAR_INLINE attar_status attar_decode_buckets(const attar_context *c, unsigned alphabet, uint16_t *work,
                                               const uint8_t *at, const uint8_t *end, uint32_t x, uint8_t *symbols,
                                               size_t count, const unsigned room)
{
    const unsigned buckets = c->buckets, shift = c->shift, apart = c->apart, zero = c->zero;
    attar_sight sight;
    size_t i;
    attar_reset(c, &sight, work, room);
    for (i = 0; i < count; i++) {
        uint16_t upper[ATTAR_BUCKETS], slot = (uint16_t)x, below = 0;
        unsigned s, bucket, place;
        uint32_t from, to;
        int value;
        attar_look(c, &sight, work, symbols, i, room);
        /* Where zero is likelier than not its bounds alone are compared: the branch is predicted, and the next symbol's context with
           it. Elsewhere all are, without one. */
        if (zero && (apart ? 32768 : sight.mean[zero]) - sight.mean[zero - 1] > 16384) {
            from = attar_upper(&sight, zero - 1);
            to = apart ? 65536 : attar_upper(&sight, zero);
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
        value = 0;
        if (!apart || bucket != zero) {
            place = bucket << shift;
            if (shift) {
                place |= x & ((1u << shift) - 1);
                x >>= shift;
                ATTAR_TAKE(x, at, end);
            }
            value = (int)place + c->lowest;
            value += apart && value >= 0;
        }
        value = (value ^ sight.turned) - sight.turned;
        if (value + c->center < 0 || value + c->center >= (int)alphabet)
            return ATTAR_BAD_SYMBOLS;
        symbols[i] = (uint8_t)(value + c->center);
        attar_learn(c, &sight, work, bucket, value, room);
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
                                      symbols, count, ATTAR_BUCKETS - 1);
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
        status = attar_open_context(&table->context, bytes, length, alphabet);
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

/* ======== Files ======== */

#ifndef ATTAR_ELEMENTS
#define ATTAR_ELEMENTS 268435456 /* 2^28, elements of all tensors of a file, at most (section 7) */
#endif
#define ATTAR_MINOR 4            /* the latest minor version that is read */
#define ATTAR_COMPACT 4          /* the first without padding and records of sections (2.1) */
#define ATTAR_AXES 16
#define ATTAR_HEADER 16
#define ATTAR_FOOTER 64
#define ATTAR_DEPTH 32           /* of JSON */
#define ATTAR_TEXT 16777216      /* 16 MiB, the longest manifest */

typedef enum attar_type {
    ATTAR_F32,
    ATTAR_F16,
    ATTAR_BF16,
    ATTAR_I64,
    ATTAR_I32,
    ATTAR_I16,
    ATTAR_I8,
    ATTAR_U8,
    ATTAR_BOOL
} attar_type;

typedef enum attar_kind { ATTAR_DENSE, ATTAR_QUANTIZED, ATTAR_CODEBOOK, ATTAR_SPARSE, ATTAR_STEPS } attar_kind;

typedef enum attar_sharing {
    ATTAR_PER_TENSOR,
    ATTAR_PER_CHANNEL,
    ATTAR_PER_GROUP,
    ATTAR_PER_BUCKET,
    ATTAR_PER_BLOCK
} attar_sharing;

/* An open file. Its bytes and its manifest, in the caller's memory, must stay as they are while it is used. */
typedef struct attar_file {
    const uint8_t *data;
    size_t length;
    unsigned minor;
    size_t manifest;          /* where it starts in the file */
    uint8_t *tables;          /* records of 8 bytes, see attar_open_tables */
    size_t table_count, tables_at, tensors_at;
    uint8_t *sections;        /* before 1.4: records of 8 bytes, see attar_open_sections */
    size_t section_count;
    const uint8_t *tensors, *aliases; /* JSON; 0 if there is none */
    const uint8_t *next;      /* the record that attar_next reads, 0 at the end */
    size_t at;                /* since 1.4: where its streams start */
} attar_file;

/* Some bytes of a tensor: values, or symbols of a coder. */
typedef struct attar_stream {
    const uint8_t *data;
    size_t length;
    attar_coder coder;
    unsigned alphabet;
    int table;                /* its index, -1 for none */
    attar_type type;          /* of scales and offsets */
    int coded;                /* whether these are (base + code) * 2^shift, each code below `alphabet` */
    int32_t base;
    unsigned shift;
} attar_stream;

/* The streams of a tensor, in the order of the file, those it has. */
enum attar_part {
    ATTAR_MASK,
    ATTAR_DATA,
    ATTAR_POINTS,
    ATTAR_SCALE,
    ATTAR_OFFSET,
    ATTAR_ZERO_POINT,
    ATTAR_CODES,
    ATTAR_PARTS
};

typedef struct attar_tensor {
    const attar_file *file;
    const char *name;         /* in UTF-8, as JSON writes it: a quote or backslash has a backslash before it */
    size_t name_length;       /* there is no 0 at its end */
    unsigned axes;
    uint32_t shape[ATTAR_AXES];
    size_t elements, counted; /* counted: with axes of 0 as axes of 1, against the limit */
    attar_kind kind;
    attar_kind inner;         /* of a sparse tensor: the kind of its values; else the same as `kind` */
    attar_type stored;        /* of a dense tensor, or dense values of a sparse one */
    attar_type type;          /* of what attar_read_values writes: ATTAR_F32 or a type of integers */
    unsigned bits;            /* of a quantized tensor */
    int symmetric, lowest;    /* whether its codes are signed, and the least of them */
    size_t scale_count;       /* numbers of scales, and of offsets or zero points; of a sparse tensor 0 */
    attar_sharing sharing;    /* which elements share a scale */
    unsigned axis;
    uint32_t size, sizes[ATTAR_AXES]; /* of a group or bucket, of a block */
    size_t inside;            /* elements from one index of `axis` to the next */
    const uint8_t *weight;    /* JSON: the name of the weight that steps are of */
    uint32_t input_scale;     /* of steps, the bits of a float32 */
    attar_stream streams[ATTAR_PARTS];
} attar_tensor;

ATTAR_API uint32_t attar_u32(const uint8_t *bytes)
{
    return attar_word(bytes) | attar_word(bytes + 2) << 16;
}

ATTAR_API uint64_t attar_u64(const uint8_t *bytes)
{
    return attar_u32(bytes) | (uint64_t)attar_u32(bytes + 4) << 32;
}

ATTAR_API void attar_put(uint8_t *bytes, size_t number)
{
    unsigned place;
    for (place = 0; place < 4; place++)
        bytes[place] = (uint8_t)(number >> 8 * place);
}

/* ---- 1 Layout: checksums ---- */

/* Return the CRC-32 of some bytes after others, whose CRC-32 is `crc` (0 for none). */
ATTAR_API uint32_t attar_crc32(uint32_t crc, const uint8_t *data, size_t length)
{
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc = ~crc;
    while (length--) {
        crc ^= *data++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

ATTAR_API uint64_t attar_rotated(uint64_t x, unsigned bits)
{
    return x >> bits | x << (64 - bits);
}

/* BLAKE2b (RFC 7693): take up a block of 128 bytes, of which `length` end the message so far. */
ATTAR_API void attar_blake_block(uint64_t *state, const uint8_t *block, uint64_t length, int last)
{
    static const uint64_t start[8] = {
        UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b),
        UINT64_C(0xa54ff53a5f1d36f1), UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f),
        UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179)};
    static const uint8_t order[10][17] = {
        "\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17",   "\16\12\4\10\11\17\15\6\1\14\0\2\13\7\5\3",
        "\13\10\14\0\5\2\17\15\12\16\3\6\7\1\11\4",   "\7\11\3\1\15\14\13\16\2\6\5\12\4\0\17\10",
        "\11\0\5\7\2\4\12\17\16\1\13\14\6\10\3\15",   "\2\14\6\12\0\13\10\3\4\15\7\5\17\16\1\11",
        "\14\5\1\17\16\15\4\12\0\7\6\3\11\2\10\13",   "\15\13\7\16\14\1\3\11\5\0\17\4\10\6\2\12",
        "\6\17\16\11\13\3\0\10\14\2\15\7\1\4\12\5",   "\12\2\10\4\7\6\1\5\17\13\11\16\3\14\15\0"};
    uint64_t v[16];
    unsigned round, i;
    for (i = 0; i < 8; i++) {
        v[i] = state[i];
        v[i + 8] = start[i];
    }
    v[12] ^= length;
    v[14] ^= last ? ~UINT64_C(0) : 0;
    for (round = 0; round < 12; round++)
        for (i = 0; i < 8; i++) {
            /* Four columns, then four diagonals, of a square of 4 x 4. */
            const unsigned turn = i < 4 ? 0 : 1, a = i % 4, b = 4 + (a + turn) % 4;
            const unsigned c = 8 + (a + 2 * turn) % 4, d = 12 + (a + 3 * turn) % 4;
            const uint8_t *pair = order[round % 10] + 2 * i;
            v[a] += v[b] + attar_u64(block + 8 * pair[0]);
            v[d] = attar_rotated(v[d] ^ v[a], 32);
            v[c] += v[d];
            v[b] = attar_rotated(v[b] ^ v[c], 24);
            v[a] += v[b] + attar_u64(block + 8 * pair[1]);
            v[d] = attar_rotated(v[d] ^ v[a], 16);
            v[c] += v[d];
            v[b] = attar_rotated(v[b] ^ v[c], 63);
        }
    for (i = 0; i < 8; i++)
        state[i] ^= v[i] ^ v[i + 8];
}

/* Return whether the digest in the footer is that of the bytes before it. */
ATTAR_API int attar_digest_matches(const uint8_t *data, size_t length)
{
    const size_t stop = length - ATTAR_FOOTER + 32;
    uint64_t state[8] = {UINT64_C(0x6a09e667f3bcc908) ^ 0x01010010, UINT64_C(0xbb67ae8584caa73b),
                         UINT64_C(0x3c6ef372fe94f82b), UINT64_C(0xa54ff53a5f1d36f1), UINT64_C(0x510e527fade682d1),
                         UINT64_C(0x9b05688c2b3e6c1f), UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179)};
    uint8_t rest[128] = {0};
    size_t at = 0;
    for (; stop - at > 128; at += 128)
        attar_blake_block(state, data + at, at + 128, 0);
    memcpy(rest, data + at, stop - at);
    attar_blake_block(state, rest, stop, 1);
    return attar_u64(data + stop) == state[0] && attar_u64(data + stop + 8) == state[1];
}

/* ---- 1 Layout: header and footer ---- */

ATTAR_API int attar_equal(const uint8_t *bytes, const char *others, size_t count)
{
    size_t i = 0;
    while (i < count && bytes[i] == (uint8_t)others[i])
        i++;
    return i == count;
}

/* Check header and footer, and find the length of the inflated manifest: the bytes of memory that attar_open takes. */
ATTAR_API attar_status attar_measure(const uint8_t *data, size_t length, size_t *room)
{
    const uint8_t *footer;
    uint64_t start, stop;
    if (length < ATTAR_HEADER + ATTAR_FOOTER || !attar_equal(data, "\x89" "ATR\r\n\x1a\n", 8))
        return ATTAR_NO_FILE;
    if (attar_word(data + 8) != 1 || attar_word(data + 10) > ATTAR_MINOR || attar_u32(data + 12))
        return ATTAR_NEW_VERSION;
    stop = length - ATTAR_FOOTER;
    footer = data + stop;
    start = attar_u64(footer);
    if (!attar_equal(footer + 48, "ATTAR-END-OF-FIL", 16))
        return ATTAR_CUT;
    if (stop > UINT32_MAX || start < ATTAR_HEADER || start > stop || attar_u64(footer + 8) != stop - start
        || attar_u32(footer + 28) || (attar_word(data + 10) < ATTAR_COMPACT && start % 64)
        || attar_u64(footer + 16) > ATTAR_TEXT)
        return ATTAR_BAD_LAYOUT;
    *room = (size_t)attar_u64(footer + 16);
    return ATTAR_OK;
}

/* ---- 2 Manifest: DEFLATE (RFC 1951) ---- */

/* The preset dictionary of manifests (2.1), made by tests/device/dictionary.py. Each row ends in a 0 of its own. */
#define ATTAR_PRESET 8775
#define ATTAR_ROW 84
static const char attar_rows[][ATTAR_ROW + 1] = {
    "\"licence\":\"Apache-2.0 MIT BSD-3-Clause CC BY 4.0\",\"metric\":\"binary_accuracy\",\"metric",
    "\":\"f1\",\"metric\":\"mean_squared_error\",\"task\":\"regression\",\"task\":\"segmentation\",\"task",
    "\":\"detection\"\"model.embeddings.word_embeddings\",\"encoder.layer.0.attention.self.quer",
    "y.weight\",\"attention.self.key.bias\",\"attention.self.value\",\"attention.output.dense\",",
    "\"attention.output.LayerNorm\",\"intermediate.dense\",\"pooler.dense\",\"layers.0.self_attn",
    ".in_proj_weight\",\"self_attn.out_proj\",\"self_attn.q_proj.weight\",\"k_proj\",\"v_proj\",\"o",
    "_proj\",\"mlp.gate_proj\",\"up_proj\",\"down_proj\",\"input_layernorm\",\"post_attention_layer",
    "norm\",\"lm_head\",\"norm1\",\"norm2\",\"linear1\",\"linear2\",\"blocks.0.attn.qkv.weight\",\"attn",
    ".proj\",\"mlp.fc1\",\"mlp.fc2\",\"patch_embed.proj\",\"cls_token\",\"pos_embed\",\"decoder.layer",
    "s.0.multihead_attn\",\"embedding.weight\",\"lstm.weight_ih_l0\",\"lstm.weight_hh_l0_revers",
    "e\",\"gru.bias_ih_l0\",\"rnn.bias_hh_l0\",\"classifier.1.weight\",\"features.0.0.weight\",\"fe",
    "atures.1.conv.0.1.running_mean\",\"block.2.fc1\",\"stages.0.downsample\",\"stem.conv\",\"hea",
    "d.fc\",\"depthwise\",\"pointwise\",[{\"parts\":[{\"start\":0,\"stop\":128,\"tensor\":\"lstm.weight",
    "_ih_l0\"},{\"start\":384,\"stop\":512,\"tensor\":\"lstm.weight_ih_l0\"}],\"shape\":[1,512,64],\"",
    "to\":\"lstm.W\"},{\"parts\":[{\"tensor\":\"fc.weight\"}],\"permute\":[1,0],\"to\":\"val_12\"}]{\"ali",
    "ases\":{\"lm_head.weight\":\"embed.weight\"},\"dynamic\":[\"node_MatMul_1\",\"node_linear\",\"no",
    "de_linear_1\",\"node_LSTM_12\",\"node_GRU_8\"]}[{\"dtype\":\"i64\",\"example\":[2,16],\"name\":\"i",
    "nput_ids\",\"shape\":[\"batch\",\"sequence\"]},{\"dtype\":\"bool\",\"name\":\"attention_mask\",\"sha",
    "pe\":[\"batch\",\"time\"]},{\"name\":\"logits\"},{\"name\":\"output\"},{\"name\":\"hidden\"}]{\"granul",
    "arity\":{\"kind\":\"bucket\",\"size\":256},\"kind\":\"codebook\",\"offset\":{\"dtype\":\"bf16\",\"leng",
    "th\":64},\"points\":{\"length\":64},\"scale\":{\"dtype\":\"bf16\",\"length\":64}}{\"kind\":\"sparse\"",
    ",\"mask\":{\"coder\":\"huffman\",\"length\":10,\"table\":1},\"values\":{\"data\":{\"length\":40},\"dt",
    "ype\":\"bf16\",\"kind\":\"dense\"}}{\"granularity\":{\"axis\":0,\"kind\":\"group\",\"size\":64},\"narr",
    "ow\":false,\"symmetric\":false,\"zero_point\":{\"length\":16}}{\"granularity\":{\"kind\":\"block",
    "\",\"sizes\":[1,32]}}{\"stages\":[{\"alpha\":0.9,\"batch\":64,\"beta\":0.1,\"optimizer\":{\"lr\":0.",
    "001,\"name\":\"adamw\",\"weight_decay\":0.01},\"schedule\":\"one_cycle\",\"stage\":\"train\",\"temp",
    "erature\":4},{\"stage\":\"prune\"},{\"activation_scales\":\"percentile\",\"activations\":8,\"con",
    "straints\":[{\"activations\":8,\"bits\":2,\"name\":\"lsq\"},{\"name\":\"uniform\"},{\"name\":\"codeb",
    "ook\"},{\"name\":\"normalize\"},{\"name\":\"freeze\"},{\"name\":\"low_precision\",\"scale_bits\":16",
    "},{\"name\":\"rate\"},{\"name\":\"damping\"},{\"name\":\"hint\"},{\"end\":0.6,\"name\":\"prune\",\"scop",
    "e\":\"global\",\"shape\":\"cubic\",\"sparsity\":0.5}],\"correct_bias\":false,\"granularity\":{\"ki",
    "nd\":\"bucket\",\"size\":256},\"keep\":[\"fc\"],\"objective\":[{\"name\":\"cross_entropy\",\"smoothi",
    "ng\":0.1,\"temperature\":2.0}],\"scales\":\"mse\"}]}{\"recipe\":{\"stages\":[{\"clip\":null,\"epoc",
    "hs\":15,\"optimizer\":{\"lr\":0.1,\"name\":\"sgd\",\"weight_decay\":0.0001},\"stage\":\"distill\",\"",
    "teacher\":\"teacher\"},{\"clip\":1.0,\"constraints\":[{\"end\":0.6,\"name\":\"prune\",\"scope\":\"gl",
    "obal\",\"sparsity\":0.9},{\"activations\":8,\"granularity\":{\"kind\":\"tensor\"},\"name\":\"quant",
    "ize\"}],\"epochs\":30,\"objective\":[{\"name\":\"kl\",\"teacher\":\"teacher\",\"temperature\":4.0,\"",
    "weight\":0.9},{\"name\":\"cross_entropy\",\"weight\":0.1}],\"optimizer\":{\"lr\":0.05,\"name\":\"s",
    "gd\",\"weight_decay\":0.0},\"stage\":\"finetune\"}]}}{\"stages\":[{\"clip\":2.0,\"epochs\":12,\"no",
    "rm_batches\":50,\"optimizer\":{\"lr\":0.03,\"name\":\"sgd\",\"weight_decay\":0.0001},\"size\":1.0",
    ",\"stage\":\"compress\",\"teacher\":\"teacher\"}]}{\"stages\":[{\"activations\":8,\"bits\":4,\"cali",
    "bration_examples\":512,\"overrides\":{\"conv1\":8,\"linear\":8},\"stage\":\"quantize\"}]}{\"fold",
    "s\":[{\"batch_norm\":\"features.1\",\"into\":\"features.0\"},{\"batch_norm\":\"layer1.0.bn1\",\"in",
    "to\":\"layer1.0.conv1\"},{\"batch_norm\":\"layer1.0.bn2\",\"into\":\"layer1.0.conv2\"},{\"batch_",
    "norm\":\"layer2.0.downsample.1\",\"into\":\"layer2.0.downsample.0\"},{\"batch_norm\":\"bn1\",\"i",
    "nto\":\"conv1\"}]}{\"activations\":[{\"bits\":4,\"scale\":0.0123,\"signed\":true,\"value\":\"input",
    "_1\"},{\"scale\":0.02,\"value\":\"add_1\",\"zero_point\":128},{\"scale\":0.0118,\"value\":\"relu_1",
    "\"},{\"scale\":0.0118,\"value\":\"max_pool2d\"},{\"scale\":0.0118,\"value\":\"conv2d_1\",\"zero_po",
    "int\":121},{\"scale\":0.0118,\"value\":\"x\",\"zero_point\":117},{\"scale\":0.01,\"value\":\"linea",
    "r_1\",\"zero_point\":131}]}{\"dtype\":\"i64\",\"kind\":\"dense\"}{\"dtype\":\"bool\",\"kind\":\"dense\"",
    "}[{\"name\":\"fc.weight\",\"shape\":[10,512],\"value\":{\"bits\":4}},{\"name\":\"layer4.1.conv2.w",
    "eight\",\"shape\":[512,256,3,3],\"value\":{\"bits\":8}},{\"name\":\"layer2.0.downsample.0.weig",
    "ht\"}]{\"unbound\":[\"full_1\",\"val_12\"]}\"tables\":[{\"alphabet\":3,\"coder\":\"rans\",\"length\":",
    "4},{\"alphabet\":255,\"coder\":\"rans\",\"length\":59},{\"alphabet\":7,\"coder\":\"rans\",\"length\"",
    ":6},{\"alphabet\":7,\"coder\":\"rans\",\"length\":5},{\"alphabet\":15,\"coder\":\"rans\",\"length\":",
    "10},{\"alphabet\":15,\"coder\":\"rans\",\"length\":11}],\"task\":\"classification\"{\"preprocessi",
    "ng\":{\"layout\":\"NC\",\"mean\":[0.0],\"name\":\"none\",\"scale\":1.0,\"std\":[1.0]}}{\"preprocessi",
    "ng\":{\"layout\":\"NCHW\",\"name\":\"unit\",\"scale\":0.00392156862745098}}{\"preprocessing\":{\"l",
    "ayout\":\"NCHW\",\"name\":\"digits\",\"scale\":0.0625}}{\"preprocessing\":{\"layout\":\"NCHW\",\"mea",
    "n\":[0.4914,0.4822,0.4465],\"name\":\"cifar10\",\"scale\":0.00392156862745098,\"std\":[0.247,",
    "0.2435,0.2616]}}{\"class_names\":[\"airplane\",\"automobile\",\"bird\",\"cat\",\"deer\",\"dog\",\"f",
    "rog\",\"horse\",\"ship\",\"truck\"],\"graphs\":[{\"inputs\":[{\"dtype\":\"f32\",\"example\":[2,3,224,",
    "224],\"name\":\"x\",\"shape\":[\"batch\",3,224,224]}],\"length\":2000,\"outputs\":[{\"dtype\":\"f32",
    "\",\"name\":\"linear\",\"shape\":[\"batch\",10]}],\"stored\":500}]}{\"class_names\":[\"0\",\"1\",\"2\",",
    "\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"],\"graphs\":[{\"inputs\":[{\"dtype\":\"f32\",\"example\":[2,1,8,8]",
    ",\"name\":\"input\",\"shape\":[\"batch\",1,8,8]}],\"length\":2000,\"outputs\":[{\"dtype\":\"f32\",\"n",
    "ame\":\"linear\",\"shape\":[\"batch\",10]}],\"stored\":500},{\"inputs\":[{\"dtype\":\"f32\",\"exampl",
    "e\":[2,1,28,28],\"name\":\"x\",\"shape\":[\"batch\",1,28,28]}],\"length\":2000,\"outputs\":[{\"dty",
    "pe\":\"f32\",\"name\":\"linear\",\"shape\":[\"batch\",10]}],\"stored\":500},{\"inputs\":[{\"dtype\":\"",
    "f32\",\"example\":[2,3,32,32],\"name\":\"input_1\",\"shape\":[\"batch\",3,32,32]}],\"length\":200",
    "0,\"outputs\":[{\"dtype\":\"f32\",\"name\":\"linear\",\"shape\":[\"batch\",10]}],\"stored\":500}],\"m",
    "etric\":\"accuracy\",\"parameters\":270000,\"preprocessing\":{\"layout\":\"NCHW\",\"mean\":[0.130",
    "7],\"name\":\"mnist\",\"scale\":0.00392156862745098,\"std\":[0.3081]},\"preprocessing\":{\"layo",
    "ut\":\"NCHW\",\"mean\":[0.485,0.456,0.406],\"name\":\"imagenet\",\"scale\":0.00392156862745098,",
    "\"std\":[0.229,0.224,0.225]}[{\"name\":\"2.running_mean\",\"shape\":[64],\"value\":{\"kind\":\"de",
    "nse\"}},{\"name\":\"2.running_var\",\"shape\":[64],\"value\":{\"dtype\":\"f16\",\"kind\":\"dense\"}},",
    "{\"name\":\"full\",\"shape\":[300],\"value\":{\"bits\":2,\"codes\":{\"length\":1000,\"table\":0},\"gr",
    "anularity\":{\"kind\":\"tensor\"},\"kind\":\"quantized\",\"scale\":{\"length\":64}}},{\"name\":\"fea",
    "tures.0.weight\",\"shape\":[32,1,3,3],\"value\":{\"bits\":4,\"codes\":{\"length\":1000,\"table\":",
    "0},\"kind\":\"quantized\",\"scale\":{\"dtype\":\"f16\",\"length\":64}}},{\"name\":\"features.0.bias",
    "\",\"shape\":[32],\"value\":{\"dtype\":\"f16\",\"kind\":\"dense\"}},{\"name\":\"layer1.0.conv1.weigh",
    "t\",\"shape\":[64,64,3,3],\"value\":{\"bits\":4,\"codes\":{\"length\":1000,\"table\":0},\"kind\":\"q",
    "uantized\",\"scale\":{\"length\":64}}},{\"name\":\"layer1.0.conv1.bias\",\"shape\":[64],\"value\"",
    ":{\"data\":{\"integers\":{\"base\":-2048,\"levels\":8192},\"length\":96},\"input_scale\":0.0236,",
    "\"kind\":\"steps\",\"weight\":\"layer1.0.conv1.weight\"}},{\"name\":\"layer1.0.conv2.weight\",\"s",
    "hape\":[128,64,3,3],\"value\":{\"bits\":4,\"codes\":{\"length\":1000,\"table\":0},\"kind\":\"quant",
    "ized\",\"scale\":{\"length\":64}}},{\"name\":\"layer2.0.bn2.weight\",\"shape\":[128],\"value\":{\"",
    "dtype\":\"bf16\",\"kind\":\"dense\"}},{\"name\":\"conv1.weight\",\"shape\":[16,3,3,3],\"value\":{\"b",
    "its\":4,\"codes\":{\"coder\":\"context\",\"length\":870},\"kind\":\"quantized\",\"scale\":{\"integer",
    "s\":{\"base\":7744,\"levels\":128},\"length\":14,\"shift\":17}}},{\"name\":\"conv1.bias\",\"shape\"",
    ":[16],\"value\":{\"data\":{\"integers\":{\"base\":-1024,\"levels\":4096},\"length\":22},\"input_s",
    "cale\":0.0118,\"kind\":\"steps\",\"weight\":\"conv1.weight\"}},{\"name\":\"layer1.0.conv2.weight",
    "\",\"shape\":[32,16,3,3],\"value\":{\"bits\":8,\"codes\":{\"coder\":\"context\",\"length\":2870},\"k",
    "ind\":\"quantized\",\"scale\":{\"integers\":{\"base\":31010,\"coder\":\"rans\",\"levels\":256,\"tabl",
    "e\":2},\"length\":32,\"shift\":15}}},{\"name\":\"layer1.0.conv2.bias\",\"shape\":[32],\"value\":{",
    "\"dtype\":\"f16\",\"kind\":\"dense\"}},{\"name\":\"0.weight\",\"shape\":[32,3,5,5],\"value\":{\"bits\"",
    ":4,\"codes\":{\"coder\":\"context\",\"length\":1000},\"granularity\":{\"kind\":\"tensor\"},\"kind\":",
    "\"quantized\",\"scale\":{\"length\":4}}},{\"name\":\"0.bias\",\"shape\":[32],\"value\":{\"dtype\":\"f",
    "16\",\"kind\":\"dense\"}},{\"name\":\"2.weight\",\"shape\":[100],\"value\":{\"dtype\":\"f16\",\"kind\":",
    "\"dense\"}},{\"name\":\"2.bias\",\"shape\":[100],\"value\":{\"dtype\":\"f16\",\"kind\":\"dense\"}},{\"n",
    "ame\":\"linear.weight\",\"shape\":[10,64],\"value\":{\"bits\":4,\"codes\":{\"coder\":\"context\",\"l",
    "ength\":640},\"kind\":\"quantized\",\"scale\":{\"integers\":{\"base\":7700,\"levels\":64},\"length",
    "\":8,\"shift\":17}}},{\"name\":\"linear.bias\",\"shape\":[10],\"value\":{\"dtype\":\"f16\",\"kind\":\"",
    "dense\"}}],\"task\":\"classification\",\"tensors\":[{\"name\":\"1.weight\",\"shape\":[\"versions\":",
    "{\"attar\":\"0.1.0\",\"torch\":\"2.13.0+cpu\"}}"};

/* Return byte i of it. */
ATTAR_API uint8_t attar_preset(size_t i)
{
    return (uint8_t)attar_rows[i / ATTAR_ROW][i % ATTAR_ROW];
}

typedef struct attar_inflater {
    const uint8_t *at, *end;
    uint8_t *out;
    size_t done, room;
    size_t preset; /* bytes of the dictionary before the output */
    uint32_t held;
    unsigned bits;
    int bad;       /* whether the stream is malformed; zeros are read from then on */
} attar_inflater;

/* A canonical code: how many symbols have a code of each length, and the symbols in the order of their codes. */
typedef struct attar_canon {
    uint16_t counts[16], symbols[288];
} attar_canon;

ATTAR_API unsigned attar_take_bits(attar_inflater *in, unsigned count)
{
    unsigned value;
    while (in->bits < count) {
        if (in->at == in->end) {
            in->bad = 1;
            return 0;
        }
        in->held |= (uint32_t)*in->at++ << in->bits;
        in->bits += 8;
    }
    value = in->held & (((uint32_t)1 << count) - 1);
    in->held >>= count;
    in->bits -= count;
    return value;
}

/* Make the code of symbols with these lengths; return how many more codes of the longest length, 15, it has room for:
 * 0 if it is complete, below 0 if there are too many. */
ATTAR_API int32_t attar_make_canon(attar_canon *canon, const uint8_t *lengths, unsigned count)
{
    uint16_t places[16] = {0};
    int32_t left = 1;
    unsigned i;
    memset(canon, 0, sizeof *canon);
    for (i = 0; i < count; i++)
        canon->counts[lengths[i]]++;
    for (i = 1; i < 16; i++) {
        left = 2 * left - canon->counts[i];
        if (left < 0)
            return left;
        places[i] = (uint16_t)(i > 1 ? places[i - 1] + canon->counts[i - 1] : 0);
    }
    for (i = 0; i < count; i++)
        if (lengths[i])
            canon->symbols[places[lengths[i]]++] = (uint16_t)i;
    return left;
}

/* A code may be incomplete only if it has one symbol at most, of one bit. */
ATTAR_API int attar_is_code(attar_canon *canon, const uint8_t *lengths, unsigned count)
{
    int32_t left = attar_make_canon(canon, lengths, count);
    return left == 0 || (left > 0 && count == (unsigned)canon->counts[0] + canon->counts[1]);
}

ATTAR_API unsigned attar_take_symbol(attar_inflater *in, const attar_canon *canon)
{
    uint32_t code = 0, first = 0, index = 0;
    unsigned length;
    for (length = 1; length < 16 && !in->bad; length++) {
        code = code << 1 | attar_take_bits(in, 1);
        if (code < first + canon->counts[length])
            return canon->symbols[index + code - first];
        index += canon->counts[length];
        first = (first + canon->counts[length]) << 1;
    }
    in->bad = 1;
    return 0;
}

ATTAR_API void attar_emit(attar_inflater *in, uint8_t byte)
{
    if (in->done == in->room)
        in->bad = 1;
    else
        in->out[in->done++] = byte;
}

ATTAR_API void attar_inflate_symbols(attar_inflater *in, const attar_canon *lengths, const attar_canon *distances)
{
    while (!in->bad) {
        unsigned symbol = attar_take_symbol(in, lengths), extra, length;
        size_t distance;
        if (symbol < 256) {
            if (!in->bad)
                attar_emit(in, (uint8_t)symbol);
            continue;
        }
        if (symbol == 256)
            return;
        symbol -= 257;
        if (symbol > 28)
            break;
        extra = symbol < 8 || symbol == 28 ? 0 : (symbol - 4) / 4;
        length = symbol == 28 ? 258 : symbol < 8 ? symbol + 3 : ((4 + symbol % 4) << extra) + 3;
        length += attar_take_bits(in, extra);
        symbol = attar_take_symbol(in, distances);
        if (symbol > 29)
            break;
        extra = symbol < 4 ? 0 : symbol / 2 - 1;
        distance = symbol < 4 ? symbol + 1 : ((size_t)(2 + symbol % 2) << extra) + 1;
        distance += attar_take_bits(in, extra);
        if (in->bad || distance > in->done + in->preset)
            break;
        for (; length > 0 && !in->bad; length--)
            attar_emit(in, distance <= in->done ? in->out[in->done - distance]
                                                : attar_preset(in->preset + in->done - distance));
    }
    in->bad = 1;
}

ATTAR_API void attar_inflate_stored(attar_inflater *in)
{
    unsigned length;
    in->bits = 0; /* the rest of the byte; fewer than eight bits are ever held between numbers */
    in->held = 0;
    length = attar_take_bits(in, 16);
    if (attar_take_bits(in, 16) != (length ^ 0xffff) || (size_t)(in->end - in->at) < length)
        in->bad = 1;
    for (; length > 0 && !in->bad; length--)
        attar_emit(in, *in->at++);
}

ATTAR_API void attar_inflate_fixed(attar_inflater *in)
{
    attar_canon lengths, distances;
    uint8_t sizes[288];
    memset(sizes, 8, 144);
    memset(sizes + 144, 9, 112);
    memset(sizes + 256, 7, 24);
    memset(sizes + 280, 8, 8);
    attar_make_canon(&lengths, sizes, 288);
    memset(sizes, 5, 30);
    attar_make_canon(&distances, sizes, 30);
    attar_inflate_symbols(in, &lengths, &distances);
}

ATTAR_API void attar_inflate_dynamic(attar_inflater *in)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    attar_canon lengths, distances;
    uint8_t sizes[286 + 30] = {0};
    unsigned length_count = attar_take_bits(in, 5) + 257, distance_count = attar_take_bits(in, 5) + 1;
    unsigned count = attar_take_bits(in, 4) + 4, i;
    for (i = 0; i < count; i++)
        sizes[order[i]] = (uint8_t)attar_take_bits(in, 3);
    if (length_count > 286 || distance_count > 30 || attar_make_canon(&lengths, sizes, 19)) {
        in->bad = 1;
        return;
    }
    for (i = 0; i < length_count + distance_count && !in->bad;) {
        unsigned symbol = attar_take_symbol(in, &lengths), times = 1;
        uint8_t size = symbol == 16 ? (i ? sizes[i - 1] : 16) : symbol < 16 ? (uint8_t)symbol : 0;
        if (symbol > 15)
            times = symbol == 16   ? 3 + attar_take_bits(in, 2)
                    : symbol == 17 ? 3 + attar_take_bits(in, 3)
                                   : 11 + attar_take_bits(in, 7);
        if (size > 15 || times > length_count + distance_count - i)
            in->bad = 1;
        for (; times > 0 && !in->bad; times--)
            sizes[i++] = size;
    }
    if (in->bad || !sizes[256] || !attar_is_code(&lengths, sizes, length_count)
        || !attar_is_code(&distances, sizes + length_count, distance_count))
        in->bad = 1;
    else
        attar_inflate_symbols(in, &lengths, &distances);
}

/* Inflate exactly `room` bytes; return whether the stream is sound and ends where its bytes do. */
ATTAR_API int attar_inflate(const uint8_t *data, size_t length, uint8_t *out, size_t room, size_t preset)
{
    attar_inflater in;
    unsigned last, kind;
    memset(&in, 0, sizeof in);
    in.at = data;
    in.end = data + length;
    in.out = out;
    in.room = room;
    in.preset = preset;
    do {
        last = attar_take_bits(&in, 1);
        kind = attar_take_bits(&in, 2);
        if (in.bad)
            break;
        if (kind == 0)
            attar_inflate_stored(&in);
        else if (kind == 1)
            attar_inflate_fixed(&in);
        else if (kind == 2)
            attar_inflate_dynamic(&in);
        else
            in.bad = 1;
    } while (!last && !in.bad);
    return !in.bad && in.done == room && in.at == in.end;
}

/* ---- 2 Manifest: JSON ---- */

/* The text is checked once, as a whole; after that it is only walked through, and no step can fail. A pointer to JSON
 * is one to the first byte of a value or key; 0 stands for one that is not there. */

ATTAR_API const uint8_t *attar_space(const uint8_t *at, const uint8_t *end)
{
    while (at != end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

ATTAR_API int32_t attar_hex(const uint8_t **at, const uint8_t *end)
{
    int32_t value = 0;
    unsigned place;
    if (end - *at < 4)
        return -1;
    for (place = 0; place < 4; place++) {
        const uint8_t digit = *(*at)++, letter = (uint8_t)(digit | 32);
        if (digit >= '0' && digit <= '9')
            value = 16 * value + digit - '0';
        else if (letter >= 'a' && letter <= 'f')
            value = 16 * value + letter - 'a' + 10;
        else
            return -1;
    }
    return value;
}

/* Return a character after a backslash, -1 for one that must not be there. */
ATTAR_API int32_t attar_escaped(const uint8_t **at, const uint8_t *end)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    int32_t high, low;
    unsigned i;
    if (*at == end)
        return -1;
    for (i = 0; i < 8; i++)
        if (**at == (uint8_t)letters[i]) {
            (*at)++;
            return (uint8_t)meant[i];
        }
    if (*(*at)++ != 'u')
        return -1;
    high = attar_hex(at, end);
    if (high < 0xd800 || high > 0xdfff)
        return high;
    /* Half of a pair, the first of which is below 0xdc00. */
    if (high > 0xdbff || end - *at < 2 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return -1;
    *at += 2;
    low = attar_hex(at, end);
    return low < 0xdc00 || low > 0xdfff ? -1 : 0x10000 + ((high - 0xd800) << 10) + low - 0xdc00;
}

/* Return the next character of a string and move on, -1 if it is malformed. */
ATTAR_API int32_t attar_character(const uint8_t **at, const uint8_t *end)
{
    int32_t value = *(*at)++, least;
    unsigned more;
    if (value == '\\')
        return attar_escaped(at, end);
    if (value < 128)
        return value < 32 ? -1 : value;
    if (value < 0xc2 || value > 0xf4)
        return -1;
    more = value < 0xe0 ? 1 : value < 0xf0 ? 2 : 3;
    least = more == 1 ? 0x80 : more == 2 ? 0x800 : 0x10000;
    value &= 0x3f >> more;
    for (; more > 0; more--) {
        if (*at == end || (**at & 0xc0) != 0x80)
            return -1;
        value = value << 6 | (*(*at)++ & 0x3f);
    }
    return value < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ? -1 : value;
}

/* Each of these checks a part of the text and returns where it ends, 0 if it is malformed. */

ATTAR_API const uint8_t *attar_check_string(const uint8_t *at, const uint8_t *end)
{
    if (at == end || *at++ != '"')
        return 0;
    while (at != end && *at != '"')
        if (attar_character(&at, end) < 0)
            return 0;
    return at == end ? 0 : at + 1;
}

ATTAR_API const uint8_t *attar_check_digits(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *start = at;
    while (at != end && *at >= '0' && *at <= '9')
        at++;
    return at == start ? 0 : at;
}

ATTAR_API const uint8_t *attar_check_number(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *start = at;
    if (at != end && *at == '-')
        at++;
    at = at != end && *at == '0' ? at + 1 : attar_check_digits(at, end);
    if (at && at != end && *at == '.')
        at = attar_check_digits(at + 1, end);
    if (at && at != end && (*at | 32) == 'e') {
        at++;
        if (at != end && (*at == '+' || *at == '-'))
            at++;
        at = attar_check_digits(at, end);
    }
    return at && at - start <= 32 ? at : 0;
}

ATTAR_API const uint8_t *attar_check_plain(const uint8_t *at, const uint8_t *end)
{
    static const char *const words[] = {"true", "false", "null"};
    unsigned i;
    if (at == end)
        return 0;
    if (*at == '"')
        return attar_check_string(at, end);
    for (i = 0; i < 3; i++) {
        size_t length = i == 1 ? 5 : 4;
        if ((size_t)(end - at) >= length && attar_equal(at, words[i], length))
            return at + length;
    }
    return attar_check_number(at, end);
}

ATTAR_API const uint8_t *attar_check_key(const uint8_t *at, const uint8_t *end)
{
    at = attar_check_string(at, end);
    if (at)
        at = attar_space(at, end);
    return at && at != end && *at == ':' ? at + 1 : 0;
}

ATTAR_API const uint8_t *attar_check_value(const uint8_t *at, const uint8_t *end)
{
    uint32_t objects = 0; /* bit d: whether what is nested d deep is an object */
    unsigned depth = 0;
    for (;;) {
        at = attar_space(at, end);
        if (at != end && (*at == '{' || *at == '[')) {
            const uint8_t opened = *at;
            if (depth == ATTAR_DEPTH)
                return 0;
            objects = (objects & ~((uint32_t)1 << depth)) | (uint32_t)(opened == '{') << depth;
            depth++;
            at = attar_space(at + 1, end);
            if (at == end)
                return 0;
            if (*at != opened + 2) { /* it is not closed at once */
                if (opened == '{' && !(at = attar_check_key(at, end)))
                    return 0;
                continue;
            }
        } else if (!(at = attar_check_plain(at, end)))
            return 0;
        for (;;) {
            int object = depth && objects >> (depth - 1) & 1;
            at = attar_space(at, end);
            if (!depth)
                return at;
            if (at == end)
                return 0;
            if (*at == ',') {
                at = attar_space(at + 1, end);
                if (object && !(at = attar_check_key(at, end)))
                    return 0;
                break;
            }
            if (*at++ != (object ? '}' : ']'))
                return 0;
            depth--;
        }
    }
}

/* From here on the text is known to be well formed, and an object at the outside: its end need not be looked for. */

ATTAR_API const uint8_t *attar_blank(const uint8_t *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

/* Return the byte after a value. */
ATTAR_API const uint8_t *attar_skip(const uint8_t *at)
{
    size_t depth = 0;
    do {
        if (*at == '"')
            for (at++; *at != '"'; at++)
                at += *at == '\\';
        else if (*at == '{' || *at == '[')
            depth++;
        else if (*at == '}' || *at == ']')
            depth--;
        else if (!depth) /* a number or a word, which something must follow */
            while (at[1] != ',' && at[1] != '}' && at[1] != ']' && at[1] > ' ')
                at++;
        at++;
    } while (depth);
    return at;
}

/* Return the first item of a list, or key of an object; 0 if there is none. */
ATTAR_API const uint8_t *attar_first(const uint8_t *at)
{
    at = attar_blank(at + 1);
    return *at == ']' || *at == '}' ? 0 : at;
}

/* Return the item or key after a value; 0 if there is none. */
ATTAR_API const uint8_t *attar_after(const uint8_t *at)
{
    at = attar_blank(attar_skip(at));
    return *at == ',' ? attar_blank(at + 1) : 0;
}

/* Return the value of a key. */
ATTAR_API const uint8_t *attar_value(const uint8_t *key)
{
    return attar_blank(attar_blank(attar_skip(key)) + 1);
}

/* Return whether a string is this text, in UTF-8 with a 0 at its end. */
ATTAR_API int attar_is(const uint8_t *string, const char *text)
{
    const uint8_t *end = attar_skip(string);
    for (string++; *string != '"';) {
        int32_t character = attar_character(&string, end);
        unsigned more = character < 0x80 ? 0 : character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
        uint8_t first = (uint8_t)(more ? (0xf0 << (3 - more) & 0xf0) | character >> 6 * more : character);
        if (!first || (uint8_t)*text++ != first)
            return 0;
        while (more--)
            if ((uint8_t)*text++ != (0x80 | (character >> 6 * more & 0x3f)))
                return 0;
    }
    return !*text;
}

/* Return whether two strings are the same text. */
ATTAR_API int attar_same(const uint8_t *string, const uint8_t *other)
{
    const uint8_t *end = attar_skip(string), *stop = attar_skip(other);
    string++;
    other++;
    while (*string != '"' && *other != '"')
        if (attar_character(&string, end) != attar_character(&other, stop))
            return 0;
    return *string == *other;
}

/* Return the index of a word in a list, -1 if it is not one of them. */
ATTAR_API int attar_choice(const uint8_t *value, const char *const *words, unsigned count)
{
    unsigned i;
    for (i = 0; value && *value == '"' && i < count; i++)
        if (attar_is(value, words[i]))
            return (int)i;
    return -1;
}

/* Find the values of keys; return whether this is an object with no other keys, each once. */
ATTAR_API int attar_fields(const uint8_t *object, const char *const *keys, unsigned count, const uint8_t **values)
{
    const uint8_t *key;
    memset((void *)values, 0, count * sizeof *values);
    if (!object || *object != '{')
        return 0;
    for (key = attar_first(object); key; key = attar_after(attar_value(key))) {
        int place = attar_choice(key, keys, count);
        if (place < 0 || values[place])
            return 0;
        values[place] = attar_value(key);
    }
    return 1;
}

ATTAR_API int attar_is_null(const uint8_t *value)
{
    return !value || *value == 'n';
}

/* Read a whole number of `least` to `most`; return whether it is one. */
ATTAR_API int attar_number(const uint8_t *value, int64_t least, int64_t most, int64_t *number)
{
    const uint8_t *at = value;
    int negative;
    if (!value || (*value != '-' && (*value < '0' || *value > '9')))
        return 0;
    negative = *at == '-';
    at += negative;
    for (*number = 0; *at >= '0' && *at <= '9'; at++)
        *number = *number < INT64_MAX / 20 ? 10 * *number + *at - '0' : INT64_MAX / 10;
    if (negative)
        *number = -*number;
    return *at != '.' && (*at | 32) != 'e' && *number >= least && *number <= most;
}

/* A decimal fraction is read exactly: as a whole number of units of 2^-1280, the lowest 32 bits of it first, of which
 * `units` are 48 numbers; the last eight are its whole part. */
#define ATTAR_UNITS 48
#define ATTAR_WHOLE 40
#define ATTAR_NEGATIVE 0x80000000u
#define ATTAR_INFINITY 0x7f800000u

/* Multiply a whole part by ten and add a digit. */
ATTAR_API void attar_times_ten(uint32_t *units, uint64_t digit)
{
    unsigned i;
    for (i = ATTAR_WHOLE; i < ATTAR_UNITS; i++) {
        digit += (uint64_t)units[i] * 10;
        units[i] = (uint32_t)digit;
        digit >>= 32;
    }
}

/* Divide by ten and return the rest, in halves, so that 32 bits are enough. */
ATTAR_API uint32_t attar_tenth(uint32_t *units)
{
    uint32_t left = 0, high;
    unsigned i;
    for (i = ATTAR_UNITS; i-- > 0; left %= 10) {
        high = left << 16 | units[i] >> 16;
        left = high % 10 << 16 | (units[i] & 0xffff);
        units[i] = high / 10 << 16 | left / 10;
    }
    return left;
}

/* Read the digits of a number into its whole part; return the power of ten that it is to be multiplied by. */
ATTAR_API int32_t attar_read_digits(const uint8_t *at, uint32_t *units)
{
    int32_t exponent = 0, power = 0;
    int behind = 0, down = 0;
    for (; (*at >= '0' && *at <= '9') || *at == '.'; at++)
        if (*at == '.')
            behind = 1;
        else {
            attar_times_ten(units, *at - (uint64_t)'0');
            exponent -= behind;
        }
    if ((*at | 32) == 'e') {
        down = *++at == '-';
        for (at += *at == '-' || *at == '+'; *at >= '0' && *at <= '9'; at++)
            power = power < 10000 ? 10 * power + *at - '0' : power;
    }
    return exponent + (down ? -power : power);
}

/* Round units, and a rest that is more than 0 or not, to float64 and then to float32; return its bits. */
ATTAR_API uint32_t attar_round(const uint32_t *units, uint32_t rest)
{
    unsigned top = ATTAR_UNITS - 1, i, shift;
    uint32_t word;
    uint64_t head, bits;
    int32_t power;
    double value;
    float rounded;
    while (top > 2 && !units[top])
        top--;
    shift = 32 - attar_length(units[top]);
    power = 32 * ((int32_t)top - ATTAR_WHOLE) + 31 - (int32_t)shift; /* of the highest bit that is set */
    if (!units[top] || power < -1075)
        return ATTAR_NEGATIVE; /* float64 has nothing above 0 that is so small */
    if (power < -1000)
        return 0;
    if (power > 127)
        return ATTAR_INFINITY;
    head = ((uint64_t)units[top] << 32 | units[top - 1]) << shift | (shift ? units[top - 2] >> (32 - shift) : 0);
    rest |= units[top - 2] << shift;
    for (i = 0; i + 2 < top; i++)
        rest |= units[i];
    /* 53 bits, the nearest, half to even; the highest of them adds 1 to the exponent, a carry another. */
    bits = head >> 11;
    bits += (head & 0x7ff) > 0x400 || ((head & 0x7ff) == 0x400 && (rest || bits & 1));
    bits += (uint64_t)(power + 1022) << 52;
    memcpy(&value, &bits, sizeof value);
    rounded = (float)value;
    memcpy(&word, &rounded, sizeof word);
    return word;
}

/* Return a positive number, rounded to float64 and then to float32, as bits: ATTAR_NEGATIVE if it is none. */
ATTAR_API uint32_t attar_decimal(const uint8_t *at)
{
    uint32_t units[ATTAR_UNITS] = {0}, rest = 0;
    int32_t exponent;
    unsigned i, any = 0;
    if (!at || *at < '0' || *at > '9')
        return ATTAR_NEGATIVE;
    exponent = attar_read_digits(at, units);
    for (i = ATTAR_WHOLE; i < ATTAR_UNITS; i++)
        any |= units[i] > 0;
    if (!any || exponent < -420)
        return ATTAR_NEGATIVE;
    if (exponent > 40)
        return ATTAR_INFINITY;
    for (; exponent > 0; exponent--)
        attar_times_ten(units, 0);
    for (; exponent < 0; exponent++)
        rest |= attar_tenth(units);
    return attar_round(units, rest);
}

ATTAR_API int attar_flag(const uint8_t *value, int absent, int *flag)
{
    *flag = value ? *value == 't' : absent;
    return !value || *value == 't' || *value == 'f';
}

/* Return whether a string is a name: of 1 to 512 characters, without control characters. */
ATTAR_API int attar_is_name(const uint8_t *value)
{
    const uint8_t *end;
    unsigned count = 0;
    if (!value || *value != '"')
        return 0;
    for (end = attar_skip(value), value++; *value != '"'; count++) {
        int32_t character = attar_character(&value, end);
        if (count == 512 || character < 32 || (character >= 127 && character < 160))
            return 0;
    }
    return count > 0;
}

/* ---- 2 Manifest: tables and sections ---- */

ATTAR_API size_t attar_aligned(size_t offset)
{
    return (offset + 63) / 64 * 64;
}

ATTAR_API int attar_is_zero(const uint8_t *data, size_t start, size_t stop)
{
    while (start < stop && !data[start])
        start++;
    return start >= stop;
}

/* Read the names of coders in the order of attar_coder. */
ATTAR_API int attar_coder_of(const uint8_t *value)
{
    static const char *const names[] = {"raw", "rans", "huffman", "context"};
    return attar_choice(value, names, 4);
}

/* Read the records of tables, and write over them, in 8 bytes each, what attar_find_table reads: where the table starts
 * in the bytes of all, coder, and alphabet less 1. After the last is the end of all. */
ATTAR_API attar_status attar_open_tables(attar_file *file, uint8_t *list, size_t *size)
{
    static const char *const keys[] = {"coder", "alphabet", "length"};
    const uint8_t *item, *next, *found[3];
    uint8_t *record = list;
    file->tables = list;
    *size = 0;
    for (item = list ? attar_first(list) : 0; item; item = next) {
        int64_t alphabet, length;
        int coder;
        if (!attar_fields(item, keys, 3, found) || (coder = attar_coder_of(found[0])) <= ATTAR_RAW
            || (coder == ATTAR_CONTEXT && file->minor < ATTAR_COMPACT)
            || !attar_number(found[1], 1, ATTAR_ALPHABET, &alphabet)
            || !attar_number(found[2], 0, (int64_t)(file->length - *size), &length))
            return ATTAR_BAD_MANIFEST;
        next = attar_after(item);
        attar_put(record, *size);
        record[4] = (uint8_t)coder;
        record[5] = (uint8_t)(alphabet - 1);
        record += 8;
        *size += (size_t)length;
        file->table_count++;
    }
    if (file->table_count)
        attar_put(record, *size);
    return ATTAR_OK;
}

/* Read the records of sections as they were before 1.4, and write over them, in 8 bytes each: where the next streams
 * start, 0 if the section has none, and its end. Checksums are left out if the file is `trusted`. */
ATTAR_API attar_status attar_open_sections(attar_file *file, uint8_t *list, size_t tables, int trusted)
{
    static const char *const keys[] = {"kind", "length", "crc32"}, *const kinds[] = {"tables", "tensors", "graph"};
    const uint8_t *item, *next, *found[3];
    uint8_t *record = list;
    size_t at = ATTAR_HEADER, start = at, stop;
    file->sections = list;
    if (!list || *list != '[')
        return ATTAR_BAD_MANIFEST;
    for (item = attar_first(list); item; item = next) {
        int64_t length, crc32;
        int kind;
        start = attar_aligned(at);
        if (!attar_fields(item, keys, 3, found) || (kind = attar_choice(found[0], kinds, 3)) < 0
            || !attar_number(found[2], 0, UINT32_MAX, &crc32) || (kind == 0 && file->section_count))
            return ATTAR_BAD_MANIFEST;
        if (start > file->manifest || !attar_number(found[1], 0, (int64_t)(file->manifest - start), &length)
            || !attar_is_zero(file->data, at, start))
            return ATTAR_BAD_LAYOUT;
        stop = start + (size_t)length;
        if (!trusted && attar_crc32(0, file->data + start, stop - start) != crc32)
            return ATTAR_DAMAGED;
        if (kind == 0 ? tables != stop - start : !file->section_count && tables)
            return ATTAR_BAD_LAYOUT;
        next = attar_after(item);
        attar_put(record, kind == 1);
        attar_put(record + 4, stop);
        record += 8;
        file->section_count++;
        at = stop;
    }
    return attar_aligned(at) != file->manifest || !attar_is_zero(file->data, at, file->manifest)
                   || (!file->section_count && tables)
               ? ATTAR_BAD_LAYOUT
               : ATTAR_OK;
}

/* Find the bytes of the sections of graphs since 1.4; return whether each graph tells its own. */
ATTAR_API int attar_graph_bytes(const attar_file *file, const uint8_t *graphs, size_t *size)
{
    static const char *const names[] = {"stored"};
    const uint8_t *item, *key;
    *size = 0;
    if (graphs && *graphs != '[')
        return 0;
    for (item = graphs ? attar_first(graphs) : 0; item; item = attar_after(item)) {
        int64_t stored = -1;
        if (*item != '{')
            return 0;
        for (key = attar_first(item); key; key = attar_after(attar_value(key)))
            if (!attar_choice(key, names, 1)
                && (stored >= 0 || !attar_number(attar_value(key), 0, (int64_t)(file->length - *size), &stored)))
                return 0;
        if (stored < 0)
            return 0;
        *size += (size_t)stored;
    }
    return 1;
}

/* ---- 3 Tensors: records ---- */

ATTAR_API size_t attar_item(attar_type type)
{
    static const uint8_t sizes[] = {4, 2, 2, 8, 4, 2, 1, 1, 1};
    return sizes[type];
}

ATTAR_API int attar_type_of(const uint8_t *value)
{
    static const char *const names[] = {"f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool"};
    return value ? attar_choice(value, names, 9) : ATTAR_F32;
}

/* Read how a stream of symbols is coded, `coder` if the key is left out. */
ATTAR_API int attar_read_coder(const attar_file *file, const uint8_t *const *found, int coder, attar_stream *stream)
{
    int64_t table = -1;
    coder = found[0] ? attar_coder_of(found[0]) : coder;
    if (coder < 0 || (!attar_is_null(found[1]) && !attar_number(found[1], 0, (int64_t)file->table_count - 1, &table)))
        return 0;
    stream->coder = (attar_coder)coder;
    stream->table = (int)table;
    return 1;
}

/* Read the type of scales or offsets. */
ATTAR_API int attar_read_scaling(const attar_file *file, const uint8_t *const *found, attar_stream *stream)
{
    int64_t shift = 0;
    int type = attar_type_of(found[0]);
    if (type < 0 || type > ATTAR_BF16 || (found[0] && file->minor < 1)
        || (found[1] && !attar_number(found[1], 0, 31, &shift)))
        return 0;
    stream->type = (attar_type)type;
    stream->shift = (unsigned)shift;
    return 1;
}

/* Read how whole numbers are stored. */
ATTAR_API int attar_read_integers(const attar_file *file, const uint8_t *value, attar_stream *stream)
{
    static const char *const keys[] = {"coder", "table", "base", "levels"};
    const uint8_t *inner[4];
    int64_t base = 0, levels;
    stream->coded = !attar_is_null(value);
    if (!stream->coded)
        return 1;
    if (file->minor < ATTAR_COMPACT || !attar_fields(value, keys, 4, inner)
        || !attar_read_coder(file, inner, ATTAR_RAW, stream)
        || (inner[2] && !attar_number(inner[2], INT32_MIN, INT32_MAX, &base))
        || !attar_number(inner[3], 1, INT64_C(1) << 31, &levels))
        return 0;
    stream->base = (int32_t)base;
    stream->alphabet = (unsigned)levels;
    return 1;
}

/* Read the record of a stream; return whether it is one of this part of a tensor. */
ATTAR_API int attar_read_stream(const attar_file *file, const uint8_t *value, unsigned part, attar_stream *stream)
{
    static const char *const keys[] = {"length", "coder", "table", "dtype", "shift", "integers"};
    const int codes = part == ATTAR_MASK || part == ATTAR_CODES, scales = part == ATTAR_SCALE || part == ATTAR_OFFSET;
    const uint8_t *found[6];
    int64_t length;
    if (!attar_fields(value, keys, 6, found) || !attar_number(found[0], 0, (int64_t)file->length, &length)
        || (!codes && (found[1] || found[2])) || (!scales && (found[3] || found[4]))
        || (!scales && part != ATTAR_DATA && found[5]))
        return 0;
    stream->length = (size_t)length;
    if (codes)
        return attar_read_coder(file, found + 1, ATTAR_RANS, stream);
    return (!scales || attar_read_scaling(file, found + 3, stream)) && attar_read_integers(file, found[5], stream);
}

/* Return whether a stream's table is of its coder and of this alphabet. */
ATTAR_API int attar_fits_table(const attar_file *file, attar_stream *stream, unsigned alphabet)
{
    const uint8_t *record = file->tables + 8 * (size_t)(stream->table < 0 ? 0 : stream->table);
    stream->alphabet = alphabet;
    if (stream->coder == ATTAR_RAW)
        return stream->table < 0;
    return stream->table >= 0 && record[4] == stream->coder && record[5] + 1u == alphabet;
}

/* Return whether a stream of symbols may be as long as it is. */
ATTAR_API int attar_fits_symbols(const attar_stream *stream, size_t count)
{
    const unsigned width = attar_width(stream->alphabet);
    if (!count)
        return !stream->length;
    return stream->coder != ATTAR_RAW || stream->length == count / 8 * width + (count % 8 * width + 7) / 8;
}

/* Return whether `count` whole numbers may be stored as they are. */
ATTAR_API int attar_fits_integers(const attar_file *file, attar_stream *stream, size_t count)
{
    if (stream->alphabet > ATTAR_ALPHABET ? stream->coder != ATTAR_RAW || stream->table >= 0
                                          : !attar_fits_table(file, stream, stream->alphabet))
        return 0;
    return attar_fits_symbols(stream, count);
}

/* Return whether `count` scales or offsets may be stored as they are. */
ATTAR_API int attar_fits_scales(const attar_file *file, attar_stream *stream, size_t count)
{
    static const uint32_t infinity[] = {0x7f800000, 0x7c00, 0x7f80};
    if (!stream->coded)
        return !stream->shift && stream->length == count * attar_item(stream->type);
    return stream->base >= 0
           && ((uint64_t)stream->base + stream->alphabet - 1) << stream->shift < infinity[stream->type]
           && attar_fits_integers(file, stream, count);
}

ATTAR_API int attar_read_sharing(const uint8_t *value, attar_tensor *tensor)
{
    static const char *const keys[] = {"kind", "axis", "size", "sizes"};
    static const char *const kinds[] = {"tensor", "channel", "group", "bucket", "block"};
    static const uint8_t allowed[] = {1, 3, 7, 5, 9}, needed[] = {1, 1, 5, 1, 9};
    const uint8_t *found[4], *item;
    int64_t axis = 0, size = 256;
    unsigned i, given = 0;
    int kind;
    tensor->sharing = ATTAR_PER_CHANNEL;
    if (!value)
        return 1;
    if (!attar_fields(value, keys, 4, found) || (kind = attar_choice(found[0], kinds, 5)) < 0)
        return 0;
    for (i = 0; i < 4; i++)
        given |= (found[i] ? 1u : 0u) << i;
    if ((given & ~(unsigned)allowed[kind]) || (needed[kind] & ~given)
        || (found[1] && !attar_number(found[1], 0, ATTAR_AXES - 1, &axis))
        || (found[2] && !attar_number(found[2], 1, INT64_MAX, &size)))
        return 0;
    tensor->sharing = (attar_sharing)kind;
    tensor->axis = (unsigned)axis;
    tensor->size = size < ATTAR_ELEMENTS ? (uint32_t)size : ATTAR_ELEMENTS;
    if (found[3] && *found[3] != '[')
        return 0;
    item = found[3] ? attar_first(found[3]) : 0;
    for (i = 0; item; item = attar_after(item), i++) {
        if (i == ATTAR_AXES || !attar_number(item, 1, INT64_MAX, &size))
            return 0;
        tensor->sizes[i] = size < ATTAR_ELEMENTS ? (uint32_t)size : ATTAR_ELEMENTS + 1;
    }
    return i > 0 || kind != ATTAR_PER_BLOCK;
}

/* Set the number of scales of a tensor; return whether its scales are for such a shape. */
ATTAR_API int attar_count_scales(attar_tensor *tensor)
{
    const uint32_t *shape = tensor->shape;
    const size_t n = tensor->elements;
    size_t channels;
    unsigned i;
    tensor->scale_count = 1;
    tensor->inside = 1;
    switch (tensor->sharing) {
    case ATTAR_PER_TENSOR:
        return 1;
    case ATTAR_PER_BUCKET:
        tensor->scale_count = n / tensor->size + (n % tensor->size > 0);
        return 1;
    case ATTAR_PER_BLOCK:
        for (i = 0; i < tensor->axes; i++) {
            if (!tensor->sizes[i] || shape[i] % tensor->sizes[i])
                return 0;
            tensor->scale_count *= shape[i] / tensor->sizes[i];
        }
        return i > 0 && (i == ATTAR_AXES || !tensor->sizes[i]);
    default:
        if (tensor->axis >= tensor->axes)
            return 0;
        for (i = tensor->axis + 1; i < tensor->axes; i++)
            tensor->inside *= shape[i];
        channels = shape[tensor->axis];
        tensor->scale_count = channels;
        if (tensor->sharing == ATTAR_PER_GROUP)
            tensor->scale_count = n ? channels * ((n / channels - 1) / tensor->size + 1) : 0;
        return 1;
    }
}

/* Check what the record of a tensor that is not sparse says of its streams. */
ATTAR_API int attar_fits(attar_tensor *tensor)
{
    attar_stream *streams = tensor->streams;
    size_t count;
    if (tensor->kind == ATTAR_DENSE)
        return streams[ATTAR_DATA].length == tensor->elements * attar_item(tensor->stored);
    if (tensor->kind == ATTAR_STEPS)
        return tensor->axes == 1 && streams[ATTAR_DATA].base + (int64_t)streams[ATTAR_DATA].alphabet <= INT64_C(1) << 31
               && attar_fits_integers(tensor->file, &streams[ATTAR_DATA], tensor->elements);
    if (!attar_count_scales(tensor))
        return 0;
    count = tensor->scale_count;
    if (!attar_fits_scales(tensor->file, &streams[ATTAR_SCALE], count)
        || streams[ATTAR_ZERO_POINT].length != (tensor->symmetric ? 0 : count))
        return 0;
    if (tensor->kind == ATTAR_CODEBOOK
        && (streams[ATTAR_OFFSET].type != streams[ATTAR_SCALE].type
            || !attar_fits_scales(tensor->file, &streams[ATTAR_OFFSET], count)))
        return 0;
    return attar_fits_symbols(&streams[ATTAR_CODES], tensor->elements);
}

/* The keys of values: first the parts, in their order. */
enum attar_key {
    ATTAR_KEY_KIND = ATTAR_PARTS,
    ATTAR_KEY_TYPE,
    ATTAR_KEY_BITS,
    ATTAR_KEY_SYMMETRIC,
    ATTAR_KEY_NARROW,
    ATTAR_KEY_SHARING,
    ATTAR_KEY_VALUES,
    ATTAR_KEY_WEIGHT,
    ATTAR_KEY_INPUT,
    ATTAR_KEYS
};

/* Find the fields of a value and its kind; return whether they are those of that kind. */
ATTAR_API int attar_value_fields(const uint8_t *value, const uint8_t **found, attar_kind *kind)
{
    static const char *const keys[] = {"mask", "data", "points", "scale", "offset", "zero_point", "codes", "kind",
                                       "dtype", "bits", "symmetric", "narrow", "granularity", "values", "weight",
                                       "input_scale"};
    static const char *const kinds[] = {"dense", "quantized", "codebook", "sparse", "steps"};
    static const uint16_t needed[] = {1 << ATTAR_KEY_KIND,
                                      1 << ATTAR_KEY_KIND | 1 << ATTAR_SCALE | 1 << ATTAR_CODES | 1 << ATTAR_KEY_BITS,
                                      1 << ATTAR_KEY_KIND | 1 << ATTAR_POINTS | 1 << ATTAR_SCALE | 1 << ATTAR_OFFSET
                                          | 1 << ATTAR_CODES | 1 << ATTAR_KEY_SHARING,
                                      1 << ATTAR_KEY_KIND | 1 << ATTAR_MASK | 1 << ATTAR_KEY_VALUES,
                                      1 << ATTAR_KEY_KIND | 1 << ATTAR_DATA | 1 << ATTAR_KEY_WEIGHT
                                          | 1 << ATTAR_KEY_INPUT};
    static const uint16_t optional[] = {1 << ATTAR_DATA | 1 << ATTAR_KEY_TYPE,
                                        1 << ATTAR_ZERO_POINT | 1 << ATTAR_KEY_SYMMETRIC | 1 << ATTAR_KEY_NARROW
                                            | 1 << ATTAR_KEY_SHARING,
                                        0, 0, 0};
    unsigned given = 0, i;
    int which;
    if (!attar_fields(value, keys, ATTAR_KEYS, found))
        return 0;
    for (i = 0; i < ATTAR_KEYS; i++)
        given |= (found[i] ? 1u : 0u) << i;
    which = attar_choice(found[ATTAR_KEY_KIND], kinds, 5);
    if (which < 0 || (needed[which] & ~given) || (given & ~(unsigned)(needed[which] | optional[which])))
        return 0;
    *kind = (attar_kind)which;
    return 1;
}

/* Read a quantized tensor's grid; set the number of its codes. */
ATTAR_API int attar_read_grid(attar_tensor *tensor, const uint8_t *const *found, unsigned *alphabet)
{
    int64_t bits;
    int narrow;
    if (!attar_number(found[ATTAR_KEY_BITS], 1, 8, &bits)
        || !attar_flag(found[ATTAR_KEY_SYMMETRIC], 1, &tensor->symmetric)
        || !attar_flag(found[ATTAR_KEY_NARROW], 1, &narrow)
        || !attar_read_sharing(found[ATTAR_KEY_SHARING], tensor))
        return 0;
    tensor->bits = (unsigned)bits;
    *alphabet = 1u << bits;
    if (tensor->symmetric) {
        tensor->lowest = -(1 << (bits - 1));
        if (narrow && bits > 1) {
            tensor->lowest++;
            (*alphabet)--;
        }
    }
    return 1;
}

/* Read a value that is not sparse; `whole` is whether it is not the values of a sparse one. */
ATTAR_API int attar_read_plain(attar_tensor *tensor, const uint8_t **found, attar_kind kind, int whole)
{
    const attar_file *file = tensor->file;
    attar_stream *streams = tensor->streams;
    unsigned alphabet = 0, part;
    int type = attar_type_of(found[ATTAR_KEY_TYPE]);
    size_t points;
    tensor->inner = kind;
    tensor->symmetric = 1;
    for (part = ATTAR_DATA; part <= ATTAR_CODES; part++) {
        if (part == ATTAR_ZERO_POINT && attar_is_null(found[part]))
            continue;
        if (found[part] && !attar_read_stream(file, found[part], part, &streams[part]))
            return 0;
    }
    if (kind == ATTAR_STEPS ? !whole || !streams[ATTAR_DATA].coded : streams[ATTAR_DATA].coded)
        return 0;
    if (kind == ATTAR_STEPS) {
        tensor->weight = found[ATTAR_KEY_WEIGHT];
        tensor->input_scale = attar_decimal(found[ATTAR_KEY_INPUT]);
        return attar_is_name(tensor->weight) && tensor->input_scale != ATTAR_NEGATIVE;
    }
    if (kind == ATTAR_DENSE) {
        if (type < 0 || (!found[ATTAR_DATA] && (!whole || file->minor < ATTAR_COMPACT)))
            return 0;
        tensor->stored = (attar_type)type;
        tensor->type = tensor->stored > ATTAR_BF16 ? tensor->stored : ATTAR_F32;
        if (!found[ATTAR_DATA])
            streams[ATTAR_DATA].length = tensor->elements * attar_item(tensor->stored);
        return 1;
    }
    if (kind == ATTAR_QUANTIZED) {
        if (!attar_read_grid(tensor, found, &alphabet) || tensor->symmetric != attar_is_null(found[ATTAR_ZERO_POINT]))
            return 0;
    } else {
        points = streams[ATTAR_POINTS].length;
        if (points % 4 || points < 4 || points > 4 * ATTAR_ALPHABET
            || !attar_read_sharing(found[ATTAR_KEY_SHARING], tensor))
            return 0;
        alphabet = (unsigned)points / 4;
    }
    return (tensor->sharing != ATTAR_PER_BLOCK || file->minor >= 2)
           && attar_fits_table(file, &streams[ATTAR_CODES], alphabet);
}

ATTAR_API int attar_read_value(attar_tensor *tensor, const uint8_t *value)
{
    const uint8_t *found[ATTAR_KEYS];
    attar_stream *mask = &tensor->streams[ATTAR_MASK];
    attar_kind kind;
    if (!attar_value_fields(value, found, &tensor->kind))
        return 0;
    if (tensor->kind != ATTAR_SPARSE)
        return attar_read_plain(tensor, found, tensor->kind, 1) && attar_fits(tensor);
    return attar_read_stream(tensor->file, found[ATTAR_MASK], ATTAR_MASK, mask)
           && attar_fits_table(tensor->file, mask, 2) && attar_fits_symbols(mask, tensor->elements)
           && attar_value_fields(found[ATTAR_KEY_VALUES], found, &kind) && kind != ATTAR_SPARSE
           && attar_read_plain(tensor, found, kind, 0);
}

/* Read a shape; an axis of 0 counts as one of 1 in what is set against the limit. */
ATTAR_API attar_status attar_read_shape(attar_tensor *tensor, const uint8_t *value)
{
    const uint8_t *item;
    tensor->elements = 1;
    tensor->counted = 1;
    if (!value || *value != '[')
        return ATTAR_BAD_MANIFEST;
    for (item = attar_first(value); item; item = attar_after(item)) {
        int64_t size;
        if (tensor->axes == ATTAR_AXES || !attar_number(item, 0, INT64_C(1) << 48, &size))
            return ATTAR_BAD_MANIFEST;
        if (size > (int64_t)(ATTAR_ELEMENTS / tensor->counted))
            return ATTAR_TOO_LARGE;
        tensor->shape[tensor->axes++] = (uint32_t)size;
        tensor->elements *= (size_t)size;
        tensor->counted *= size ? (size_t)size : 1;
    }
    return ATTAR_OK;
}

/* Place the streams of a tensor one after the other; return whether they lie before `stop`. */
ATTAR_API int attar_place(attar_tensor *tensor, size_t *at, size_t stop)
{
    unsigned part;
    for (part = ATTAR_MASK; part <= ATTAR_CODES; part++) {
        attar_stream *stream = &tensor->streams[part];
        if (stream->length > stop - *at)
            return 0;
        stream->data = tensor->file->data + *at;
        *at += stream->length;
    }
    return 1;
}

/* Go back to the first tensor. */
ATTAR_API void attar_rewind(attar_file *file)
{
    size_t at = ATTAR_HEADER, i;
    file->next = file->tensors ? attar_first(file->tensors) : 0;
    file->at = file->tensors_at;
    for (i = 0; i < file->section_count; i++) {
        uint8_t *record = file->sections + 8 * i;
        if (attar_u32(record))
            attar_put(record, attar_aligned(at));
        at = attar_u32(record + 4);
    }
}

/* Read the record of the next tensor; ATTAR_END if there is none. */
ATTAR_API attar_status attar_next(attar_file *file, attar_tensor *tensor)
{
    static const char *const keys[] = {"name", "shape", "value", "section"};
    const unsigned count = file->minor < ATTAR_COMPACT ? 4 : 3;
    const uint8_t *found[4], *record = file->next;
    uint8_t *place = 0;
    size_t at = file->at, stop = file->manifest;
    attar_status status;
    unsigned part;
    int64_t section;
    if (!record)
        return ATTAR_END;
    memset(tensor, 0, sizeof *tensor);
    tensor->file = file;
    for (part = ATTAR_MASK; part < ATTAR_PARTS; part++)
        tensor->streams[part].table = -1;
    if (!attar_fields(record, keys, count, found) || !attar_is_name(found[0]))
        return ATTAR_BAD_MANIFEST;
    status = attar_read_shape(tensor, found[1]);
    if (status != ATTAR_OK)
        return status;
    if (!attar_read_value(tensor, found[2]))
        return ATTAR_BAD_MANIFEST;
    if (count == 4) {
        if (!attar_number(found[3], 0, (int64_t)file->section_count - 1, &section))
            return ATTAR_BAD_MANIFEST;
        place = file->sections + 8 * (size_t)section;
        at = attar_u32(place);
        stop = attar_u32(place + 4);
        if (!at)
            return ATTAR_BAD_LAYOUT;
    }
    if (!attar_place(tensor, &at, stop))
        return ATTAR_BAD_LAYOUT;
    if (place)
        attar_put(place, at);
    file->at = at;
    tensor->name = (const char *)found[0] + 1;
    tensor->name_length = (size_t)(attar_skip(found[0]) - found[0]) - 2;
    file->next = attar_after(record);
    return ATTAR_OK;
}

/* Return the number of scales of a tensor, of a sparse one at most: how many values it has only its mask tells. */
ATTAR_API size_t attar_most_scales(const attar_tensor *tensor)
{
    if (tensor->kind != ATTAR_SPARSE)
        return tensor->scale_count;
    return tensor->sharing == ATTAR_PER_TENSOR   ? 1
           : tensor->sharing == ATTAR_PER_BUCKET ? (tensor->elements + tensor->size - 1) / tensor->size
                                                 : tensor->elements;
}

/* Check the records of all tensors, and that their streams fill their sections. */
ATTAR_API attar_status attar_check_tensors(attar_file *file, size_t graphs)
{
    const uint64_t most = (UINT64_C(1) << 25) + 1024 * (uint64_t)file->length;
    uint64_t elements = 0;
    attar_tensor tensor;
    attar_status status;
    size_t i;
    attar_rewind(file);
    while ((status = attar_next(file, &tensor)) == ATTAR_OK) {
        elements += tensor.counted;
        for (i = ATTAR_SCALE; i <= ATTAR_OFFSET; i++)
            elements += tensor.streams[i].coded ? attar_most_scales(&tensor) : 0;
        if (elements > ATTAR_ELEMENTS || elements > most)
            return ATTAR_TOO_LARGE;
    }
    if (status != ATTAR_END)
        return status;
    if (file->minor >= ATTAR_COMPACT && file->manifest - file->at != graphs)
        return ATTAR_BAD_LAYOUT;
    for (i = 0; i < file->section_count; i++) {
        const uint8_t *record = file->sections + 8 * i;
        if (attar_u32(record) && attar_u32(record) != attar_u32(record + 4))
            return ATTAR_BAD_LAYOUT;
    }
    attar_rewind(file);
    return ATTAR_OK;
}

/* Read the manifest, whose JSON is checked. */
ATTAR_API attar_status attar_read_manifest(attar_file *file, uint8_t *text, int trusted)
{
    static const char *const keys[] = {"tables", "tensors", "aliases", "graphs", "sections", "unbound", "folds",
                                       "parameters", "preprocessing", "task", "class_names", "metric", "recipe",
                                       "versions", "licence"};
    const uint8_t *found[15];
    const int compact = file->minor >= ATTAR_COMPACT;
    size_t tables, graphs = 0;
    attar_status status;
    if (!attar_fields(text, keys, 15, found) || found[compact ? 4 : 5])
        return ATTAR_BAD_MANIFEST;
    if ((found[0] && *found[0] != '[') || (found[1] && *found[1] != '[') || (found[2] && *found[2] != '{'))
        return ATTAR_BAD_MANIFEST;
    if (compact && !attar_graph_bytes(file, found[3], &graphs))
        return ATTAR_BAD_MANIFEST;
    status = attar_open_tables(file, found[0] ? text + (found[0] - text) : 0, &tables);
    if (status == ATTAR_OK && !compact)
        status = attar_open_sections(file, found[4] ? text + (found[4] - text) : 0, tables, trusted);
    if (status != ATTAR_OK)
        return status;
    if (compact && tables > file->manifest - ATTAR_HEADER)
        return ATTAR_BAD_LAYOUT;
    file->tables_at = compact ? ATTAR_HEADER : attar_aligned(ATTAR_HEADER);
    file->tensors_at = ATTAR_HEADER + tables;
    file->tensors = found[1];
    file->aliases = found[2];
    return attar_check_tensors(file, graphs);
}

/* Open a file of `length` bytes. `text` has room for what attar_measure finds and holds the manifest. Of a file that is
 * `trusted` the digest, and before 1.4 the checksums of sections, are not computed, so that most of it is not read. */
ATTAR_API attar_status attar_open(attar_file *file, const uint8_t *data, size_t length, uint8_t *text, size_t room,
                                  int trusted)
{
    const uint8_t *footer, *end;
    size_t size;
    attar_status status = attar_measure(data, length, &size);
    if (status != ATTAR_OK)
        return status;
    if (room < size)
        return ATTAR_NO_ROOM;
    footer = data + length - ATTAR_FOOTER;
    memset(file, 0, sizeof *file);
    file->data = data;
    file->length = length;
    file->minor = attar_word(data + 10);
    file->manifest = (size_t)attar_u64(footer);
    if (attar_crc32(0, data + file->manifest, (size_t)(footer - data) - file->manifest) != attar_u32(footer + 24))
        return ATTAR_DAMAGED;
    if (!trusted && !attar_digest_matches(data, length))
        return ATTAR_DAMAGED;
    if (!attar_inflate(data + file->manifest, (size_t)(footer - data) - file->manifest, text, size,
                       file->minor < ATTAR_COMPACT ? 0 : ATTAR_PRESET))
        return ATTAR_BAD_DEFLATE;
    end = attar_space(text, text + size);
    if (end == text + size || *end != '{' || attar_check_value(text, text + size) != text + size)
        return ATTAR_BAD_JSON;
    return attar_read_manifest(file, text + (end - text), trusted);
}

/* Find the tensor of a name or alias: of `string`, which is JSON, or if that is 0, of `text`. */
ATTAR_API attar_status attar_find_name(attar_file *file, const uint8_t *string, const char *text, attar_tensor *tensor)
{
    const uint8_t *key = file->aliases ? attar_first(file->aliases) : 0;
    attar_status status;
    for (; key; key = attar_after(attar_value(key)))
        if (string ? attar_same(key, string) : attar_is(key, text)) {
            string = attar_value(key);
            if (*string != '"')
                return ATTAR_BAD_MANIFEST;
            break;
        }
    attar_rewind(file);
    while ((status = attar_next(file, tensor)) == ATTAR_OK) {
        const uint8_t *own = (const uint8_t *)tensor->name - 1;
        if (string ? attar_same(own, string) : attar_is(own, text))
            return ATTAR_OK;
    }
    return status;
}

/* Find the tensor of this name or alias; attar_next then goes on with what comes after it. */
ATTAR_API attar_status attar_find(attar_file *file, const char *name, attar_tensor *tensor)
{
    return attar_find_name(file, 0, name, tensor);
}

/* ---- 3 Tensors: values ---- */

/* Find the bytes of a stream's table. */
ATTAR_API const uint8_t *attar_find_table(const attar_file *file, const attar_stream *stream, size_t *length)
{
    const uint8_t *record = file->tables + 8 * (size_t)(stream->table < 0 ? 0 : stream->table);
    *length = 0;
    if (stream->table < 0)
        return file->data;
    *length = attar_u32(record + 8) - attar_u32(record);
    return file->data + file->tables_at + attar_u32(record);
}

/* Return the numbers of a workspace that decoding a stream takes; 0 if its table is malformed. */
ATTAR_API size_t attar_stream_work(const attar_file *file, const attar_stream *stream)
{
    uint16_t levels[ATTAR_ALPHABET], least = UINT16_MAX, most = 0;
    const unsigned alphabet = stream->alphabet;
    size_t length;
    const uint8_t *bytes = attar_find_table(file, stream, &length);
    unsigned tag = 1, symbol;
    uint64_t whole = 0;
    attar_context context;
    if (stream->coder == ATTAR_RAW || alphabet < 1 || alphabet > ATTAR_ALPHABET)
        return 0;
    if (stream->coder == ATTAR_CONTEXT)
        return attar_open_context(&context, bytes, length, alphabet) == ATTAR_OK ? attar_context_work(&context) : 0;
    if (!length)
        return stream->coder == ATTAR_RANS ? 256 : (size_t)1 << attar_width(alphabet);
    if (attar_read_levels(bytes, length, alphabet, levels, &tag) != ATTAR_OK)
        return 0;
    for (symbol = 0; symbol < alphabet; symbol++) {
        most = levels[symbol] > most ? levels[symbol] : most;
        least = levels[symbol] && levels[symbol] < least ? levels[symbol] : least;
        whole += (uint64_t)levels[symbol] * levels[symbol];
    }
    if (stream->coder == ATTAR_HUFFMAN)
        return most > ATTAR_LONGEST + 1 ? 0 : (size_t)1 << (most - 1);
    /* Twice as many slots if there is a rare symbol. */
    length = (size_t)128 << tag;
    return (uint64_t)least * least * (2 * length - 1) < whole ? 2 * length : length;
}

/* Return whether scales or offsets are symbols of a coder, which are decoded before they are used. */
ATTAR_API int attar_has_symbols(const attar_stream *stream)
{
    return stream->coded && stream->alphabet <= ATTAR_ALPHABET;
}

/* Find the weight of a bias in steps; return whether it is one that has a scale for all elements, or one for each. */
ATTAR_API int attar_weight(const attar_tensor *tensor, attar_tensor *weight)
{
    attar_file file = *tensor->file; /* a copy, which goes through the tensors by itself: 1.4 keeps no places in it */
    attar_status status = attar_find_name(&file, tensor->weight, 0, weight);
    weight->file = tensor->file;
    return status == ATTAR_OK && weight->kind == ATTAR_QUANTIZED && weight->symmetric
           && (weight->scale_count == 1 || weight->scale_count == tensor->elements);
}

/* Return the numbers of 16 bits of a workspace that is enough to read anything of a tensor. */
ATTAR_API size_t attar_work(const attar_tensor *tensor)
{
    attar_tensor weight;
    const int sparse = tensor->kind == ATTAR_SPARSE;
    const size_t half = (tensor->elements + 1) / 2, scales = !sparse ? (tensor->scale_count + 1) / 2 : half ? half : 1;
    size_t most = 0, beside = sparse ? half : 0;
    unsigned part;
    for (part = ATTAR_MASK; part < ATTAR_PARTS; part++) {
        size_t work = attar_stream_work(tensor->file, &tensor->streams[part]);
        most = work > most ? work : most;
        beside += part != ATTAR_DATA && attar_has_symbols(&tensor->streams[part]) ? scales : 0;
    }
    if (tensor->kind == ATTAR_STEPS && attar_weight(tensor, &weight)
        && attar_has_symbols(&weight.streams[ATTAR_SCALE])) {
        size_t work = attar_stream_work(tensor->file, &weight.streams[ATTAR_SCALE]);
        most = work > most ? work : most;
        beside += (weight.scale_count + 1) / 2;
    }
    return most + beside;
}

/* Decode the symbols of a stream. */
ATTAR_API attar_status attar_read_symbols(const attar_tensor *tensor, unsigned part, size_t count, uint8_t *symbols,
                                          uint16_t *work, size_t room)
{
    const attar_stream *stream = &tensor->streams[part];
    attar_table table;
    attar_status status;
    size_t length;
    const uint8_t *bytes = attar_find_table(tensor->file, stream, &length);
    if (!count)
        return ATTAR_OK;
    status = attar_open_table(&table, stream->coder, bytes, length, stream->alphabet, work, room);
    return status != ATTAR_OK ? status : attar_decode(&table, stream->data, stream->length, symbols, count);
}

/* Read the mask of a sparse tensor, `elements` bytes of 0 or 1, and describe its values: a tensor of one axis, which
 * may be read as others are. */
ATTAR_API attar_status attar_read_mask(const attar_tensor *tensor, uint8_t *mask, size_t size, attar_tensor *values,
                                       uint16_t *work, size_t room)
{
    attar_status status;
    size_t i, ones = 0;
    if (tensor->kind != ATTAR_SPARSE)
        return ATTAR_WRONG_KIND;
    if (size < tensor->elements)
        return ATTAR_NO_ROOM;
    status = attar_read_symbols(tensor, ATTAR_MASK, tensor->elements, mask, work, room);
    if (status != ATTAR_OK)
        return status;
    for (i = 0; i < tensor->elements; i++)
        ones += mask[i];
    *values = *tensor;
    values->kind = tensor->inner;
    values->axes = 1;
    values->shape[0] = (uint32_t)ones;
    values->elements = ones;
    return attar_fits(values) ? ATTAR_OK : ATTAR_BAD_MANIFEST;
}

ATTAR_API float attar_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Numbers are bits of a float32 until they are multiplied: some processors change a NaN that they only load. */

/* Return the float32, as bits, that equals these bits of a type of floating-point numbers. */
ATTAR_API uint32_t attar_widen(uint32_t bits, attar_type type)
{
    const uint32_t sign = bits >> 15 << 31, exponent = bits >> 10 & 31, fraction = bits & 1023;
    unsigned length;
    if (type != ATTAR_F16)
        return type == ATTAR_BF16 ? bits << 16 : bits;
    if (exponent)
        return sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    length = attar_length(fraction);
    return sign | (fraction ? (102 + length) << 23 | (fraction << (24 - length) & 0x7fffff) : 0);
}

ATTAR_API uint32_t attar_number_at(const uint8_t *data, attar_type type, size_t i)
{
    return attar_widen(type == ATTAR_F32 ? attar_u32(data + 4 * i) : attar_word(data + 2 * i), type);
}

/* Return number i of those that are packed in `width` bits each. */
ATTAR_API uint32_t attar_packed_at(const uint8_t *data, unsigned width, size_t i)
{
    const unsigned first = (unsigned)(i % 8) * width;
    const uint8_t *at = data + i / 8 * width + first / 8;
    uint64_t bits = 0;
    unsigned place;
    for (place = 0; 8 * place < first % 8 + width; place++)
        bits |= (uint64_t)at[place] << 8 * place;
    return (uint32_t)(bits >> first % 8 & ((UINT64_C(1) << width) - 1));
}

/* Return scale or offset i of a stream; `symbols` are those of it, if it has any. */
ATTAR_API uint32_t attar_scale_at(const attar_stream *stream, const uint8_t *symbols, size_t i)
{
    uint32_t code;
    if (!stream->coded)
        return attar_number_at(stream->data, stream->type, i);
    code = symbols ? symbols[i] : attar_packed_at(stream->data, attar_width(stream->alphabet), i);
    return attar_widen(((uint32_t)stream->base + code) << stream->shift, stream->type);
}

ATTAR_API int attar_is_finite(uint32_t bits, int positive)
{
    return (bits & 0x7f800000) != 0x7f800000 && (!positive || (bits && !(bits >> 31)));
}

/* Check whole numbers that are packed: none is too large, and the bits after the last are 0. */
ATTAR_API int attar_check_packed(const attar_stream *stream, size_t count)
{
    unsigned width;
    size_t i;
    if (!stream->coded || attar_has_symbols(stream))
        return 1;
    width = attar_width(stream->alphabet);
    for (i = 0; i < count; i++)
        if (attar_packed_at(stream->data, width, i) >= stream->alphabet)
            return 0;
    return !stream->length || !(stream->data[stream->length - 1] >> ((count % 8 * width + 7) % 8 + 1));
}

/* Check `count` scales or offsets. */
ATTAR_API int attar_check_scales(const attar_stream *stream, const uint8_t *symbols, size_t count, int positive)
{
    size_t i;
    if (!attar_check_packed(stream, count))
        return 0;
    for (i = 0; i < count; i++)
        if (!attar_is_finite(attar_scale_at(stream, symbols, i), positive))
            return 0;
    return 1;
}

/* Decode scales or offsets that are symbols into the end of the workspace, whose rest is left; `symbols` is 0 if they
 * are none. */
ATTAR_API attar_status attar_take_symbols(const attar_tensor *tensor, unsigned part, const uint8_t **symbols,
                                          uint16_t *work, size_t *room)
{
    const size_t half = (tensor->scale_count + 1) / 2;
    uint8_t *decoded;
    *symbols = 0;
    if (!attar_has_symbols(&tensor->streams[part]))
        return ATTAR_OK;
    if (*room < half)
        return ATTAR_NO_ROOM;
    *room -= half;
    decoded = (uint8_t *)(work + *room);
    *symbols = decoded;
    return attar_read_symbols(tensor, part, tensor->scale_count, decoded, work, *room);
}

/* Take the symbols of scales, symbols[0], and offsets, symbols[1]; check both, points and zero points. */
ATTAR_API attar_status attar_open_scales(const attar_tensor *tensor, const uint8_t **symbols, uint16_t *work,
                                         size_t *room)
{
    const attar_stream *streams = tensor->streams;
    const int quantized = tensor->kind == ATTAR_QUANTIZED;
    attar_status status = attar_take_symbols(tensor, ATTAR_SCALE, &symbols[0], work, room);
    size_t i;
    if (status == ATTAR_OK)
        status = attar_take_symbols(tensor, ATTAR_OFFSET, &symbols[1], work, room);
    if (status != ATTAR_OK)
        return status;
    if (!attar_check_scales(&streams[ATTAR_SCALE], symbols[0], tensor->scale_count, quantized)
        || (!quantized && !attar_check_scales(&streams[ATTAR_OFFSET], symbols[1], tensor->scale_count, 0)))
        return ATTAR_BAD_VALUES;
    for (i = 0; i < streams[ATTAR_POINTS].length / 4; i++)
        if (!attar_is_finite(attar_u32(streams[ATTAR_POINTS].data + 4 * i), 0))
            return ATTAR_BAD_VALUES;
    for (i = 0; i < streams[ATTAR_ZERO_POINT].length; i++)
        if (streams[ATTAR_ZERO_POINT].data[i] >> tensor->bits)
            return ATTAR_BAD_VALUES;
    return ATTAR_OK;
}

/* Read the codes of a quantized tensor or codebook, a byte each, in two's complement if it is symmetric. */
ATTAR_API attar_status attar_read_codes(const attar_tensor *tensor, uint8_t *codes, size_t size, uint16_t *work,
                                        size_t room)
{
    attar_status status;
    size_t i;
    if (tensor->kind != ATTAR_QUANTIZED && tensor->kind != ATTAR_CODEBOOK)
        return ATTAR_WRONG_KIND;
    if (size < tensor->elements)
        return ATTAR_NO_ROOM;
    status = attar_read_symbols(tensor, ATTAR_CODES, tensor->elements, codes, work, room);
    for (i = 0; tensor->lowest && status == ATTAR_OK && i < tensor->elements; i++)
        codes[i] = (uint8_t)(codes[i] + tensor->lowest);
    return status;
}

/* Put codes of at most 4 bits, a byte each, two into a byte, the first of them in its lower half. */
ATTAR_API void attar_pack_codes(uint8_t *codes, size_t count)
{
    size_t i;
    for (i = 0; i < count; i += 2)
        codes[i / 2] = (uint8_t)((codes[i] & 15) | (i + 1 < count ? (codes[i + 1] & 15) << 4 : 0));
}

/* Read the scales of a quantized tensor or codebook, and its offsets, or zero points as floats: `scale_count` of each.
 * A value is scale * (code - zero point), of a codebook scale * point + offset; attar_scale_of tells which scale. */
ATTAR_API attar_status attar_read_scales(const attar_tensor *tensor, float *scales, float *offsets, size_t count,
                                         uint16_t *work, size_t room)
{
    const attar_stream *streams = tensor->streams;
    const uint8_t *symbols[2];
    attar_status status;
    size_t i;
    if (tensor->kind != ATTAR_QUANTIZED && tensor->kind != ATTAR_CODEBOOK)
        return ATTAR_WRONG_KIND;
    if (count < tensor->scale_count)
        return ATTAR_NO_ROOM;
    status = attar_open_scales(tensor, symbols, work, &room);
    for (i = 0; status == ATTAR_OK && i < tensor->scale_count; i++) {
        scales[i] = attar_float(attar_scale_at(&streams[ATTAR_SCALE], symbols[0], i));
        if (tensor->kind == ATTAR_CODEBOOK)
            offsets[i] = attar_float(attar_scale_at(&streams[ATTAR_OFFSET], symbols[1], i));
        else
            offsets[i] = (float)(tensor->symmetric ? 0 : streams[ATTAR_ZERO_POINT].data[i]);
    }
    return status;
}

/* Return which scale element i has, and how many elements from it on, itself included, have the same. */
ATTAR_API size_t attar_scale_of(const attar_tensor *tensor, size_t i, size_t *run)
{
    const size_t inside = tensor->inside, left = tensor->elements - i;
    size_t scale = 0, number = 1, size, within, channels;
    unsigned axis;
    switch (tensor->sharing) {
    case ATTAR_PER_TENSOR:
        *run = left;
        return 0;
    case ATTAR_PER_CHANNEL:
        *run = inside - i % inside;
        return i / inside % tensor->shape[tensor->axis];
    case ATTAR_PER_GROUP:
        channels = tensor->shape[tensor->axis];
        size = tensor->size;
        within = i / inside / channels * inside + i % inside;
        *run = size - within % size < inside - i % inside ? size - within % size : inside - i % inside;
        return i / inside % channels * ((tensor->elements / channels - 1) / size + 1) + within / size;
    case ATTAR_PER_BUCKET:
        *run = tensor->size - i % tensor->size < left ? tensor->size - i % tensor->size : left;
        return i / tensor->size;
    default:
        size = tensor->sizes[tensor->axes - 1];
        *run = size - i % tensor->shape[tensor->axes - 1] % size;
        for (axis = tensor->axes; axis-- > 0; i /= tensor->shape[axis]) {
            scale += i % tensor->shape[axis] / tensor->sizes[axis] * number;
            number *= tensor->shape[axis] / tensor->sizes[axis];
        }
        return scale;
    }
}

/* Write elements of a dense tensor in the byte order of the machine, 16-bit floats widened. */
ATTAR_API attar_status attar_copy_values(const attar_tensor *tensor, uint8_t *out)
{
    const uint8_t *data = tensor->streams[ATTAR_DATA].data;
    const size_t item = attar_item(tensor->type);
    size_t i;
    for (i = 0; i < tensor->elements; i++, out += item) {
        const uint64_t eight = item == 8 ? attar_u64(data + 8 * i) : 0;
        const uint32_t four = tensor->type == ATTAR_F32 ? attar_number_at(data, tensor->stored, i)
                              : item == 4               ? attar_u32(data + 4 * i)
                                                        : 0;
        const uint16_t two = item == 2 ? (uint16_t)attar_word(data + 2 * i) : 0;
        if (tensor->type == ATTAR_BOOL && data[i] > 1)
            return ATTAR_BAD_VALUES;
        if (item == 8)
            memcpy(out, &eight, 8);
        else if (item == 4)
            memcpy(out, &four, 4);
        else if (item == 2)
            memcpy(out, &two, 2);
        else
            *out = data[i];
    }
    return ATTAR_OK;
}

/* Write scale * (code - zero point), or scale * point + offset, for codes that lie at the end of the output: each is
 * read before a value is written over it. */
ATTAR_API void attar_dequantize(const attar_tensor *tensor, const uint8_t *const *symbols, uint8_t *out)
{
    const attar_stream *streams = tensor->streams;
    const uint8_t *codes = out + 3 * tensor->elements;
    const int quantized = tensor->kind == ATTAR_QUANTIZED;
    size_t i = 0, run;
    while (i < tensor->elements) {
        const size_t place = attar_scale_of(tensor, i, &run);
        const float scale = attar_float(attar_scale_at(&streams[ATTAR_SCALE], symbols[0], place));
        const float offset = quantized ? 0 : attar_float(attar_scale_at(&streams[ATTAR_OFFSET], symbols[1], place));
        const int zero = tensor->lowest - (tensor->symmetric ? 0 : streams[ATTAR_ZERO_POINT].data[place]);
        for (; run > 0; run--, i++) {
            /* Rounded to float32 where a machine would keep more of it, or add without rounding it. */
            volatile float product;
            float value;
            product = scale * (quantized ? (float)(codes[i] + zero)
                                         : attar_float(attar_u32(streams[ATTAR_POINTS].data + 4 * codes[i])));
            value = quantized ? product : product + offset;
            memcpy(out + 4 * i, &value, sizeof value);
        }
    }
}

/* Write number * (input scale * scale of the weight): a step is rounded to float32, a product to float64, then to
 * float32. */
ATTAR_API attar_status attar_read_steps(const attar_tensor *tensor, uint8_t *out, uint16_t *work, size_t room)
{
    const attar_stream *stream = &tensor->streams[ATTAR_DATA], *scales;
    uint8_t *codes = out + 3 * tensor->elements;
    const int symbols = attar_has_symbols(stream);
    const uint8_t *scale_symbols;
    attar_tensor weight;
    attar_status status;
    size_t i;
    if (!attar_weight(tensor, &weight))
        return ATTAR_BAD_MANIFEST;
    scales = &weight.streams[ATTAR_SCALE];
    status = attar_take_symbols(&weight, ATTAR_SCALE, &scale_symbols, work, &room);
    if (status == ATTAR_OK && symbols)
        status = attar_read_symbols(tensor, ATTAR_DATA, tensor->elements, codes, work, room);
    if (status != ATTAR_OK)
        return status;
    if (!attar_check_packed(scales, weight.scale_count) || !attar_check_packed(stream, tensor->elements))
        return ATTAR_BAD_VALUES;
    for (i = 0; i < tensor->elements; i++, out += 4) {
        const uint32_t code = symbols ? *codes++ : attar_packed_at(stream->data, attar_width(stream->alphabet), i);
        const size_t place = weight.scale_count == 1 ? 0 : i;
        volatile float step, value;
        volatile double product;
        uint32_t bits;
        step = attar_float(tensor->input_scale) * attar_float(attar_scale_at(scales, scale_symbols, place));
        product = (double)(stream->base + (int64_t)code) * (double)step;
        value = (float)product;
        memcpy(&bits, (const void *)&value, sizeof bits);
        if (!attar_is_finite(bits, 0))
            return ATTAR_BAD_VALUES;
        memcpy(out, &bits, sizeof bits);
    }
    return ATTAR_OK;
}

ATTAR_API attar_status attar_read_plain_values(const attar_tensor *tensor, uint8_t *out, uint16_t *work, size_t room)
{
    const uint8_t *symbols[2];
    attar_status status;
    if (tensor->kind == ATTAR_DENSE)
        return attar_copy_values(tensor, out);
    if (tensor->kind == ATTAR_STEPS)
        return attar_read_steps(tensor, out, work, room);
    status = attar_open_scales(tensor, symbols, work, &room);
    if (status == ATTAR_OK)
        status = attar_read_symbols(tensor, ATTAR_CODES, tensor->elements, out + 3 * tensor->elements, work, room);
    if (status == ATTAR_OK)
        attar_dequantize(tensor, symbols, out);
    return status;
}

/* Read the values of any tensor into `size` bytes: `elements` of its `type`, which is float but for dense integers. */
ATTAR_API attar_status attar_read_values(const attar_tensor *tensor, void *values, size_t size, uint16_t *work,
                                         size_t room)
{
    const size_t item = attar_item(tensor->type), half = (tensor->elements + 1) / 2;
    uint8_t *out = (uint8_t *)values, *mask;
    attar_tensor inner;
    attar_status status;
    size_t i, from;
    if (size / item < tensor->elements)
        return ATTAR_NO_ROOM;
    if (tensor->kind != ATTAR_SPARSE)
        return attar_read_plain_values(tensor, out, work, room);
    if (room < half)
        return ATTAR_NO_ROOM;
    mask = (uint8_t *)(work + room - half);
    status = attar_read_mask(tensor, mask, tensor->elements, &inner, work, room - half);
    if (status == ATTAR_OK)
        status = attar_read_plain_values(&inner, out, work, room - half);
    if (status != ATTAR_OK)
        return status;
    /* From the last to the first, so that a value moves to its place or behind it. */
    for (i = tensor->elements, from = inner.elements; i-- > 0;)
        if (mask[i]) {
            from--;
            if (from != i)
                memcpy(out + item * i, out + item * from, item);
        } else
            memset(out + item * i, 0, item);
    return ATTAR_OK;
}

#endif
