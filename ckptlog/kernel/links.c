/* The links in a branch: twin of `_links_in` in formats/branch.py; None where that one raises. */
#include "kernel.h"

#define DIGEST 32
#define LEAF 1
#define TEXT 0
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
