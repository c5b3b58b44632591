/* attar._src.coding._native: the decoders of attar.h, and encoders, for Python. Loops run without its lock. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "attar.h"

/* An open table with its workspace. */
typedef struct {
    attar_table table;
    uint16_t work[ATTAR_WORK];
} opened;

/* A copy of an open table of the context coder with a workspace of its own, so that threads may use one table. */
static uint16_t *own_work(const opened *self, attar_table *table)
{
    *table = self->table;
    table->work = malloc(attar_context_work(&table->context) * sizeof *table->work);
    return table->work;
}

static const char CAPSULE[] = "attar._src.coding._native.table";

static void forget(PyObject *capsule)
{
    free(PyCapsule_GetPointer(capsule, CAPSULE));
}

/* The bytes of a buffer; never null, whatever its length. */
static uint8_t *bytes_of(const Py_buffer *view)
{
    static uint8_t none;
    return view->len ? (uint8_t *)view->buf : &none;
}

PyDoc_STRVAR(open_table_doc, "open_table(coder: int, table: Buffer, alphabet: int) -> object | int\n\n"
                             "Return the opened table, or the status with which it is refused.");

static PyObject *open_table(PyObject *module, PyObject *arguments)
{
    int coder, alphabet;
    Py_buffer view;
    opened *self;
    attar_status status = ATTAR_BAD_TABLE;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "iy*i", &coder, &view, &alphabet))
        return NULL;
    self = malloc(sizeof *self);
    if (!self)
        PyErr_NoMemory();
    else {
        if (alphabet >= 0 && coder >= ATTAR_RAW && coder <= ATTAR_CONTEXT)
            status = attar_open_table(&self->table, (attar_coder)coder, bytes_of(&view), (size_t)view.len,
                                      (unsigned)alphabet, self->work, ATTAR_WORK);
        if (status == ATTAR_NO_ROOM) /* of a context coder with long rows, which gets its workspace as it runs */
            status = ATTAR_OK;
        result = status ? PyLong_FromLong(status) : PyCapsule_New(self, CAPSULE, forget);
        if (status || !result)
            free(self);
    }
    PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(decode_doc, "decode(table: object, chunk: Buffer, symbols: Buffer) -> int\n\n"
                         "Fill ``symbols``, uint8, from a chunk; return the status, 0 if all is well.");

static PyObject *decode(PyObject *module, PyObject *arguments)
{
    PyObject *capsule;
    Py_buffer chunk, symbols;
    const opened *self;
    attar_status status = ATTAR_NO_ROOM;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*w*", &capsule, &chunk, &symbols))
        return NULL;
    self = PyCapsule_GetPointer(capsule, CAPSULE);
    if (self) {
        attar_table own;
        const attar_table *table = &self->table;
        Py_BEGIN_ALLOW_THREADS
        if (table->coder == ATTAR_CONTEXT)
            table = own_work(self, &own) ? &own : NULL;
        if (table)
            status = attar_decode_chunk(table, bytes_of(&chunk), (size_t)chunk.len, bytes_of(&symbols),
                                        (size_t)symbols.len);
        if (table == &own)
            free(own.work);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&chunk);
    PyBuffer_Release(&symbols);
    if (self && status == ATTAR_NO_ROOM)
        return PyErr_NoMemory();
    return self ? PyLong_FromLong(status) : NULL;
}

/* Push symbols, last first, on lanes in turn; return where their first word begins, NULL if one has no frequency.
 * `entries` are start << 16 | frequency; before `end` there is room for a word a symbol, and one. */
static uint8_t *push(const uint8_t *symbols, size_t count, const uint32_t *entries, unsigned k, uint32_t *states,
                     unsigned lanes, uint8_t *end)
{
    size_t i;
    for (i = count; i-- > 0;) {
        uint32_t *state = &states[i & (lanes - 1)], entry = entries[symbols[i]], frequency = entry & 0xFFFF;
        int full = *state >= (uint64_t)frequency << (32 - k);
        if (!frequency)
            return NULL;
        /* The word is written in any case, for branches would be mispredicted. */
        end[-2] = (uint8_t)*state;
        end[-1] = (uint8_t)(*state >> 8);
        end -= 2 * full;
        *state >>= 16 * full;
        *state = (*state / frequency << k) + *state % frequency + (entry >> 16);
    }
    return end;
}

PyDoc_STRVAR(encode_rans_doc,
             "encode_rans(first: Buffer, rare: Buffer, entries: Buffer, k: int, lanes: int) -> bytes\n\n"
             "Return states and words: ``rare`` pushed by the second row of ``entries (2, 256)``, uint32,\n"
             "start << 16 | frequency, then ``first`` by the first; ``lanes`` is 1 or 8.");

static PyObject *encode_rans(PyObject *module, PyObject *arguments)
{
    Py_buffer first, rare, entries;
    uint32_t rows[2][ATTAR_ALPHABET], states[ATTAR_LANES] = {0};
    int k, lanes, lane, place;
    uint8_t *room, *end, *at;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*ii", &first, &rare, &entries, &k, &lanes))
        return NULL;
    room = malloc(4 * ATTAR_LANES + 2 * ((size_t)first.len + (size_t)rare.len + 1));
    if (!room)
        PyErr_NoMemory();
    else if (entries.len != sizeof rows || k < 8 || k > 15 || (lanes != 1 && lanes != ATTAR_LANES))
        PyErr_SetString(PyExc_ValueError, "encode_rans: entries of (2, 256), k of 8 to 15, 1 or 8 lanes");
    else {
        memcpy(rows, entries.buf, sizeof rows);
        at = end = room + 4 * ATTAR_LANES + 2 * ((size_t)first.len + (size_t)rare.len + 1);
        Py_BEGIN_ALLOW_THREADS
        for (lane = 0; lane < lanes; lane++)
            states[lane] = lanes > 1 ? ATTAR_LOWEST : 0;
        at = push(bytes_of(&rare), (size_t)rare.len, rows[1], (unsigned)k, states, 1, at);
        if (at)
            at = push(bytes_of(&first), (size_t)first.len, rows[0], (unsigned)k, states, (unsigned)lanes, at);
        /* A lone state is stored without its high zero bytes. */
        for (place = 4 * lanes; at && place-- > 0;)
            if (lanes > 1 || states[0] >> 8 * place)
                *--at = (uint8_t)(states[place / 4] >> 8 * (place % 4));
        Py_END_ALLOW_THREADS
        if (at)
            result = PyBytes_FromStringAndSize((const char *)at, end - at);
        else
            PyErr_SetString(PyExc_ValueError, "encode_rans: a symbol has no frequency");
    }
    free(room);
    PyBuffer_Release(&first);
    PyBuffer_Release(&rare);
    PyBuffer_Release(&entries);
    return result;
}

PyDoc_STRVAR(encode_huffman_doc, "encode_huffman(symbols: Buffer, codes: Buffer) -> bytes\n\n"
                                 "Return the codes of symbols; ``codes (256,)``, uint32, are length << 16 | code.");

static PyObject *encode_huffman(PyObject *module, PyObject *arguments)
{
    Py_buffer symbols, codes;
    uint32_t entries[ATTAR_ALPHABET];
    uint8_t *room, *at;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*", &symbols, &codes))
        return NULL;
    room = malloc(2 * (size_t)symbols.len + 4);
    if (!room)
        PyErr_NoMemory();
    else if (codes.len != sizeof entries)
        PyErr_SetString(PyExc_ValueError, "encode_huffman: codes of (256,)");
    else {
        const uint8_t *data = bytes_of(&symbols);
        Py_ssize_t i;
        uint32_t pending = 0;
        unsigned held = 0;
        memcpy(entries, codes.buf, sizeof entries);
        at = room;
        Py_BEGIN_ALLOW_THREADS
        for (i = 0; i < symbols.len; i++) {
            uint32_t entry = entries[data[i]];
            pending |= (entry & 0x7FFF) << held;
            held += entry >> 16 & 15;
            /* Three bytes hold what is pending; those that are full stay. */
            at[0] = (uint8_t)pending;
            at[1] = (uint8_t)(pending >> 8);
            at[2] = (uint8_t)(pending >> 16);
            at[3] = 0;
            at += held >> 3;
            pending >>= held & ~7u;
            held &= 7;
        }
        at += held > 0;
        Py_END_ALLOW_THREADS
        result = PyBytes_FromStringAndSize((const char *)room, at - room);
    }
    free(room);
    PyBuffer_Release(&symbols);
    PyBuffer_Release(&codes);
    return result;
}

/* The span of 2^16 that a symbol's bucket has, and its place in the bucket. */
typedef struct {
    uint16_t from, width;
    uint8_t low, shift; /* bits of the place: none for a zero that is alone */
} span;

/* Fill the spans of symbols, by the contexts that the decoder will see. */
ATTAR_INLINE void spans_of(const attar_table *table, const uint8_t *symbols, size_t count, span *spans, unsigned room)
{
    const attar_context *c = &table->context;
    attar_sight sight;
    size_t i;
    attar_reset(c, &sight, table->work, room);
    for (i = 0; i < count; i++) {
        int value = (int)symbols[i] - c->center;
        unsigned place, bucket;
        uint32_t from, to;
        attar_look(c, &sight, table->work, symbols, i, room);
        if (c->apart && !value) {
            bucket = c->zero;
            place = spans[i].shift = 0;
        } else {
            value = (value ^ sight.turned) - sight.turned;
            place = (unsigned)(value - c->lowest - (c->apart && value > 0));
            bucket = place >> c->shift;
            spans[i].shift = (uint8_t)c->shift;
        }
        from = bucket ? attar_upper(&sight, bucket - 1) : 0;
        to = bucket + 1 < c->buckets ? attar_upper(&sight, bucket) : 65536;
        spans[i].from = (uint16_t)from;
        spans[i].width = (uint16_t)(to - from);
        spans[i].low = (uint8_t)(place & ((1u << c->shift) - 1));
        attar_learn(c, &sight, table->work, bucket, (int)symbols[i] - c->center, room);
    }
}

/* Write the word below `end` if the state is at least `limit`; return where words begin. */
static uint8_t *give(uint32_t *state, uint64_t limit, uint8_t *end)
{
    if (*state < limit)
        return end;
    end[-2] = (uint8_t)*state;
    end[-1] = (uint8_t)(*state >> 8);
    *state >>= 16;
    return end - 2;
}

/* Push spans, last first, on one lane; before `end` there is room for two words a symbol, and two. */
static uint8_t *push_spans(const span *spans, size_t count, uint8_t *end)
{
    uint32_t state = 0;
    size_t i;
    int place;
    for (i = count; i-- > 0;) {
        if (spans[i].shift) {
            end = give(&state, (uint64_t)1 << (32 - spans[i].shift), end);
            state = state << spans[i].shift | spans[i].low;
        }
        end = give(&state, (uint64_t)spans[i].width << 16, end);
        state = (state / spans[i].width << 16) + state % spans[i].width + spans[i].from;
    }
    for (place = 4; place-- > 0;)
        if (state >> 8 * place)
            *--end = (uint8_t)(state >> 8 * place);
    return end;
}

PyDoc_STRVAR(encode_context_doc, "encode_context(table: object, symbols: Buffer) -> bytes\n\n"
                                 "Return a chunk of ``symbols``, each below the alphabet of an open table of that coder.");

static PyObject *encode_context(PyObject *module, PyObject *arguments)
{
    PyObject *capsule, *result = NULL;
    Py_buffer symbols;
    const opened *self;
    attar_table table = {0};
    span *spans = NULL;
    uint8_t *room = NULL, *at = NULL, *end = NULL;
    Py_ssize_t i;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*", &capsule, &symbols))
        return NULL;
    self = PyCapsule_GetPointer(capsule, CAPSULE);
    if (self && self->table.coder != ATTAR_CONTEXT)
        PyErr_SetString(PyExc_ValueError, "encode_context: a table of another coder");
    else if (self) {
        const uint8_t *data = bytes_of(&symbols);
        unsigned largest = 0;
        spans = malloc(((size_t)symbols.len + 1) * sizeof *spans);
        room = malloc(4 * ((size_t)symbols.len + 2));
        own_work(self, &table);
        for (i = 0; i < symbols.len; i++)
            largest = data[i] > largest ? data[i] : largest;
        if (!spans || !room || !table.work)
            PyErr_NoMemory();
        else if (largest >= table.alphabet)
            PyErr_SetString(PyExc_ValueError, "encode_context: a symbol is not below the alphabet");
        else {
            Py_BEGIN_ALLOW_THREADS
            if (attar_room(&table.context) == 16)
                spans_of(&table, data, (size_t)symbols.len, spans, 16);
            else
                spans_of(&table, data, (size_t)symbols.len, spans, ATTAR_BUCKETS - 1);
            end = room + 4 * ((size_t)symbols.len + 2);
            at = push_spans(spans, (size_t)symbols.len, end);
            Py_END_ALLOW_THREADS
            result = PyBytes_FromStringAndSize((const char *)at, end - at);
        }
    }
    free(spans);
    free(room);
    free(table.work);
    PyBuffer_Release(&symbols);
    return result;
}

static PyMethodDef methods[] = {{"open_table", open_table, METH_VARARGS, open_table_doc},
                                {"decode", decode, METH_VARARGS, decode_doc},
                                {"encode_rans", encode_rans, METH_VARARGS, encode_rans_doc},
                                {"encode_huffman", encode_huffman, METH_VARARGS, encode_huffman_doc},
                                {"encode_context", encode_context, METH_VARARGS, encode_context_doc},
                                {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Coders in C (see kernels.py).", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
