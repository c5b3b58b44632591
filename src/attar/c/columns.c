/* attar._src.methods.quantize.ptq.solvers._columns: rounding of a block of columns (column_blocks.py says what it does
 * in numpy, with the same bits). Arrays are float64, contiguous, (groups, columns, rows) unless said. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <string.h>

/* Loops over rows for the widest registers of the machine. Products and sums are not fused (setup.py). */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

/* Of a block: codes from low to high, what each adds to the cost, NULL for nothing. */
typedef struct {
    double low, high;
    const double *prices;
} grid;

/* The whole number nearest to x, even ones of two; of one beyond 2^40, that. */
static inline double nearest_whole(double x)
{
    const double most = 1099511627776.0;
    x = x >= -most ? x : -most;
    x = x <= most ? x : most;
#if FLT_EVAL_METHOD > 1
    return rint(x);
#else
    return (x + 6755399441055744.0) - 6755399441055744.0; /* 1.5 x 2^52: the sum has no digits behind the point */
#endif
}

static inline double within(double code, const grid *of)
{
    code = code >= of->low ? code : of->low; /* not a number becomes the lowest, as codes are places of prices */
    return code <= of->high ? code : of->high;
}

static inline double cost(double aim, double code, double step, double zero, double curve, const grid *of)
{
    double left = aim - step * (code - zero);
    double error = curve * (left * left);
    return of->prices ? error + of->prices[(int)(code - of->low)] : error;
}

/* The code of the least cost among the nearest, its neighbours, that of zero, and `present`. */
static inline double choose(double aim, double step, double zero, double curve, double present, const grid *of)
{
    double best = within(nearest_whole(aim / step) + zero, of), least, other, tried[4];
    int k;
    if (!of->prices)
        return best;
    least = cost(aim, best, step, zero, curve, of);
    tried[0] = within(best - 1, of);
    tried[1] = within(best + 1, of);
    tried[2] = zero;
    tried[3] = present;
    for (k = 0; k < 4; k++) {
        other = cost(aim, tried[k], step, zero, curve, of);
        best = other < least ? tried[k] : best;
        least = other < least ? other : least;
    }
    return best;
}

WIDEST static void round_column(const double *restrict weight, const double *restrict aims, double curve,
                                const double *restrict step, const double *restrict zero, const grid *of,
                                Py_ssize_t rows, double *restrict codes, double *restrict left,
                                double *restrict errors)
{
    const grid own = *of;
    Py_ssize_t r;
    for (r = 0; r < rows; r++) {
        double code = choose(aims[r], step[r], zero[r], curve, zero[r], &own);
        code = weight[r] == 0 ? zero[r] : code;
        codes[r] = code;
        left[r] = weight[r] - step[r] * (code - zero[r]);
        errors[r] = cost(aims[r], code, step[r], zero[r], curve, &own);
    }
}

WIDEST static int move_column(const double *restrict weight, double *restrict left, const double *restrict slopes,
                              double curve, const double *restrict step, const double *restrict zero, const grid *of,
                              Py_ssize_t rows, double *restrict codes, double *restrict moves)
{
    const grid own = *of;
    int changed = 0;
    Py_ssize_t r;
    for (r = 0; r < rows; r++) {
        double before = codes[r], code = choose(weight[r] - left[r] + slopes[r] / curve, step[r], zero[r], curve, before,
                                                &own);
        code = weight[r] == 0 ? zero[r] : code;
        moves[r] = step[r] * (before - zero[r]) - step[r] * (code - zero[r]);
        left[r] += moves[r];
        codes[r] = code;
        changed |= code != before;
    }
    return changed;
}

WIDEST static void add_times(double *restrict to, const double *restrict from, double factor, Py_ssize_t rows)
{
    Py_ssize_t r;
    for (r = 0; r < rows; r++)
        to[r] += factor * from[r];
}

/* Rows that are gone through together, whose arrays of 64 columns stay in a cache of the second level. */
enum { TILE = 256 };

/* Arguments: (groups, columns, rows, low, high, prices, arrays ...). */
enum { MOST_ARRAYS = 9 };
typedef struct {
    Py_ssize_t groups, columns, rows, elements;
    grid codes;
    int count;
    Py_buffer prices, views[MOST_ARRAYS];
    double *at[MOST_ARRAYS];
    Py_ssize_t count_of[MOST_ARRAYS];
} block;

static void release(block *self)
{
    while (self->count > 0)
        PyBuffer_Release(&self->views[--self->count]);
    if (self->prices.obj)
        PyBuffer_Release(&self->prices);
}

/* Where a column of a group begins in an array of elements, or in one for all columns. */
static const double *column_of(const block *self, int array, Py_ssize_t group, Py_ssize_t column)
{
    Py_ssize_t each = self->count_of[array] == self->elements;
    return self->at[array] + (each ? group * self->columns + column : group) * self->rows;
}

/* Release the arrays; set an error if the codes were none of the grid. */
static int ended(block *self, int good)
{
    release(self);
    if (!good)
        PyErr_SetString(PyExc_ValueError, "columns: codes that are none of the grid");
    return good;
}

static int whole_between(const double *codes, Py_ssize_t count, const grid *of)
{
    Py_ssize_t k;
    for (k = 0; k < count; k++)
        if (!(codes[k] >= of->low && codes[k] <= of->high))
            return 0;
    return 1;
}

/* Read the arguments; `shapes` has a letter for each array: e elements, r elements or one for all columns of a row, s
 * square of the columns, c columns, in capitals if it is written. Return whether they are as they should be; if not, an
 * error is set. */
static int read_block(block *self, PyObject *arguments, const char *shapes)
{
    PyObject *prices;
    Py_ssize_t k, want;
    memset(self, 0, sizeof *self);
    if (PyTuple_Size(arguments) != 6 + (Py_ssize_t)strlen(shapes)) {
        PyErr_SetString(PyExc_TypeError, "groups, columns, rows, low, high, prices, arrays");
        return 0;
    }
    self->groups = PyLong_AsSsize_t(PyTuple_GetItem(arguments, 0));
    self->columns = PyLong_AsSsize_t(PyTuple_GetItem(arguments, 1));
    self->rows = PyLong_AsSsize_t(PyTuple_GetItem(arguments, 2));
    self->codes.low = PyFloat_AsDouble(PyTuple_GetItem(arguments, 3));
    self->codes.high = PyFloat_AsDouble(PyTuple_GetItem(arguments, 4));
    prices = PyTuple_GetItem(arguments, 5);
    if (PyErr_Occurred())
        return 0;
    self->elements = self->groups * self->columns * self->rows;
    if (prices != Py_None) {
        if (PyObject_GetBuffer(prices, &self->prices, PyBUF_SIMPLE) < 0)
            return 0;
        self->codes.prices = self->prices.buf;
        if (self->prices.len != (Py_ssize_t)sizeof(double) * (Py_ssize_t)(self->codes.high - self->codes.low + 1))
            goto refused;
    }
    for (k = 0; shapes[k]; k++) {
        int written = shapes[k] < 'a';
        if (PyObject_GetBuffer(PyTuple_GetItem(arguments, 6 + k), &self->views[k],
                               written ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) {
            release(self);
            return 0;
        }
        self->count++;
        self->at[k] = self->views[k].buf;
        self->count_of[k] = self->views[k].len / (Py_ssize_t)sizeof(double);
        want = self->groups * self->columns;
        switch (shapes[k] | 32) {
        case 's':
            want *= self->columns;
            break;
        case 'e':
            want = self->elements;
            break;
        case 'r':
            want = self->count_of[k] == self->elements ? self->elements : self->groups * self->rows;
        }
        if (self->views[k].len != want * (Py_ssize_t)sizeof(double))
            goto refused;
    }
    return 1;
refused:
    release(self);
    PyErr_SetString(PyExc_ValueError, "columns: arrays of float64 of the block, a price for each code");
    return 0;
}

PyDoc_STRVAR(round_block_doc, "round_block(groups, columns, rows, low, high, prices, weight, aims, unit, curve, step,\n"
                              "            zero, codes, left, errors) -> None\n\n"
                              "Fill the last three; ``aims`` are changed. ``unit (groups, columns, columns)``,\n"
                              "``curve (groups, columns)``.");

static PyObject *round_block(PyObject *module, PyObject *arguments)
{
    block self;
    int good;
    (void)module;
    if (!read_block(&self, arguments, "eEscrrEEE"))
        return NULL;
    good = whole_between(self.at[5], self.count_of[5], &self.codes);
    if (good) {
        Py_ssize_t b = self.columns, n = self.rows, g, j, k, row, some;
        Py_BEGIN_ALLOW_THREADS
        for (g = 0; g < self.groups; g++)
            for (row = 0; row < n; row += TILE)
                for (j = 0, some = n - row < TILE ? n - row : TILE; j < b; j++) {
                    Py_ssize_t at = (g * b + j) * n + row;
                    double *left = self.at[7] + at;
                    round_column(self.at[0] + at, self.at[1] + at, self.at[3][g * b + j],
                                 column_of(&self, 4, g, j) + row, column_of(&self, 5, g, j) + row, &self.codes, some,
                                 self.at[6] + at, left, self.at[8] + at);
                    for (k = j + 1; k < b; k++)
                        add_times(self.at[1] + (g * b + k) * n + row, left, self.at[2][(g * b + j) * b + k], some);
                }
        Py_END_ALLOW_THREADS
    }
    return ended(&self, good) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(descend_block_doc,
             "descend_block(groups, columns, rows, low, high, prices, weight, left, slopes, matrix, step, zero, codes,\n"
             "              moves) -> bool\n\n"
             "Change ``left``, ``slopes`` and ``codes``, fill ``moves``; return whether a code changed.\n"
             "``matrix (groups, columns, columns)``.");

static PyObject *descend_block(PyObject *module, PyObject *arguments)
{
    block self;
    int good, changed = 0;
    (void)module;
    if (!read_block(&self, arguments, "eEEsrrEE"))
        return NULL;
    good = whole_between(self.at[5], self.count_of[5], &self.codes) && whole_between(self.at[6], self.elements, &self.codes);
    if (good) {
        Py_ssize_t b = self.columns, n = self.rows, g, j, k, row, some;
        Py_BEGIN_ALLOW_THREADS
        for (g = 0; g < self.groups; g++)
            for (row = 0; row < n; row += TILE)
                for (j = 0, some = n - row < TILE ? n - row : TILE; j < b; j++) {
                    Py_ssize_t at = (g * b + j) * n + row;
                    const double *matrix = self.at[3] + g * b * b;
                    if (!move_column(self.at[0] + at, self.at[1] + at, self.at[2] + at, matrix[j * b + j],
                                     column_of(&self, 4, g, j) + row, column_of(&self, 5, g, j) + row, &self.codes,
                                     some, self.at[6] + at, self.at[7] + at))
                        continue;
                    changed = 1;
                    for (k = j + 1; k < b; k++)
                        add_times(self.at[2] + (g * b + k) * n + row, self.at[7] + at, matrix[k * b + j], some);
                }
        Py_END_ALLOW_THREADS
    }
    return ended(&self, good) ? PyBool_FromLong(changed) : NULL;
}

static PyMethodDef methods[] = {{"round_block", round_block, METH_VARARGS, round_block_doc},
                                {"descend_block", descend_block, METH_VARARGS, descend_block_doc},
                                {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_columns", "Rounding of columns in C (see column_blocks.py).", 0, methods, slots, NULL, NULL,
    NULL};

PyMODINIT_FUNC PyInit__columns(void)
{
    return PyModuleDef_Init(&definition);
}
