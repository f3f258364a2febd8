/* Attributes that can be read without running anybody's code; see attribute.c. */
#ifndef CKPTLOG_ATTRIBUTE_H
#define CKPTLOG_ATTRIBUTE_H

#include "kernel.h"

#define SIMPLE_MAX 6     /* attributes of a type that are read so, at most */
#define IN_DICT (-1)     /* in place of an offset: the object's `__dict__` itself */

/* Where the objects of a type have some attributes. version: of the type; 0: not to be read so. */
struct attributes {
    unsigned int version;
    Py_ssize_t offsets[SIMPLE_MAX];
};

/* To be called once, before the others; without it nothing is read so. */
void kernel_prepare_attributes(void);
/* Find out where attributes are. This can run somebody's code. */
void kernel_find_attributes(PyTypeObject *kind, PyObject *names, struct attributes *found);

/* Say whether what was found still holds. */
static inline int
attributes_hold(const struct attributes *found, PyTypeObject *kind)
{
    return found->version != 0 && found->version == kind->tp_version_tag
           && (kind->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG);
}

/* Return an attribute, with a reference; NULL where it has to be asked for, without an error. */
static inline PyObject *
attribute_at(PyObject *value, Py_ssize_t offset)
{
    PyObject *item;
    if (offset == IN_DICT) {
        item = PyObject_GenericGetDict(value, NULL);
        if (item == NULL) {
            PyErr_Clear();
        }
        return item;
    }
    item = *(PyObject **)((char *)value + offset);
    Py_XINCREF(item);
    return item;
}

#endif
