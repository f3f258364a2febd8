/* What the parts of the kernel share; see ckptlog/kernel/__init__.py.
 *
 * Rules of this folder:
 * - Every function has a twin in Python that it must agree with to the byte; tests run both.
 * - What is rare is not done here: a shortcut answers None, or calls Python for the one rare part.
 * - No file (but in confirm.c and folder.c, which look at directories), no clock, no global state.
 * - Whatever can run somebody's code (a call, an attribute, the death of an object) can change
 *   every list and dict: before it, what is still needed of them is copied, with references.
 */
#ifndef CKPTLOG_KERNEL_H
#define CKPTLOG_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Raised with every change of what a function takes or means; ckptlog/kernel/__init__.py has the
 * same number and does without a kernel that has another. */
#define REVISION 14

/* Of events; see ckptlog/formats/short_event.py. */
#define KERNEL_ENTRY_MAX 4096  /* bytes; longer ones are rare */
#define KERNEL_NUMBER_MAX ((1LL << 53) - 1)
#define KERNEL_TIME_LETTERS 27  /* YYYY-MM-DDTHH:MM:SS.ffffffZ */

/* Read a text of so many letters as Unix microseconds; 0 where it is no time. */
int kernel_take_time(const char *from, long long *us);
/* Write Unix microseconds as a text of so many letters; 0 where the year has no four digits. */
int kernel_put_time(char *to, long long us);

PyObject *kernel_wire(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_lift(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_suspect(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_end_of_value(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_is_same(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_run_of_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_outline(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_lines_among(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_met_among(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_sieve_of(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_sorted_lines(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_order_of_lines(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_relocate(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_raw_leaves(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_links_in(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_parts_in(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_place_in_run(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_short_event(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_short_entry(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_confirm(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *kernel_look(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

#endif
