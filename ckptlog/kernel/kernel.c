/* The hottest pure functions of the write path; see ckptlog/kernel/__init__.py.
 *
 * Rules of this file:
 * - Every function has a twin in Python that it must agree with to the byte; tests run both.
 * - What is rare is not done here: a shortcut answers None, and the caller takes the long way.
 * - No file, no clock, no global state, no call that lets another thread run between reading a
 *   value and writing it down.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "text.h"

/* --- plain values ------------------------------------------------------------------------------
 *
 * plain_wire: a value whose JSON is its wire, checked and written under one hold of the GIL: no
 * code of anybody's runs in between (only exact built-in types are met, and the encoder makes no
 * object that could start a collection), so no other thread can change the value meanwhile.
 */

enum verdict { PLAIN = 1, NOT_PLAIN = 0, FAILED = -1 };

struct walk {
    PyObject *verdicts;     /* dict: key -> is it secret; NULL where nothing is looked for */
    Py_ssize_t containers;  /* how many more may be met */
    int depth_max;
};

static enum verdict check(struct walk *walk, PyObject *value, int depth);

static enum verdict
check_key(struct walk *walk, PyObject *key, Py_ssize_t size)
{
    if (!PyUnicode_CheckExact(key)) {
        return NOT_PLAIN;
    }
    /* An object with one key that begins with `$` is a tag, or a dict to be escaped. */
    if (size == 1 && PyUnicode_GET_LENGTH(key) > 0 && PyUnicode_READ_CHAR(key, 0) == '$') {
        return NOT_PLAIN;
    }
    if (walk->verdicts != NULL) {
        PyObject *is_secret = PyDict_GetItemWithError(walk->verdicts, key);
        if (is_secret == NULL) {
            return PyErr_Occurred() ? FAILED : NOT_PLAIN;  /* a key that was not judged yet */
        }
        if (is_secret != Py_False) {
            return NOT_PLAIN;
        }
    }
    return PLAIN;
}

static enum verdict
check_container(struct walk *walk, PyObject *value, int depth)
{
    if (depth > walk->depth_max || --walk->containers < 0) {
        return NOT_PLAIN;
    }
    enum verdict found = PLAIN;
    if (PyList_CheckExact(value)) {
        for (Py_ssize_t i = 0; found == PLAIN && i < PyList_GET_SIZE(value); i++) {
            found = check(walk, PyList_GET_ITEM(value, i), depth + 1);
        }
        return found;
    }
    PyObject *key, *item;
    Py_ssize_t place = 0, size = PyDict_GET_SIZE(value);
    while (found == PLAIN && PyDict_Next(value, &place, &key, &item)) {
        found = check_key(walk, key, size);
        if (found == PLAIN) {
            found = check(walk, item, depth + 1);
        }
    }
    return found;
}

static enum verdict
check(struct walk *walk, PyObject *value, int depth)
{
    if (PyUnicode_CheckExact(value) || value == Py_None || PyBool_Check(value)) {
        return PLAIN;
    }
    if (PyDict_CheckExact(value) || PyList_CheckExact(value)) {
        return check_container(walk, value, depth);
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? NOT_PLAIN : PLAIN;
    }
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        return number - number == 0.0 ? PLAIN : NOT_PLAIN;
    }
    return NOT_PLAIN;
}

PyDoc_STRVAR(plain_wire_doc,
"plain_wire(value, verdicts, encode, depth_max, containers_max) -> bytes | None\n\n"
"Return encode(value) if that is the value's wire; None where the value must be lowered first.");

static PyObject *
plain_wire(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 5 || !(arguments[1] == Py_None || PyDict_Check(arguments[1]))) {
        PyErr_SetString(PyExc_TypeError, "plain_wire takes 5 arguments, the second a dict or None");
        return NULL;
    }
    long depth_max = PyLong_AsLong(arguments[3]);
    struct walk walk = {
        arguments[1] == Py_None ? NULL : arguments[1],
        PyLong_AsSsize_t(arguments[4]),
        (int)depth_max,
    };
    if (PyErr_Occurred()) {
        return NULL;
    }
    enum verdict found = check(&walk, arguments[0], 1);
    if (found == FAILED) {
        return NULL;
    }
    if (found == NOT_PLAIN) {
        Py_RETURN_NONE;
    }
    PyObject *wire = PyObject_CallOneArg(arguments[2], arguments[0]);
    if (wire == NULL && (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)
                         || PyErr_ExceptionMatches(PyExc_RecursionError))) {
        PyErr_Clear();  /* a lone surrogate, or no stack left: the long way says where */
        Py_RETURN_NONE;
    }
    return wire;
}

/* --- suspicion ---------------------------------------------------------------------------------
 *
 * The table holds, for each byte that leads a hint, what may stand around it:
 *
 *   offset  size  field
 *   0       256   for each byte, the number of its list from 1 on; 0: no list
 *   256     2*n   where each of the n lists begins, little-endian
 *   then, for each list: hints, each
 *   0       1     1 + how many bytes before it are looked at; 0 ends the list
 *   1       1     a byte that must be somewhere in the wire, 0 for none
 *   2       32    set of the bytes that may follow
 *   34      32*n  sets of the bytes that may stand before it, the nearest first
 */

#define HAS(set, byte) ((set)[(byte) >> 3] >> ((byte) & 7) & 1)

static int
is_hint(const unsigned char *hint, const unsigned char *wire, Py_ssize_t at, Py_ssize_t size)
{
    Py_ssize_t before = hint[0] - 1;
    if (at < before || at + 1 >= size || !HAS(hint + 2, wire[at + 1])) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < before; i++) {
        if (!HAS(hint + 34 + 32 * i, wire[at - 1 - i])) {
            return 0;
        }
    }
    return hint[1] == 0 || memchr(wire, hint[1], (size_t)size) != NULL;
}

static int
is_suspicious_at(const unsigned char *table, const unsigned char *wire, Py_ssize_t at,
                 Py_ssize_t size)
{
    unsigned int number = table[wire[at]];
    if (number == 0) {
        return 0;
    }
    const unsigned char *entry = table + 256 + 2 * (number - 1);
    const unsigned char *hint = table + (entry[0] | (unsigned int)entry[1] << 8);
    for (; *hint; hint += 34 + 32 * (*hint - 1)) {
        if (is_hint(hint, wire, at, size)) {
            return 1;
        }
    }
    return 0;
}

static int
is_suspicious(const unsigned char *table, const unsigned char *wire, Py_ssize_t size)
{
    Py_ssize_t at = 0;
    for (; at + 8 <= size; at += 8) {
        const unsigned char *eight = wire + at;
        /* Most stretches of eight bytes hold no letter that leads a hint. */
        if (!(table[eight[0]] | table[eight[1]] | table[eight[2]] | table[eight[3]]
              | table[eight[4]] | table[eight[5]] | table[eight[6]] | table[eight[7]])) {
            continue;
        }
        for (Py_ssize_t i = at; i < at + 8; i++) {
            if (is_suspicious_at(table, wire, i, size)) {
                return 1;
            }
        }
    }
    for (; at < size; at++) {
        if (is_suspicious_at(table, wire, at, size)) {
            return 1;
        }
    }
    return 0;
}

PyDoc_STRVAR(suspicious_doc,
"suspicious(wire, table) -> bool\n\n"
"Say whether some place in the wire looks like a hint of the table (policy/hint_table.py).");

static PyObject *
suspicious(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[1])
        || PyBytes_GET_SIZE(arguments[1]) < 513) {
        PyErr_SetString(PyExc_TypeError, "suspicious takes two bytes objects");
        return NULL;
    }
    return PyBool_FromLong(is_suspicious((const unsigned char *)PyBytes_AS_STRING(arguments[1]),
                                         (const unsigned char *)PyBytes_AS_STRING(arguments[0]),
                                         PyBytes_GET_SIZE(arguments[0])));
}

/* --- the module -------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"plain_wire", (PyCFunction)(void (*)(void))plain_wire, METH_FASTCALL, plain_wire_doc},
    {"suspicious", (PyCFunction)(void (*)(void))suspicious, METH_FASTCALL, suspicious_doc},
    {"end_of_value", (PyCFunction)(void (*)(void))text_end_of_value, METH_FASTCALL,
     "end_of_value(text, at, limit) -> int; as in formats/json_text.py"},
    {"run_of_items", (PyCFunction)(void (*)(void))text_run_of_items, METH_FASTCALL,
     "run_of_items(text, place, is_object, gathered, inline_max, bounds, items_max); as there"},
    {NULL, NULL, 0, NULL},
};

/* Raised with every change of what a function takes or means; ckptlog/kernel/__init__.py has the
 * same number and does without a kernel that has another. */
#define REVISION 2

static int
fill(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "Hot pure functions in C.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
