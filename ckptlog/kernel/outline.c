/* Which chunks and events are in a segment, going by headers: twin of `_outline` in
 * formats/outline.py.
 */
#include "kernel.h"

#include <string.h>

#include "lines.h"

/* specs/frame.md and specs/chunk.md */
#define FRAME_HEAD 16
#define CHUNK_HEAD 52
#define RAW_LENGTH_AT (FRAME_HEAD + 44)
#define EVENT_LINE 24
#define ROOM_FIRST (64 * 1024)
#define EVENT 2
#define CHUNK 3
#define FLAGS_KNOWN 1
#define EVENT_MAX (128 * 1024)
#define CHUNK_MAX (8 * 1024 * 1024)

/* Lines behind one another, as formats/outline.py has them. */
struct lines {
    unsigned char *data;
    Py_ssize_t size, room;
};

struct outline {
    const unsigned char *data;
    Py_ssize_t at, stop, items_max, items;
    struct lines chunks, events;
    uint64_t chunk_bytes, count, raw_bytes;
};

/* Return where the next line goes; NULL where there is no memory. */
static unsigned char *
next_line(struct lines *lines, Py_ssize_t length)
{
    if (lines->room - lines->size < length) {
        Py_ssize_t room = lines->room ? 2 * lines->room : ROOM_FIRST;
        unsigned char *data = PyMem_RawRealloc(lines->data, room);
        if (data == NULL) {
            return NULL;
        }
        lines->data = data;
        lines->room = room;
    }
    lines->size += length;
    return lines->data + lines->size - length;
}

static int
take_chunk(struct outline *outline, const unsigned char *frame, Py_ssize_t length)
{
    unsigned char *line = next_line(&outline->chunks, LINE);
    if (line == NULL) {
        return 0;
    }
    memcpy(line, frame + FRAME_HEAD, DIGEST);
    put_number(line + DIGEST, outline->at, 8);
    put_number(line + DIGEST + 8, length, 4);
    outline->chunk_bytes += length;
    outline->count++;
    outline->raw_bytes += number_at(frame + RAW_LENGTH_AT);
    return 1;
}

static int
take_event(struct outline *outline, Py_ssize_t length)
{
    unsigned char *line = next_line(&outline->events, EVENT_LINE);
    if (line == NULL) {
        return 0;
    }
    put_number(line, outline->at, 8);
    put_number(line + 8, length, 4);
    put_number(line + 12, outline->count, 4);
    put_number(line + 16, outline->raw_bytes, 8);
    outline->count = outline->raw_bytes = 0;
    return 1;
}

/* Go on until the stop, or to what is no frame, or far enough; 0 without memory. */
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
        outline->items++;
        if (kind == EVENT && outline->items >= outline->items_max) {
            return 1;
        }
    }
    return 1;
}

PyObject *
kernel_outline(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "outline takes 4 arguments: data, two offsets, a number");
        return NULL;
    }
    struct outline outline = {0};
    outline.at = PyLong_AsSsize_t(arguments[1]);
    outline.stop = PyErr_Occurred() ? 0 : PyLong_AsSsize_t(arguments[2]);
    outline.items_max = PyErr_Occurred() ? 0 : PyLong_AsSsize_t(arguments[3]);
    Py_buffer buffer;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *answer = NULL;
    int done;
    outline.data = buffer.buf;
    if (outline.at < 0 || outline.stop > buffer.len) {
        PyErr_SetString(PyExc_ValueError, "these offsets lie outside of the data");
    }
    else {
        /* It may wait for the medium at every page. */
        Py_BEGIN_ALLOW_THREADS
        done = walk(&outline);
        Py_END_ALLOW_THREADS
        answer = !done ? PyErr_NoMemory()
                       : Py_BuildValue("(nKy#y#)", outline.at, outline.chunk_bytes,
                                       outline.chunks.size ? (char *)outline.chunks.data : "",
                                       outline.chunks.size,
                                       outline.events.size ? (char *)outline.events.data : "",
                                       outline.events.size);
    }
    PyMem_RawFree(outline.chunks.data);
    PyMem_RawFree(outline.events.data);
    PyBuffer_Release(&buffer);
    return answer;
}
