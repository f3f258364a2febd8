/* Chunks copied from one container into another, each checked where it stands: twin of `_relocate`
 * in formats/relocation.py.
 */
#include "kernel.h"

#include <string.h>

#include "checksum.h"
#include "lines.h"

/* specs/frame.md and specs/chunk.md */
#define FRAME_HEAD 16
#define BOUND 8      /* of a frame's head what is summed, and the offset in front of it */
#define CHUNK_HEAD 52
#define CODEC_AT 32
#define DIFFERENCE 2  /* codec and flag of a chunk that has a base */
#define CHUNK 3
#define CHUNK_MAX (8 * 1024 * 1024)

struct line {
    const unsigned char *digest;
    long long offset;
    Py_ssize_t length;
};

struct move {
    const unsigned char *data;
    Py_ssize_t size;
    long long base, at;
    struct kernel_seed source, target;
};

static int
read_line(PyObject *item, struct line *line)
{
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3
        || !PyBytes_CheckExact(PyTuple_GET_ITEM(item, 0))
        || PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 0)) != DIGEST) {
        PyErr_SetString(PyExc_TypeError, "a line is a digest, an offset, a length");
        return 0;
    }
    line->digest = (const unsigned char *)PyBytes_AS_STRING(PyTuple_GET_ITEM(item, 0));
    line->offset = PyLong_AsLongLong(PyTuple_GET_ITEM(item, 1));
    line->length = PyLong_AsSsize_t(PyTuple_GET_ITEM(item, 2));
    return !PyErr_Occurred();
}

/* Say whether the head of a plain chunk of that name and length stands there. */
static int
is_plain(const unsigned char *frame, const struct line *line)
{
    Py_ssize_t size = number_at(frame + 4);
    const unsigned char *record = frame + FRAME_HEAD;
    if (frame[0] != 'C' || frame[1] != 'K' || frame[2] != CHUNK || frame[3] != 0
        || size != line->length - FRAME_HEAD || memcmp(record, line->digest, DIGEST) != 0) {
        return 0;
    }
    return record[CODEC_AT] != DIFFERENCE || record[CODEC_AT + 1] != DIFFERENCE
           || size < CHUNK_HEAD + DIGEST;
}

/* Write a frame's twin for another place; 0 where it is for the long way. */
static int
copy(const struct move *move, const struct line *line, unsigned char *to, long long at)
{
    if (line->offset < move->base || line->offset - move->base > move->size
        || line->length < FRAME_HEAD + CHUNK_HEAD || line->length > FRAME_HEAD + CHUNK_MAX
        || line->length > move->size - (Py_ssize_t)(line->offset - move->base)) {
        return 0;
    }
    const unsigned char *frame = move->data + (line->offset - move->base);
    if (!is_plain(frame, line)) {
        return 0;
    }
    /* What is summed is the offset, the first half of the head, and the body, back to back. */
    memcpy(to + FRAME_HEAD, frame + FRAME_HEAD, line->length - FRAME_HEAD);
    put_number(to, (uint64_t)line->offset, BOUND);
    memcpy(to + BOUND, frame, BOUND);
    unsigned char sum[BOUND];
    put_number(sum, kernel_checksum(&move->source, to, line->length), BOUND);
    if (memcmp(sum, frame + BOUND, BOUND) != 0) {
        return 0;
    }
    put_number(to, (uint64_t)at, BOUND);
    put_number(sum, kernel_checksum(&move->target, to, line->length), BOUND);
    memmove(to, to + BOUND, BOUND);
    memcpy(to + BOUND, sum, BOUND);
    return 1;
}

/* Return how many bytes the frames of lines have, -1 with an error. */
static Py_ssize_t
sum_lengths(PyObject *lines)
{
    Py_ssize_t total = 0;
    struct line line;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(lines); at++) {
        if (!read_line(PyList_GET_ITEM(lines, at), &line)) {
            return -1;
        }
        if (line.length < 0 || line.length > FRAME_HEAD + CHUNK_MAX
            || total > PY_SSIZE_T_MAX - line.length) {
            return total;  /* the copy ends before that one */
        }
        total += line.length;
    }
    return total;
}

static PyObject *
copy_all(struct move *move, PyObject *lines)
{
    Py_ssize_t total = sum_lengths(lines), done = 0, count = 0;
    PyObject *frames = total < 0 ? NULL : PyBytes_FromStringAndSize(NULL, total);
    if (frames == NULL) {
        return NULL;
    }
    unsigned char *out = (unsigned char *)PyBytes_AS_STRING(frames);
    for (; count < PyList_GET_SIZE(lines); count++) {
        struct line line;
        if (!read_line(PyList_GET_ITEM(lines, count), &line)) {
            Py_DECREF(frames);
            return NULL;
        }
        if (line.length > total - done || !copy(move, &line, out + done, move->at + done)) {
            break;
        }
        done += line.length;
    }
    if (done != total && _PyBytes_Resize(&frames, done) < 0) {
        return NULL;
    }
    return Py_BuildValue("(Nn)", frames, count);
}

PyObject *
kernel_relocate(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 6 || !PyList_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "relocate takes 6 arguments: data, an offset, a list, two "
                                         "seeds, an offset");
        return NULL;
    }
    struct move move = {0};
    move.base = PyLong_AsLongLong(arguments[1]);
    uint64_t source = PyLong_AsUnsignedLongLong(arguments[3]);
    uint64_t target = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(arguments[4]);
    move.at = PyErr_Occurred() ? 0 : PyLong_AsLongLong(arguments[5]);
    Py_buffer buffer;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *answer = NULL;
    if (move.base < 0 || move.at < 0) {
        PyErr_SetString(PyExc_ValueError, "offsets are not negative");
    }
    else {
        kernel_prepare_seed(&move.source, source);
        kernel_prepare_seed(&move.target, target);
        move.data = buffer.buf;
        move.size = buffer.len;
        answer = copy_all(&move, arguments[2]);
    }
    PyBuffer_Release(&buffer);
    return answer;
}
