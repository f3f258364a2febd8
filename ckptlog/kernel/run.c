/* The search in a run of the chunk index: twin of `_place_of` in blobs/run.py. */
#include "kernel.h"

#include <string.h>

#define KEY 16
#define HEAD 32
#define ENTRY 32
#define BLOCK 128

#define NOWHERE (-1)
#define UNSURE (-2)

struct run {
    Py_buffer data, buckets, checked;
};

/* Return the number of the entry with a key, NOWHERE, or UNSURE where the long way is to say. */
static Py_ssize_t
place_of(const struct run *run, unsigned int shift, Py_ssize_t count, const unsigned char *key)
{
    unsigned int begin = (unsigned int)key[0] << 24 | (unsigned int)key[1] << 16
                         | (unsigned int)key[2] << 8 | (unsigned int)key[3];
    Py_ssize_t bucket = shift > 31 ? 0 : begin >> shift;
    if (run->buckets.itemsize != sizeof(unsigned int)
        || bucket + 2 > run->buckets.len / (Py_ssize_t)sizeof(unsigned int)) {
        return UNSURE;
    }
    const unsigned int *bounds = (const unsigned int *)run->buckets.buf + bucket;
    Py_ssize_t first = bounds[0], stop = bounds[1];
    if (stop > count || run->data.len < HEAD + count * ENTRY) {
        return UNSURE;
    }
    if (first >= stop) {
        return NOWHERE;
    }
    const unsigned char *checked = run->checked.buf;
    if ((stop - 1) / BLOCK >= run->checked.len || !checked[first / BLOCK]
        || !checked[(stop - 1) / BLOCK]) {
        return UNSURE;
    }
    const unsigned char *entry = (const unsigned char *)run->data.buf + HEAD + first * ENTRY;
    for (Py_ssize_t number = first; number < stop; number++, entry += ENTRY) {
        if (memcmp(entry, key, KEY) == 0) {
            return number;
        }
    }
    return NOWHERE;
}

PyObject *
kernel_place_in_run(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 6 || !PyBytes_CheckExact(arguments[5])
        || PyBytes_GET_SIZE(arguments[5]) < KEY) {
        PyErr_SetString(PyExc_TypeError, "place_in_run takes three buffers, two numbers, a key");
        return NULL;
    }
    unsigned long shift = PyLong_AsUnsignedLong(arguments[3]);
    Py_ssize_t entries = PyErr_Occurred() ? -1 : PyLong_AsSsize_t(arguments[4]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (entries < 0 || entries > (PY_SSIZE_T_MAX - HEAD) / ENTRY || shift > 32) {
        return PyLong_FromLong(UNSURE);
    }
    struct run run = {{0}, {0}, {0}};
    PyObject *answer = NULL;
    if (PyObject_GetBuffer(arguments[0], &run.data, PyBUF_SIMPLE) == 0
        && PyObject_GetBuffer(arguments[1], &run.buckets, PyBUF_ND) == 0
        && PyObject_GetBuffer(arguments[2], &run.checked, PyBUF_SIMPLE) == 0) {
        const unsigned char *key = (const unsigned char *)PyBytes_AS_STRING(arguments[5]);
        answer = PyLong_FromSsize_t(place_of(&run, (unsigned int)shift, entries, key));
    }
    PyBuffer_Release(&run.data);
    PyBuffer_Release(&run.buckets);
    PyBuffer_Release(&run.checked);
    return answer;
}
