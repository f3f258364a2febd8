/* Which chunks are in a segment or a pack, going by headers and index lines: twin of `_outline` and
 * `_lines_among` in formats/outline.py.
 */
#include "kernel.h"

#include <string.h>

/* specs/frame.md and specs/chunk.md */
#define FRAME_HEAD 16
#define CHUNK_HEAD 52
#define RAW_LENGTH_AT (FRAME_HEAD + 44)
#define DIGEST 32
#define LINE 44  /* specs/pack.md */
#define KEY 16
#define EVENT 2
#define CHUNK 3
#define FLAGS_KNOWN 1
#define EVENT_MAX (128 * 1024)
#define CHUNK_MAX (8 * 1024 * 1024)

struct outline {
    const unsigned char *data;
    Py_ssize_t at, stop, items_max;
    PyObject *keys;  /* NULL: all are kept */
    PyObject *kept, *events;
    Py_ssize_t chunks;
    long long chunk_bytes, count, raw_bytes;
};

static unsigned int
number_at(const unsigned char *from)
{
    return from[0] | (unsigned int)from[1] << 8 | (unsigned int)from[2] << 16
           | (unsigned int)from[3] << 24;
}

/* Append a tuple of bytes and numbers: no cycle goes through one, so the collector need not know it. */
static int
append(PyObject *list, PyObject *item)
{
    if (item != NULL && PyObject_GC_IsTracked(item)) {
        PyObject_GC_UnTrack(item);
    }
    int failed = item == NULL || PyList_Append(list, item) < 0;
    Py_XDECREF(item);
    return !failed;
}

/* Say whether a chunk is asked for; -1 with an error. */
static int
is_kept(PyObject *keys, const unsigned char *digest)
{
    if (keys == NULL || PySet_GET_SIZE(keys) == 0) {
        return keys == NULL;
    }
    PyObject *key = PyBytes_FromStringAndSize((const char *)digest, KEY);
    if (key == NULL) {
        return -1;
    }
    int found = PySet_Contains(keys, key);
    Py_DECREF(key);
    return found;
}

static int
take_chunk(struct outline *outline, const unsigned char *frame, Py_ssize_t length)
{
    const unsigned char *digest = frame + FRAME_HEAD;
    outline->chunks++;
    outline->chunk_bytes += length;
    outline->count++;
    outline->raw_bytes += number_at(frame + RAW_LENGTH_AT);
    int kept = is_kept(outline->keys, digest);
    if (kept <= 0) {
        return kept == 0;
    }
    return append(outline->kept, Py_BuildValue("(y#nn)", (const char *)digest, (Py_ssize_t)DIGEST,
                                               outline->at, length));
}

static int
take_event(struct outline *outline, Py_ssize_t length)
{
    PyObject *event = Py_BuildValue("(nnLL)", outline->at, length, outline->count,
                                    outline->raw_bytes);
    outline->count = outline->raw_bytes = 0;
    return append(outline->events, event);
}

/* Go on until the stop, or to what is no frame, or far enough; 0 with an error. */
static int
walk(struct outline *outline)
{
    while (outline->stop - outline->at >= FRAME_HEAD) {
        const unsigned char *frame = outline->data + outline->at;
        Py_ssize_t size = number_at(frame + 4);
        int kind = frame[2];
        if (frame[0] != 'C' || frame[1] != 'K' || frame[3] & ~FLAGS_KNOWN
            || size > outline->stop - outline->at - FRAME_HEAD) {
            return 1;
        }
        if (kind == EVENT && size <= EVENT_MAX) {
            if (!take_event(outline, FRAME_HEAD + size)) {
                return 0;
            }
        }
        else if (kind == CHUNK && size >= CHUNK_HEAD && size <= CHUNK_MAX) {
            if (!take_chunk(outline, frame, FRAME_HEAD + size)) {
                return 0;
            }
        }
        else {
            return 1;
        }
        outline->at += FRAME_HEAD + size;
        if (kind == EVENT && PyList_GET_SIZE(outline->events) + PyList_GET_SIZE(outline->kept)
                                 >= outline->items_max) {
            return 1;
        }
    }
    return 1;
}

PyObject *
kernel_outline(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 5 || !(arguments[3] == Py_None || PyAnySet_CheckExact(arguments[3]))) {
        PyErr_SetString(PyExc_TypeError, "outline takes 5 arguments: data, two offsets, a set or "
                                         "None, a number");
        return NULL;
    }
    struct outline outline = {0};
    outline.at = PyLong_AsSsize_t(arguments[1]);
    outline.stop = PyLong_AsSsize_t(arguments[2]);
    outline.items_max = PyLong_AsSsize_t(arguments[4]);
    outline.keys = arguments[3] == Py_None ? NULL : arguments[3];
    Py_buffer buffer;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *answer = NULL;
    outline.data = buffer.buf;
    outline.kept = PyList_New(0);
    outline.events = PyList_New(0);
    if (outline.at < 0 || outline.stop > buffer.len) {
        PyErr_SetString(PyExc_ValueError, "these offsets lie outside of the data");
    }
    else if (outline.kept != NULL && outline.events != NULL && walk(&outline)) {
        answer = Py_BuildValue("(nnLOO)", outline.at, outline.chunks, outline.chunk_bytes,
                               outline.kept, outline.events);
    }
    Py_XDECREF(outline.kept);
    Py_XDECREF(outline.events);
    PyBuffer_Release(&buffer);
    return answer;
}

static PyObject *
lines_of(const unsigned char *body, Py_ssize_t size, PyObject *keys)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0; found != NULL && at < size; at += LINE) {
        const unsigned char *line = body + at;
        int kept = is_kept(keys, line);
        unsigned long long offset = number_at(line + DIGEST)
                                    | (unsigned long long)number_at(line + DIGEST + 4) << 32;
        if (kept < 0
            || (kept && !append(found, Py_BuildValue("(y#KI)", (const char *)line,
                                                     (Py_ssize_t)DIGEST, offset,
                                                     number_at(line + DIGEST + 8))))) {
            Py_CLEAR(found);
        }
    }
    return found;
}

PyObject *
kernel_lines_among(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_CheckExact(arguments[0])
        || PyBytes_GET_SIZE(arguments[0]) % LINE != 0
        || !(arguments[1] == Py_None || PyAnySet_CheckExact(arguments[1]))) {
        PyErr_SetString(PyExc_TypeError, "lines_among takes whole lines, and a set or None");
        return NULL;
    }
    return lines_of((const unsigned char *)PyBytes_AS_STRING(arguments[0]),
                    PyBytes_GET_SIZE(arguments[0]), arguments[1] == Py_None ? NULL : arguments[1]);
}
