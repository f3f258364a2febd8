/* From what the decoder made to the value: twin of `Lifting` in model/lift.py.
 *
 * What is lifted was decoded a moment ago and is nobody else's, so lists and dicts are changed in
 * place and become those of the value. Only what stands in a tag is made anew.
 *
 * Tags that are rare, and every fault, are Python's: `tagged` is called for that one tag.
 */
#include "kernel.h"

struct lifting {
    PyObject *codecs;  /* dict: name -> (type, lift[, attributes, fresh ones and their makers]) */
    PyObject *tagged;  /* (tag, content, depth) -> value */
    PyObject *failed;  /* (name, type, error or what lift returned): raises */
    int depth_max;
};

/* Return the value, a new reference, of a list or dict. */
static PyObject *lifted(struct lifting *lifting, PyObject *lowered, int depth);

static inline int
is_container(PyObject *value)
{
    return PyDict_CheckExact(value) || PyList_CheckExact(value);
}

static int
may_enter(struct lifting *lifting, int depth)
{
    if (depth > lifting->depth_max) {
        PyErr_Format(PyExc_ValueError, "it is nested deeper than %d containers",
                     lifting->depth_max);
        return 0;
    }
    return 1;
}

static int
lift_items(struct lifting *lifting, PyObject *list, int depth)
{
    if (!may_enter(lifting, depth)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        if (!is_container(item)) {
            continue;
        }
        Py_INCREF(item);
        PyObject *value = lifted(lifting, item, depth + 1);
        Py_DECREF(item);
        if (value == NULL || PyList_SetItem(list, i, value) < 0) {
            return 0;
        }
    }
    return 1;
}

static int
lift_entries(struct lifting *lifting, PyObject *dict, int depth)
{
    if (!may_enter(lifting, depth)) {
        return 0;
    }
    PyObject *key, *item;
    Py_ssize_t place = 0;
    while (PyDict_Next(dict, &place, &key, &item)) {
        if (!is_container(item)) {
            continue;
        }
        Py_INCREF(key);
        Py_INCREF(item);
        PyObject *value = lifted(lifting, item, depth + 1);
        /* The key is there already: the dict keeps its size, the loop its footing. */
        int is_set = value != NULL && (value == item || PyDict_SetItem(dict, key, value) == 0);
        Py_XDECREF(value);
        Py_DECREF(item);
        Py_DECREF(key);
        if (!is_set) {
            return 0;
        }
    }
    return 1;
}

/* Return the tag that a dict is; NULL where it is a plain one. */
static PyObject *
tag_of(PyObject *dict, PyObject **content)
{
    PyObject *key;
    Py_ssize_t place = 0;
    if (PyDict_GET_SIZE(dict) != 1 || !PyDict_Next(dict, &place, &key, content)
        || !PyUnicode_CheckExact(key) || PyUnicode_GET_LENGTH(key) == 0
        || PyUnicode_READ_CHAR(key, 0) != '$') {
        return NULL;
    }
    return key;
}

static PyObject *
raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    if (trace != NULL) {
        PyException_SetTraceback(error, trace);
    }
    Py_XDECREF(kind);
    Py_XDECREF(trace);
    return error;
#endif
}

/* Hand what went wrong to Python; its exception is the answer. */
static PyObject *
fail(struct lifting *lifting, PyObject *name, PyObject *kind, PyObject *what)
{
    PyObject *answer = PyObject_CallFunctionObjArgs(lifting->failed, name, kind, what, NULL);
    if (answer != NULL) {
        Py_DECREF(answer);
        PyErr_SetString(PyExc_SystemError, "failed must raise");
    }
    return NULL;
}

/* Say whether an object is built here: content and codec are what they must be. */
static int
is_built(PyObject *content, PyObject *codec)
{
    return PyTuple_GET_SIZE(codec) == 4 && PyList_CheckExact(content)
           && PyList_GET_SIZE(content) == PyTuple_GET_SIZE(PyTuple_GET_ITEM(codec, 2));
}

static int
set_fresh(PyObject *value, PyObject *fresh)
{
    for (Py_ssize_t i = 0; i + 1 < PyTuple_GET_SIZE(fresh); i += 2) {
        PyObject *item = PyObject_CallNoArgs(PyTuple_GET_ITEM(fresh, i + 1));
        if (item == NULL) {
            return 0;
        }
        int failed = PyObject_GenericSetAttr(value, PyTuple_GET_ITEM(fresh, i), item);
        Py_DECREF(item);
        if (failed) {
            return 0;
        }
    }
    return 1;
}

/* kind.__new__(kind), and each attribute by object.__setattr__: twin of `Built` in codec.py. */
static PyObject *
build(PyObject *content, PyObject *codec)
{
    PyTypeObject *kind = (PyTypeObject *)PyTuple_GET_ITEM(codec, 0);
    PyObject *names = PyTuple_GET_ITEM(codec, 2), *nothing = PyTuple_New(0);
    PyObject *value = nothing == NULL ? NULL : kind->tp_new(kind, nothing, NULL);
    Py_XDECREF(nothing);
    for (Py_ssize_t i = 0; value != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *item = i < PyList_GET_SIZE(content) ? PyList_GET_ITEM(content, i) : Py_None;
        Py_INCREF(item);
        if (PyObject_GenericSetAttr(value, PyTuple_GET_ITEM(names, i), item) < 0) {
            Py_CLEAR(value);
        }
        Py_DECREF(item);
    }
    if (value != NULL && !set_fresh(value, PyTuple_GET_ITEM(codec, 3))) {
        Py_CLEAR(value);
    }
    return value;
}

static PyObject *
lift_object(struct lifting *lifting, PyObject *content, PyObject *codec, int depth)
{
    if (!may_enter(lifting, depth)) {
        return NULL;
    }
    PyObject *name = PyList_GET_ITEM(content, 0), *inside = PyList_GET_ITEM(content, 1);
    PyObject *kind = PyTuple_GET_ITEM(codec, 0), *value = NULL;
    Py_INCREF(name);
    Py_INCREF(inside);
    if (is_container(inside)) {
        Py_SETREF(inside, lifted(lifting, inside, depth + 1));
    }
    if (inside != NULL) {
        value = is_built(inside, codec)
                    ? build(inside, codec)
                    : PyObject_CallOneArg(PyTuple_GET_ITEM(codec, 1), inside);
        if (value == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyObject *error = raised();
            fail(lifting, name, kind, error);
            Py_XDECREF(error);
        }
        else if (value != NULL && (PyObject *)Py_TYPE(value) != kind) {
            fail(lifting, name, kind, value);
            Py_CLEAR(value);
        }
        Py_DECREF(inside);
    }
    Py_DECREF(name);
    return value;
}

/* Return what to do with `$type`: its codec, borrowed; NULL where Python shall look. */
static PyObject *
codec_of(struct lifting *lifting, PyObject *content)
{
    if (!PyList_CheckExact(content) || PyList_GET_SIZE(content) != 2
        || !PyUnicode_CheckExact(PyList_GET_ITEM(content, 0))) {
        return NULL;
    }
    PyObject *codec = PyDict_GetItemWithError(lifting->codecs, PyList_GET_ITEM(content, 0));
    return codec;
}

static PyObject *
lift_tag(struct lifting *lifting, PyObject *tag, PyObject *content, int depth)
{
    PyObject *ignored, *codec;
    if (PyUnicode_CompareWithASCIIString(tag, "$type") == 0) {
        codec = codec_of(lifting, content);
        if (codec != NULL) {
            return lift_object(lifting, content, codec, depth);
        }
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    else if (PyList_CheckExact(content)
             && PyUnicode_CompareWithASCIIString(tag, "$tuple") == 0) {
        return lift_items(lifting, content, depth) ? PyList_AsTuple(content) : NULL;
    }
    else if (PyDict_CheckExact(content) && tag_of(content, &ignored) != NULL
             && PyUnicode_CompareWithASCIIString(tag, "$object") == 0) {
        return lift_entries(lifting, content, depth) ? Py_NewRef(content) : NULL;
    }
    PyObject *answer = NULL, *at = PyLong_FromLong(depth);
    if (at != NULL) {
        answer = PyObject_CallFunctionObjArgs(lifting->tagged, tag, content, at, NULL);
        Py_DECREF(at);
    }
    return answer;
}

static PyObject *
lifted(struct lifting *lifting, PyObject *lowered, int depth)
{
    if (PyList_CheckExact(lowered)) {
        return lift_items(lifting, lowered, depth) ? Py_NewRef(lowered) : NULL;
    }
    PyObject *content, *tag = tag_of(lowered, &content);
    if (tag == NULL) {
        return lift_entries(lifting, lowered, depth) ? Py_NewRef(lowered) : NULL;
    }
    Py_INCREF(tag);
    Py_INCREF(content);
    PyObject *value = lift_tag(lifting, tag, content, depth);
    Py_DECREF(content);
    Py_DECREF(tag);
    return value;
}

static int
is_codec(PyObject *codec)
{
    if (!PyTuple_CheckExact(codec) || PyTuple_GET_SIZE(codec) < 2
        || !PyType_Check(PyTuple_GET_ITEM(codec, 0))) {
        return 0;
    }
    return PyTuple_GET_SIZE(codec) == 2
           || (PyTuple_GET_SIZE(codec) == 4 && PyTuple_CheckExact(PyTuple_GET_ITEM(codec, 2))
               && PyTuple_CheckExact(PyTuple_GET_ITEM(codec, 3))
               && ((PyTypeObject *)PyTuple_GET_ITEM(codec, 0))->tp_new != NULL);
}

PyObject *
kernel_lift(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 5 || !PyDict_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "lift takes 5 arguments, the second a dict");
        return NULL;
    }
    PyObject *name, *codec;
    Py_ssize_t place = 0;
    while (PyDict_Next(arguments[1], &place, &name, &codec)) {
        if (!is_codec(codec)) {
            PyErr_SetString(PyExc_TypeError, "a codec is (type, function[, names, fresh])");
            return NULL;
        }
    }
    struct lifting lifting = {
        arguments[1], arguments[2], arguments[3], (int)PyLong_AsLong(arguments[4]),
    };
    if (PyErr_Occurred()) {
        return NULL;
    }
    return is_container(arguments[0]) ? lifted(&lifting, arguments[0], 1)
                                      : Py_NewRef(arguments[0]);
}
