/* Walks JSON text along its structure; see ckptlog/formats/json_text.py, whose twins these are.
 *
 * The text is our own encoder's. Should it not be sound, the walk still ends inside the text, and
 * says -1: every loop moves forward and is bounded by the text's end.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "kernel.h"

/* Returns the offset behind the string that begins at `at`, or -1. */
static Py_ssize_t
string_end(const unsigned char *text, Py_ssize_t at, Py_ssize_t size)
{
    at++;
    for (;;) {
#ifdef __SSE2__
        const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
        while (at + 16 <= size) {
            __m128i sixteen = _mm_loadu_si128((const __m128i *)(text + at));
            int found = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(sixteen, quote),
                                                       _mm_cmpeq_epi8(sixteen, backslash)));
            if (found) {
                at += __builtin_ctz((unsigned int)found);
                break;
            }
            at += 16;
        }
#endif
        while (at < size && text[at] != '"' && text[at] != '\\') {
            at++;
        }
        if (at >= size) {
            return -1;
        }
        if (text[at] == '"') {
            return at + 1;
        }
        at += 2;  /* an escape: whatever follows the backslash is no end */
    }
}

/* Returns the offset behind the value that begins at `at`; -1 where it is longer than `limit`, or
 * has no end. */
static Py_ssize_t
value_end(const unsigned char *text, Py_ssize_t at, Py_ssize_t size, Py_ssize_t limit)
{
    Py_ssize_t begin = at;
    Py_ssize_t stop = limit < size - at ? at + limit : size;
    Py_ssize_t depth = 0;
    while (at < size) {
        switch (text[at]) {
        case '"':
            at = string_end(text, at, size);
            if (at < 0) {
                return -1;
            }
            break;
        case '[':
        case '{':
            depth++;
            at++;
            break;
        case ']':
        case '}':
            if (depth == 0) {  /* the end of what is around: there is no value */
                return at;
            }
            depth--;
            at++;
            break;
        default:
            if (depth == 0) {  /* a number or a word */
                while (at < size && text[at] != ',' && text[at] != ']' && text[at] != '}') {
                    at++;
                }
            }
            else {
                at++;
                continue;
            }
        }
        if (depth <= 0) {
            return at - begin <= limit ? at : -1;
        }
        if (at > stop) {
            return -1;
        }
    }
    return -1;
}

/* XXH64 with seed 0, from its published description. */

#define P1 UINT64_C(11400714785074694791)
#define P2 UINT64_C(14029467366897019727)
#define P3 UINT64_C(1609587929392839161)
#define P4 UINT64_C(9650029242287828579)
#define P5 UINT64_C(2870177450012600261)

static uint64_t
rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static uint64_t
load(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {  /* little-endian on every machine; compilers see one load */
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

static uint64_t
turn(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * P2, 31) * P1;
}

static uint64_t
number_of(const unsigned char *at, size_t size)
{
    const unsigned char *end = at + size;
    uint64_t hash;
    if (size >= 32) {
        uint64_t lanes[4] = {P1 + P2, P2, 0, 0 - P1};
        for (; end - at >= 32; at += 32) {
            for (int i = 0; i < 4; i++) {
                lanes[i] = turn(lanes[i], load(at + 8 * i, 8));
            }
        }
        hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12)
            + rotate(lanes[3], 18);
        for (int i = 0; i < 4; i++) {
            hash = (hash ^ turn(0, lanes[i])) * P1 + P4;
        }
    }
    else {
        hash = P5;
    }
    hash += size;
    for (; end - at >= 8; at += 8) {
        hash = rotate(hash ^ turn(0, load(at, 8)), 27) * P1 + P4;
    }
    if (end - at >= 4) {
        hash = rotate(hash ^ load(at, 4) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++) {
        hash = rotate(hash ^ *at * P5, 11) * P1;
    }
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}

static int
is_text(PyObject *text, Py_ssize_t at)
{
    if (PyErr_Occurred()) {
        return 0;
    }
    if (!PyBytes_CheckExact(text)) {
        PyErr_SetString(PyExc_TypeError, "a bytes object is needed");
        return 0;
    }
    if (at < 0 || at >= PyBytes_GET_SIZE(text)) {
        PyErr_SetString(PyExc_IndexError, "an offset in the text is needed");
        return 0;
    }
    return 1;
}

PyObject *
kernel_end_of_value(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "end_of_value takes 3 arguments");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]), limit = PyLong_AsSsize_t(arguments[2]);
    if (!is_text(arguments[0], at)) {
        return NULL;
    }
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
    return PyLong_FromSsize_t(value_end(text, at, PyBytes_GET_SIZE(arguments[0]), limit));
}

PyObject *
kernel_run_of_items(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 7) {
        PyErr_SetString(PyExc_TypeError, "run_of_items takes 7 arguments");
        return NULL;
    }
    Py_ssize_t place = PyLong_AsSsize_t(arguments[1]);
    int is_object = PyObject_IsTrue(arguments[2]);
    Py_ssize_t gathered = PyLong_AsSsize_t(arguments[3]);
    Py_ssize_t inline_max = PyLong_AsSsize_t(arguments[4]);
    if (!PyTuple_Check(arguments[5]) || PyTuple_GET_SIZE(arguments[5]) != 3) {
        PyErr_SetString(PyExc_TypeError, "a tuple of least, mean and most is needed");
        return NULL;
    }
    Py_ssize_t least = PyLong_AsSsize_t(PyTuple_GET_ITEM(arguments[5], 0));
    Py_ssize_t mean = PyLong_AsSsize_t(PyTuple_GET_ITEM(arguments[5], 1));
    Py_ssize_t most = PyLong_AsSsize_t(PyTuple_GET_ITEM(arguments[5], 2));
    Py_ssize_t items_max = PyLong_AsSsize_t(arguments[6]);
    if (!is_text(arguments[0], place)) {
        return NULL;
    }
    if (mean <= 0) {
        PyErr_SetString(PyExc_ValueError, "the mean must be above 0");
        return NULL;
    }
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
    Py_ssize_t size = PyBytes_GET_SIZE(arguments[0]), items = 0;
    uint64_t drawn = 0;
    int is_closed = 0;
    while (items < items_max && place < size && text[place] != ']' && text[place] != '}') {
        Py_ssize_t begin = place + (text[place] == ','), at = begin;
        if (is_object) {
            at = begin < size && text[begin] == '"' ? string_end(text, begin, size) : -1;
            if (at < 0 || ++at > size) {  /* and the colon */
                break;
            }
        }
        Py_ssize_t end = at < size ? value_end(text, at, size, inline_max) : -1;
        if (end < 0 || end == begin) {
            break;
        }
        place = end;
        items++;
        gathered += end - begin;
        if (gathered >= least) {
            drawn = number_of(text + begin, (size_t)(end - begin));
            if (drawn % (uint64_t)mean < (uint64_t)(end - begin) || gathered >= most) {
                is_closed = 1;
                break;
            }
        }
    }
    return Py_BuildValue("nnnKi", place, gathered, items, (unsigned long long)drawn, is_closed);
}

PyObject *
kernel_is_same(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "is_same takes 5 arguments");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]), from = PyLong_AsSsize_t(arguments[3]);
    Py_ssize_t size = PyLong_AsSsize_t(arguments[4]);
    if (!is_text(arguments[0], at) || !is_text(arguments[2], from)) {
        return NULL;
    }
    if (size < 0 || size > PyBytes_GET_SIZE(arguments[0]) - at
        || size > PyBytes_GET_SIZE(arguments[2]) - from) {
        Py_RETURN_FALSE;
    }
    return PyBool_FromLong(memcmp(PyBytes_AS_STRING(arguments[0]) + at,
                                  PyBytes_AS_STRING(arguments[2]) + from, (size_t)size) == 0);
}
