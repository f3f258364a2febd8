/* What lies in a directory: twin of `_look` in capture/directory/folder.py; None where that one must
 * find out why.
 *
 * Other threads run while the system is asked; then the rows are made.
 */
#include "listing.h"

#if defined(__linux__)

#include <errno.h>

struct look {
    struct listing listing;
    struct stat *found;  /* of each name that counts, in their order; st_mode 0: gone since */
    size_t room;
};

/* Look at every name; 0 where one cannot be seen. */
static int
look(struct look *look, int fd)
{
    if (lseek(fd, 0, SEEK_SET) < 0 || !kernel_list(&look->listing, fd)) {
        return 0;
    }
    size_t at = 0, count = 0;
    for (const struct listed *one; (one = kernel_next_listed(&look->listing, &at)) != NULL;) {
        if (count == look->room) {
            size_t room = look->room ? look->room * 2 : 64;
            struct stat *larger = realloc(look->found, room * sizeof *larger);
            if (larger == NULL) {
                return 0;
            }
            look->found = larger;
            look->room = room;
        }
        struct stat *found = look->found + count++;
        if (fstatat(fd, one->name, found, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno != ENOENT) {
                return 0;
            }
            found->st_mode = 0;
        }
    }
    return 1;
}

/* Steals the item. */
static int
put(PyObject *list, PyObject *item)
{
    int failed = item == NULL || PyList_Append(list, item) < 0;
    Py_XDECREF(item);
    return !failed;
}

static PyObject *
row_of(PyObject *name, const struct stat *found)
{
    unsigned long long mode = found->st_mode;
    if (S_ISDIR(found->st_mode)) {
        return Py_BuildValue("(OKiiii)", name, mode, 0, 0, 0, 0);
    }
    return Py_BuildValue("(OKKLLK)", name, mode, (unsigned long long)found->st_size,
                         (long long)kernel_nanoseconds(found->st_mtim),
                         (long long)kernel_nanoseconds(found->st_ctim),
                         (unsigned long long)found->st_ino);
}

static int
fill(const struct look *look, PyObject *rows, PyObject *folders, PyObject *special)
{
    size_t at = 0;
    const struct stat *found = look->found;
    for (const struct listed *one; (one = kernel_next_listed(&look->listing, &at)) != NULL;
         found++) {
        if (found->st_mode == 0) {
            continue;
        }
        PyObject *name = PyUnicode_DecodeFSDefault(one->name);
        if (name == NULL) {
            return 0;
        }
        int done;
        if (S_ISREG(found->st_mode) || S_ISLNK(found->st_mode)) {
            done = put(rows, row_of(name, found));
        } else if (S_ISDIR(found->st_mode)) {
            done = put(rows, row_of(name, found))
                   && put(folders, Py_BuildValue("(OKK)", name, (unsigned long long)found->st_dev,
                                                 (unsigned long long)found->st_ino));
        } else {
            done = put(special, Py_BuildValue("(OK)", name, (unsigned long long)found->st_mode));
        }
        Py_DECREF(name);
        if (!done) {
            return 0;
        }
    }
    return 1;
}

#endif

/* kernel_look(fd, reserved) */
PyObject *
kernel_look(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "look(fd, reserved)");
        return NULL;
    }
    long fd = PyLong_AsLong(arguments[0]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(arguments[1]);
    const char *reserved = PyBytes_AS_STRING(arguments[1]);
    if (size && reserved[size - 1]) {
        PyErr_SetString(PyExc_ValueError, "look: a name without its end");
        return NULL;
    }
#if defined(__linux__)
    struct look made = {.listing = {.reserved = reserved, .reserved_size = (size_t)size}};
    int is_seen;
    Py_BEGIN_ALLOW_THREADS
    is_seen = look(&made, (int)fd);
    Py_END_ALLOW_THREADS
    PyObject *answer = NULL;
    if (is_seen) {
        PyObject *rows = PyList_New(0), *folders = PyList_New(0), *special = PyList_New(0);
        if (rows != NULL && folders != NULL && special != NULL
            && fill(&made, rows, folders, special)) {
            answer = PyTuple_Pack(3, rows, folders, special);
        }
        Py_XDECREF(rows);
        Py_XDECREF(folders);
        Py_XDECREF(special);
    } else {
        answer = Py_NewRef(Py_None);
    }
    free(made.listing.bytes);
    free(made.found);
    return answer;
#else
    (void)fd;
    return Py_NewRef(Py_None);
#endif
}
