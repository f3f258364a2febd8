/* A branch taken apart: twins of `_links_in` and `_decode` in formats/branch.py; None where these
 * raise. */
#include "kernel.h"

#define DIGEST 32
#define TEXT 0
#define LEAF 1
#define BYTES 3
#define NUMBER_BYTES_MAX 9

struct branch {
    const unsigned char *data;
    Py_ssize_t at, end;
};

static int
take_number(struct branch *branch, unsigned long long *number)
{
    *number = 0;
    for (int index = 0; index < NUMBER_BYTES_MAX && branch->at < branch->end; index++) {
        unsigned char byte = branch->data[branch->at++];
        *number |= (unsigned long long)(byte & 0x7F) << 7 * index;
        if (byte < 0x80) {
            return byte != 0 || index == 0;
        }
    }
    return 0;
}

static int
append(PyObject *list, PyObject *item)
{
    int failed = item == NULL || PyList_Append(list, item) < 0;
    Py_XDECREF(item);
    return !failed;
}

/* Take the next part; 0 where it is none or, with an error, where there is no memory. */
static int
take_part(struct branch *branch, PyObject *leaves, PyObject *others)
{
    unsigned long long head, size;
    if (!take_number(branch, &head)) {
        return 0;
    }
    if ((head & 3) == TEXT) {
        if (head >> 2 > (unsigned long long)(branch->end - branch->at)) {
            return 0;
        }
        branch->at += (Py_ssize_t)(head >> 2);
        return 1;
    }
    if (!take_number(branch, &size) || branch->end - branch->at < DIGEST) {
        return 0;
    }
    const char *digest = (const char *)branch->data + branch->at;
    branch->at += DIGEST;
    if ((head & 3) == LEAF) {
        return append(leaves, PyBytes_FromStringAndSize(digest, DIGEST));
    }
    return append(others, Py_BuildValue("(y#Ki)", digest, (Py_ssize_t)DIGEST, size,
                                        (int)(head & 3)));
}

PyObject *
kernel_links_in(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 1 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "links_in takes bytes");
        return NULL;
    }
    struct branch branch = {(const unsigned char *)PyBytes_AS_STRING(arguments[0]), 0,
                            PyBytes_GET_SIZE(arguments[0])};
    PyObject *answer = NULL, *leaves = PyList_New(0), *others = PyList_New(0);
    if (leaves != NULL && others != NULL) {
        int is_sound = branch.end > 0;
        while (is_sound && branch.at < branch.end) {
            is_sound = take_part(&branch, leaves, others);
        }
        if (!PyErr_Occurred()) {
            answer = is_sound ? PyTuple_Pack(2, leaves, others) : Py_NewRef(Py_None);
        }
    }
    Py_XDECREF(leaves);
    Py_XDECREF(others);
    return answer;
}

/* Return the next part as an object; NULL where there is none that is sound or, with an error,
 * where it cannot be made. was_text: whether the part before is a text, and then this one. */
static PyObject *
next_part(struct branch *branch, PyObject *link, unsigned long long leaf_max, int *was_text)
{
    unsigned long long head, size;
    if (!take_number(branch, &head)) {
        return NULL;
    }
    int kind = (int)(head & 3);
    unsigned long long number = head >> 2, left = (unsigned long long)(branch->end - branch->at);
    const char *text = (const char *)branch->data + branch->at;
    if (kind == TEXT) {
        if (number < 1 || number > left || *was_text) {
            return NULL;
        }
        *was_text = 1;
        branch->at += (Py_ssize_t)number;
        return PyBytes_FromStringAndSize(text, (Py_ssize_t)number);
    }
    *was_text = 0;
    if (!take_number(branch, &size) || size < 1 || branch->end - branch->at < DIGEST
        || (kind == BYTES && number) || (kind == LEAF && size > leaf_max)) {
        return NULL;
    }
    text = (const char *)branch->data + branch->at;
    branch->at += DIGEST;
    PyObject *fields[4] = {PyLong_FromLong(kind), PyBytes_FromStringAndSize(text, DIGEST),
                           PyLong_FromUnsignedLongLong(size), PyLong_FromUnsignedLongLong(number)};
    PyObject *made = NULL;
    if (fields[0] && fields[1] && fields[2] && fields[3]) {
        made = PyObject_Vectorcall(link, fields, 4, NULL);
    }
    for (int index = 0; index < 4; index++) {
        Py_XDECREF(fields[index]);
    }
    return made;
}

PyObject *
kernel_parts_in(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "parts_in takes bytes, a type and a number");
        return NULL;
    }
    unsigned long long leaf_max = PyLong_AsUnsignedLongLong(arguments[2]);
    PyObject *parts = PyErr_Occurred() ? NULL : PyList_New(0);
    if (parts == NULL) {
        return NULL;
    }
    struct branch branch = {(const unsigned char *)PyBytes_AS_STRING(arguments[0]), 0,
                            PyBytes_GET_SIZE(arguments[0])};
    int is_sound = branch.end > 0, was_text = 0;
    while (is_sound && branch.at < branch.end) {
        is_sound = append(parts, next_part(&branch, arguments[1], leaf_max, &was_text));
    }
    if (is_sound) {
        return parts;
    }
    Py_DECREF(parts);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}
