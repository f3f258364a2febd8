/* The lines of a pack's index, sorted, checked, and searched: twin of formats/line.py. */
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#include "lines.h"

#define KEY 16
#define SIEVE_MAX (1 << 29)

/* Append a tuple of bytes and numbers: no cycle goes through one, so the collector need not know it. */
static int
append(PyObject *list, PyObject *item)
{
    if (item != NULL && PyObject_GC_IsTracked(item)) {
        PyObject_GC_UnTrack(item);
    }
    int failed = item == NULL || PyList_Append(list, item) < 0;
    Py_XDECREF(item);
    return !failed;
}

/* Say whether a chunk is asked for; -1 with an error. */
static int
is_kept(PyObject *keys, const unsigned char *digest)
{
    if (keys == NULL || PySet_GET_SIZE(keys) == 0) {
        return keys == NULL;
    }
    PyObject *key = PyBytes_FromStringAndSize((const char *)digest, KEY);
    if (key == NULL) {
        return -1;
    }
    int found = PySet_Contains(keys, key);
    Py_DECREF(key);
    return found;
}

/* A table of bits says quickly of most keys that they are not asked for. */
struct sieve {
    const unsigned char *bits;
    uint64_t mask;  /* 0: there is none */
};

static uint64_t
bit_of(const unsigned char *digest, uint64_t mask)
{
    return number_at(digest) & mask;
}

static int
passes(const struct sieve *sieve, const unsigned char *digest)
{
    uint64_t bit = bit_of(digest, sieve->mask);
    return !sieve->mask || sieve->bits[bit >> 3] >> (bit & 7) & 1;
}

static PyObject *
lines_of(const unsigned char *body, Py_ssize_t size, PyObject *keys, const struct sieve *sieve)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0; found != NULL && at < size; at += LINE) {
        const unsigned char *line = body + at;
        int kept = passes(sieve, line) ? is_kept(keys, line) : 0;
        unsigned long long offset = number_at(line + DIGEST)
                                    | (unsigned long long)number_at(line + DIGEST + 4) << 32;
        if (kept < 0
            || (kept && !append(found, Py_BuildValue("(y#KI)", (const char *)line,
                                                     (Py_ssize_t)DIGEST, offset,
                                                     number_at(line + DIGEST + 8))))) {
            Py_CLEAR(found);
        }
    }
    return found;
}

/* Add the key of a line that is asked for to a set; -1 with an error, else whether it is. */
static int
meet(PyObject *met, PyObject *keys, const unsigned char *line)
{
    PyObject *key = PyBytes_FromStringAndSize((const char *)line, KEY);
    int found = key == NULL ? -1 : PySet_Contains(keys, key);
    if (found > 0 && PySet_Add(met, key) < 0) {
        found = -1;
    }
    Py_XDECREF(key);
    return found;
}

/* Say whether some bytes can be a sieve: none, or a power of two of them, at most 2**29. */
static int
is_sieve(PyObject *object)
{
    if (!PyBytes_CheckExact(object)) {
        return 0;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(object);
    return (size & (size - 1)) == 0 && size <= SIEVE_MAX;
}

static struct sieve
sieve_in(PyObject *bits)
{
    struct sieve sieve = {(const unsigned char *)PyBytes_AS_STRING(bits), 0};
    if (PyBytes_GET_SIZE(bits)) {
        sieve.mask = 8 * (uint64_t)PyBytes_GET_SIZE(bits) - 1;
    }
    return sieve;
}

PyObject *
kernel_lines_among(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[0])
        || PyBytes_GET_SIZE(arguments[0]) % LINE != 0
        || !(arguments[1] == Py_None || PyAnySet_CheckExact(arguments[1]))
        || !is_sieve(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "lines_among takes whole lines, a set or None, a sieve");
        return NULL;
    }
    struct sieve sieve = sieve_in(arguments[2]);
    return lines_of((const unsigned char *)PyBytes_AS_STRING(arguments[0]),
                    PyBytes_GET_SIZE(arguments[0]), arguments[1] == Py_None ? NULL : arguments[1],
                    &sieve);
}

PyObject *
kernel_met_among(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[0])
        || PyBytes_GET_SIZE(arguments[0]) % LINE != 0 || !PyAnySet_CheckExact(arguments[1])
        || !is_sieve(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "met_among takes whole lines, a set, a sieve");
        return NULL;
    }
    struct sieve sieve = sieve_in(arguments[2]);
    const unsigned char *line = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
    const unsigned char *end = line + PyBytes_GET_SIZE(arguments[0]);
    unsigned long long lines = 0, size = 0;
    PyObject *met = PySet_New(NULL);
    for (; met != NULL && line < end; line += LINE) {
        int found = passes(&sieve, line) ? meet(met, arguments[1], line) : 0;
        if (found < 0) {
            Py_CLEAR(met);
        }
        else if (found) {
            lines++;
            size += number_at(line + DIGEST + 8);
        }
    }
    return met == NULL ? NULL : Py_BuildValue("(NKK)", met, lines, size);
}

static int
fill_sieve(unsigned char *bits, uint64_t mask, PyObject *keys)
{
    PyObject *iterator = PyObject_GetIter(keys), *key;
    if (iterator == NULL) {
        return 0;
    }
    while ((key = PyIter_Next(iterator)) != NULL) {
        if (!PyBytes_CheckExact(key) || PyBytes_GET_SIZE(key) < KEY) {
            PyErr_SetString(PyExc_TypeError, "keys are bytes");
            Py_DECREF(key);
            break;
        }
        uint64_t bit = bit_of((const unsigned char *)PyBytes_AS_STRING(key), mask);
        bits[bit >> 3] |= (unsigned char)(1 << (bit & 7));
        Py_DECREF(key);
    }
    Py_DECREF(iterator);
    return !PyErr_Occurred();
}

PyObject *
kernel_sieve_of(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t size = count == 2 ? PyLong_AsSsize_t(arguments[1]) : -1;
    if (count != 2 || size < 1 || (size & (size - 1)) || size > SIEVE_MAX
        || !PyAnySet_CheckExact(arguments[0])) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "sieve_of takes a set, and a power of two of bytes");
        }
        return NULL;
    }
    PyObject *sieve = PyBytes_FromStringAndSize(NULL, size);
    if (sieve == NULL) {
        return NULL;
    }
    unsigned char *bits = (unsigned char *)PyBytes_AS_STRING(sieve);
    memset(bits, 0, size);
    if (!fill_sieve(bits, 8 * (uint64_t)size - 1, arguments[0])) {
        Py_CLEAR(sieve);
    }
    return sieve;
}

static int
compare_lines(const void *left, const void *right)
{
    return memcmp(left, right, DIGEST);
}

static int
pack_line(PyObject *item, unsigned char *to)
{
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3
        || !PyBytes_CheckExact(PyTuple_GET_ITEM(item, 0))
        || PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 0)) != DIGEST) {
        PyErr_SetString(PyExc_TypeError, "a line is a digest, an offset, a length");
        return 0;
    }
    unsigned long long offset = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(item, 1));
    unsigned long long length
        = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(item, 2));
    if (PyErr_Occurred() || length > UINT32_MAX) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_OverflowError, "a length has 32 bits");
        }
        return 0;
    }
    memcpy(to, PyBytes_AS_STRING(PyTuple_GET_ITEM(item, 0)), DIGEST);
    put_number(to + DIGEST, offset, 8);
    put_number(to + DIGEST + 8, length, 4);
    return 1;
}

PyObject *
kernel_sorted_lines(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 1 || !PyList_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "sorted_lines takes a list");
        return NULL;
    }
    Py_ssize_t lines = PyList_GET_SIZE(arguments[0]);
    PyObject *body = lines > PY_SSIZE_T_MAX / LINE ? PyErr_NoMemory()
                                                   : PyBytes_FromStringAndSize(NULL, LINE * lines);
    for (Py_ssize_t at = 0; body != NULL && at < lines; at++) {
        if (!pack_line(PyList_GET_ITEM(arguments[0], at),
                       (unsigned char *)PyBytes_AS_STRING(body) + LINE * at)) {
            Py_CLEAR(body);
        }
    }
    if (body != NULL) {
        qsort(PyBytes_AS_STRING(body), lines, LINE, compare_lines);
    }
    return body;
}

/* Say whether digests ascend, and whether what the lines name lies between two offsets. */
PyObject *
kernel_order_of_lines(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[0])
        || PyBytes_GET_SIZE(arguments[0]) % LINE != 0) {
        PyErr_SetString(PyExc_TypeError, "order_of_lines takes whole lines, and two offsets");
        return NULL;
    }
    uint64_t first = PyLong_AsUnsignedLongLong(arguments[1]);
    uint64_t stop = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(arguments[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    const unsigned char *body = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
    int ascends = 1, lies_inside = 1;
    for (Py_ssize_t at = 0; at < PyBytes_GET_SIZE(arguments[0]); at += LINE) {
        const unsigned char *line = body + at;
        uint64_t offset = number_at(line + DIGEST) | (uint64_t)number_at(line + DIGEST + 4) << 32;
        uint64_t length = number_at(line + DIGEST + 8);
        ascends &= !at || compare_lines(line - LINE, line) < 0;
        lies_inside &= offset >= first && offset <= stop && length <= stop - offset;
    }
    return Py_BuildValue("(NN)", PyBool_FromLong(ascends), PyBool_FromLong(lies_inside));
}
