/* Which directories are as they were remembered: twin of `_confirm` in
 * capture/directory/confirmation.py. It looks only: what cannot be seen, or is not as it was, is
 * not confirmed, and Python finds out why.
 *
 * Other threads run meanwhile: nothing of Python is touched but the bytes of the call.
 */
#include "listing.h"

/* specs/capture-directory.md, section 3 */
#define HEAD 28
#define STATUS 40
#define NEVER 1u

static uint32_t
short_at(const unsigned char *from)
{
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static uint64_t
long_at(const unsigned char *from)
{
    return short_at(from) | (uint64_t)short_at(from + 4) << 32;
}

#if defined(__linux__)

struct desk {
    struct listing listing;
    const struct listed **names;
    size_t names_room;
};

static int
by_name(const void *left, const void *right)
{
    const struct listed *const *one = left, *const *other = right;
    return strcmp((*one)->name, (*other)->name);
}

/* Gather the names that count, sorted; say whether there are `wanted` of them. */
static int
gather(struct desk *desk, size_t wanted)
{
    size_t count = 0;
    if (desk->names_room < wanted) {
        void *larger = realloc(desk->names, wanted * sizeof *desk->names);
        if (larger == NULL) {
            return 0;
        }
        desk->names = larger;
        desk->names_room = wanted;
    }
    size_t at = 0;
    for (const struct listed *one; (one = kernel_next_listed(&desk->listing, &at)) != NULL;) {
        if (count == wanted) {
            return 0;
        }
        desk->names[count++] = one;
    }
    if (count > 1) {
        qsort(desk->names, count, sizeof *desk->names, by_name);
    }
    return count == wanted;
}

static int
is_as_remembered(int fd, const struct listed *one, const unsigned char *status)
{
    uint64_t mode = long_at(status);
    if (mode == 0) {  /* left out by the rules, which ask only whether it is a directory */
        return one->kind != DT_UNKNOWN && (one->kind == DT_DIR) == (long_at(status + 8) == 1);
    }
    struct stat found;
    if (fstatat(fd, one->name, &found, AT_SYMLINK_NOFOLLOW) < 0 || found.st_mode != mode) {
        return 0;
    }
    if (S_ISDIR(found.st_mode)) {
        return 1;
    }
    return (uint64_t)found.st_size == long_at(status + 8)
           && (uint64_t)kernel_nanoseconds(found.st_mtim) == long_at(status + 16)
           && (uint64_t)kernel_nanoseconds(found.st_ctim) == long_at(status + 24)
           && found.st_ino == long_at(status + 32);
}

static int
confirm(struct desk *desk, int root, const char *path, const unsigned char *table, size_t size)
{
    if (size < 4) {
        return 0;
    }
    size_t count = short_at(table);
    if (count > (size - 4) / (STATUS + 2) || (count && table[size - 1])) {
        return 0;
    }
    const unsigned char *status = table + 4;
    const char *name = (const char *)status + count * STATUS;
    const char *end = (const char *)table + size;
    int fd = openat(root, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    int is_same = kernel_list(&desk->listing, fd) && gather(desk, count);
    for (size_t at = 0; is_same && at < count; at++, status += STATUS) {
        is_same = name < end && strcmp(desk->names[at]->name, name) == 0
                  && is_as_remembered(fd, desk->names[at], status);
        name += name < end ? strlen(name) + 1 : 0;
    }
    close(fd);
    return is_same && name == end;
}

#endif

/* Go over the records from start to stop; the length of what is written to out, or -1. */
static Py_ssize_t
walk(int root, const unsigned char *blob, Py_ssize_t start, Py_ssize_t stop, const char *reserved,
     Py_ssize_t reserved_size, char *out)
{
    Py_ssize_t count = 0;
#if defined(__linux__)
    struct desk desk = {.listing = {.reserved = reserved, .reserved_size = (size_t)reserved_size}};
#else
    (void)root, (void)reserved, (void)reserved_size;
#endif
    while (start < stop) {
        const unsigned char *head = blob + start;
        if (stop - start < HEAD) {
            count = -1;
            break;
        }
        uint64_t path_size = short_at(head), size = short_at(head + 4);
        if (path_size < 1 || path_size + size > (uint64_t)(stop - start - HEAD)
            || head[HEAD + path_size - 1]) {
            count = -1;
            break;
        }
        start += HEAD + (Py_ssize_t)(path_size + size);
        out[count] = 0;
#if defined(__linux__)
        if (!(short_at(head + 8) & NEVER)) {
            out[count] = (char)confirm(&desk, root, (const char *)head + HEAD,
                                       head + HEAD + path_size, (size_t)size);
        }
#endif
        count++;
    }
#if defined(__linux__)
    free(desk.listing.bytes);
    free(desk.names);
#endif
    return count;
}

/* kernel_confirm(root, blob, start, stop, reserved) */
PyObject *
kernel_confirm(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 5 || !PyBytes_Check(arguments[1]) || !PyBytes_Check(arguments[4])) {
        PyErr_SetString(PyExc_TypeError, "confirm(root, blob, start, stop, reserved)");
        return NULL;
    }
    long root = PyLong_AsLong(arguments[0]);
    Py_ssize_t start = PyLong_AsSsize_t(arguments[2]), stop = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(arguments[1]);
    Py_ssize_t reserved_size = PyBytes_GET_SIZE(arguments[4]);
    const char *reserved = PyBytes_AS_STRING(arguments[4]);
    if (start < 0 || start > stop || stop > size
        || (reserved_size && reserved[reserved_size - 1])) {
        PyErr_SetString(PyExc_ValueError, "confirm: out of range");
        return NULL;
    }
    char *out = malloc((size_t)(stop - start) / HEAD + 1);
    if (out == NULL) {
        return PyErr_NoMemory();
    }
    const unsigned char *blob = (const unsigned char *)PyBytes_AS_STRING(arguments[1]);
    Py_ssize_t made;
    Py_BEGIN_ALLOW_THREADS
    made = walk((int)root, blob, start, stop, reserved, reserved_size, out);
    Py_END_ALLOW_THREADS
    PyObject *answer = NULL;
    if (made < 0) {
        PyErr_SetString(PyExc_ValueError, "confirm: a record is cut");
    } else {
        answer = PyBytes_FromStringAndSize(out, made);
    }
    free(out);
    return answer;
}
