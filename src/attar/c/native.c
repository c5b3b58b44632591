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
        if (alphabet >= 0 && coder >= ATTAR_RAW && coder <= ATTAR_HUFFMAN)
            status = attar_open_table(&self->table, (attar_coder)coder, bytes_of(&view), (size_t)view.len,
                                      (unsigned)alphabet, self->work, ATTAR_WORK);
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
    attar_status status;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*w*", &capsule, &chunk, &symbols))
        return NULL;
    self = PyCapsule_GetPointer(capsule, CAPSULE);
    if (self) {
        Py_BEGIN_ALLOW_THREADS
        status = attar_decode_chunk(&self->table, bytes_of(&chunk), (size_t)chunk.len, bytes_of(&symbols),
                                    (size_t)symbols.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&chunk);
    PyBuffer_Release(&symbols);
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

static PyMethodDef methods[] = {{"open_table", open_table, METH_VARARGS, open_table_doc},
                                {"decode", decode, METH_VARARGS, decode_doc},
                                {"encode_rans", encode_rans, METH_VARARGS, encode_rans_doc},
                                {"encode_huffman", encode_huffman, METH_VARARGS, encode_huffman_doc},
                                {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Coders in C (see kernels.py).", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
