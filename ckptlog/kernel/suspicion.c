/* Where a wire may hold a secret: twin of `may_hold_secret` in policy/sanitise.py.
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

#include "kernel.h"

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

PyObject *
kernel_suspicious(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
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
