/* The module: its functions by name. */
#include "attribute.h"
#include "hash.h"

PyDoc_STRVAR(wire_doc,
"wire(value, codecs, verdicts, replacement, odd, context, encode, depth_max, containers_max)\n"
"-> bytes | None\n\n"
"Return the wire of a value; None where only the long way can say what it is.");

PyDoc_STRVAR(lift_doc,
"lift(lowered, codecs, tagged, failed, depth_max) -> value\n\n"
"Return the value of what was just decoded; its lists and dicts become those of the value.");

PyDoc_STRVAR(suspect_doc,
"suspect(wire, table, at) -> int\n\n"
"Return the first place from at on that looks like a hint of the table (policy/hint_table.py), or\n"
"-1.");

PyDoc_STRVAR(end_of_value_doc,
"end_of_value(text, at, limit) -> int\n\nDo as formats/json_text.py.");

PyDoc_STRVAR(is_same_doc,
"is_same(text, at, other, start, size) -> bool\n\nDo as formats/json_text.py.");

PyDoc_STRVAR(run_of_items_doc,
"run_of_items(text, place, is_object, gathered, inline_max, bounds, items_max) -> tuple\n\n"
"Do as formats/json_text.py.");

PyDoc_STRVAR(outline_doc,
"outline(data, at, stop, items_max) -> tuple\n\nDo as formats/outline.py.");

PyDoc_STRVAR(lines_among_doc,
"lines_among(body, keys, sieve) -> list\n\nDo as formats/line.py.");

PyDoc_STRVAR(met_among_doc,
"met_among(body, keys, sieve) -> (set, int, int)\n\nDo as formats/line.py.");

PyDoc_STRVAR(sieve_of_doc,
"sieve_of(keys, size) -> bytes\n\nDo as formats/line.py.");

PyDoc_STRVAR(sorted_lines_doc,
"sorted_lines(lines) -> bytes\n\nDo as formats/line.py.");

PyDoc_STRVAR(order_of_lines_doc,
"order_of_lines(body, first, stop) -> (bool, bool)\n\nDo as formats/line.py.");

PyDoc_STRVAR(relocate_doc,
"relocate(data, base, lines, source, target, at) -> tuple\n\nDo as formats/relocation.py.");

PyDoc_STRVAR(raw_leaves_doc,
"raw_leaves(seed, base, data, is_hashed) -> list\n\nDo as formats/raw_leaf.py.");

PyDoc_STRVAR(links_in_doc,
"links_in(raw) -> tuple | None\n\nDo as formats/branch.py; None where that raises.");

PyDoc_STRVAR(parts_in_doc,
"parts_in(raw, link, leaf_max) -> list | None\n\nDo as formats/branch.py; None where that raises.");

PyDoc_STRVAR(place_in_run_doc,
"place_in_run(data, buckets, checked, shift, count, digest) -> int\n\nDo as blobs/run.py.");

PyDoc_STRVAR(short_entry_doc,
"short_entry(types, actor, created, time, checkpoint, data's root, size, kind, id, meta's root,\n"
"size, kind, new, origin, previous, namespace, state, step, task, total, type, parent, worker)\n"
"-> bytes | None\n\n"
"Return an ordinary event in schema 2; None where only the long way can write it.");

PyDoc_STRVAR(short_event_doc,
"short_event(entry, parts) -> Event | None\n\n"
"Return the event of an ordinary entry of schema 2; None where only the long way can read it.");

PyDoc_STRVAR(confirm_doc,
"confirm(root, blob, start, stop, reserved) -> bytes\n\n"
"Return for each record of the blob whether its directory below root is as remembered.");

PyDoc_STRVAR(look_doc,
"look(fd, reserved) -> tuple | None\n\nDo as capture/directory/folder.py.");

#define FUNCTION(name) \
    {#name, (PyCFunction)(void (*)(void))kernel_##name, METH_FASTCALL, name##_doc}

static PyMethodDef methods[] = {
    FUNCTION(wire),
    FUNCTION(lift),
    FUNCTION(suspect),
    FUNCTION(end_of_value),
    FUNCTION(run_of_items),
    FUNCTION(is_same),
    FUNCTION(outline),
    FUNCTION(lines_among),
    FUNCTION(met_among),
    FUNCTION(sieve_of),
    FUNCTION(sorted_lines),
    FUNCTION(order_of_lines),
    FUNCTION(relocate),
    FUNCTION(raw_leaves),
    FUNCTION(links_in),
    FUNCTION(parts_in),
    FUNCTION(place_in_run),
    FUNCTION(short_entry),
    FUNCTION(short_event),
    FUNCTION(confirm),
    FUNCTION(look),
    {NULL, NULL, 0, NULL},
};

static int
fill(PyObject *module)
{
    kernel_prepare_attributes();
    PyObject *is_fast = kernel_hash_is_fast() ? Py_True : Py_False;
    if (PyModule_AddObjectRef(module, "HASHES", is_fast) < 0) {
        return -1;
    }
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
