/* Where the objects of a type have their attributes.
 *
 * Theory. `value.name` is a search in the type and its bases, and then whatever the found thing
 * does. For a slot (`__slots__`) that is a load from a fixed place in the object; for `__dict__`,
 * what PyObject_GenericGetDict does. Where a type looks attributes up as `object` does and a name
 * leads to one of the two, the search need not be done again for the next object: nothing of it
 * can have changed while the type has the same version, which the interpreter gives anew with
 * every change of the type or of a base, and relies on itself. `__getattr__` does not matter:
 * it is asked only where nothing is found, and an empty slot is not read so.
 */
#include "attribute.h"

#include <structmember.h>
#include <string.h>

/* What `__dict__` of a class written in Python does; it is the interpreter's, and never changes. */
static getter dict_of_object;

void
kernel_prepare_attributes(void)
{
    PyObject *plain = PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "plain");
    PyObject *name = PyUnicode_InternFromString("__dict__");
    if (plain != NULL && name != NULL) {
        PyObject *found = _PyType_Lookup((PyTypeObject *)plain, name);
        if (found != NULL && Py_IS_TYPE(found, &PyGetSetDescr_Type)) {
            dict_of_object = ((PyGetSetDescrObject *)found)->d_getset->get;
        }
    }
    PyErr_Clear();
    Py_XDECREF(plain);
    Py_XDECREF(name);
}

/* Say whether a type finds attributes as `object` does. */
static int
looks_up_as_object(PyTypeObject *kind)
{
    PyObject *name = PyUnicode_InternFromString("__getattribute__");
    if (name == NULL) {
        PyErr_Clear();
        return 0;
    }
    PyObject *usual = _PyType_Lookup(&PyBaseObject_Type, name);
    int is_usual = usual != NULL && _PyType_Lookup(kind, name) == usual;
    Py_DECREF(name);
    return is_usual;
}

/* Say whether `__dict__` of a type's objects is their own, and not one that a base written in C
 * has its own way to. */
static int
has_plain_dict(PyTypeObject *kind)
{
    for (PyTypeObject *base = kind; base->tp_base != NULL; base = base->tp_base) {
        if (base->tp_dictoffset != 0 && !(base->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
            return 0;
        }
    }
    return 1;
}

/* Return an offset, or IN_DICT; 0 where it is neither. */
static Py_ssize_t
offset_of(PyTypeObject *kind, PyObject *name)
{
    PyObject *found = _PyType_Lookup(kind, name);
    if (found == NULL) {
        return 0;
    }
    int is_slot = Py_IS_TYPE(found, &PyMemberDescr_Type);
    if (!is_slot && !Py_IS_TYPE(found, &PyGetSetDescr_Type)) {
        return 0;
    }
    if (!PyType_IsSubtype(kind, PyDescr_TYPE(found))) {
        return 0;  /* taken from a class that has nothing to do with this one */
    }
    if (is_slot) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        int is_plain = member->type == T_OBJECT_EX && (member->flags & ~READONLY) == 0;
        return is_plain && member->offset > 0 ? member->offset : 0;
    }
    getter get = ((PyGetSetDescrObject *)found)->d_getset->get;
    return get != NULL && get == dict_of_object && has_plain_dict(kind) ? IN_DICT : 0;
}

void
kernel_find_attributes(PyTypeObject *kind, PyObject *names, struct attributes *found)
{
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    found->version = 0;
    if (count > SIMPLE_MAX || !looks_up_as_object(kind)) {
        return;
    }
    unsigned int version = kind->tp_version_tag;  /* it has one since something was looked up */
    for (Py_ssize_t i = 0; i < count; i++) {
        found->offsets[i] = offset_of(kind, PyTuple_GET_ITEM(names, i));
        if (found->offsets[i] == 0) {
            return;
        }
    }
    found->version = version;  /* had one of the searches changed the type, it would not hold */
}
