/* Chunks that are leaves stored as they are, each checked where it stands: twin of `_raw_leaves` in
 * formats/raw_leaf.py.
 */
#include "kernel.h"

#include <string.h>

#include "checksum.h"
#include "hash.h"
#include "lines.h"

/* specs/frame.md and specs/chunk.md */
#define FRAME_HEAD 16
#define BOUND 8        /* of a frame's head what is summed, and the offset in front of it */
#define CHUNK_HEAD 52
#define PLAIN_AT 32    /* codec, flags, scheme, domain, key: all 0 in a raw leaf */
#define RAW_LENGTH_AT 44
#define STORED_LENGTH_AT 48
#define CHUNK 3
#define FLAGS_KNOWN 1
#define CHUNK_MAX (8 * 1024 * 1024)
#define RAW_MAX (4 * 1024 * 1024)

static const unsigned char plain[RAW_LENGTH_AT - PLAIN_AT] = {0};

static int
is_raw_leaf(const unsigned char *frame, Py_ssize_t size)
{
    const unsigned char *record = frame + FRAME_HEAD;
    Py_ssize_t raw = size - CHUNK_HEAD;
    return frame[3] == 0 && raw <= RAW_MAX && memcmp(record + PLAIN_AT, plain, sizeof plain) == 0
           && number_at(record + RAW_LENGTH_AT) == raw
           && number_at(record + STORED_LENGTH_AT) == raw;
}

/* What is summed is the offset, the first half of the head, and the body: the head makes room for
 * the offset meanwhile. */
static int
is_sound(const struct kernel_seed *seed, unsigned char *frame, Py_ssize_t size, uint64_t offset)
{
    unsigned char head[FRAME_HEAD], sum[BOUND];
    memcpy(head, frame, FRAME_HEAD);
    put_number(frame, offset, BOUND);
    memcpy(frame + BOUND, head, BOUND);
    put_number(sum, kernel_checksum(seed, frame, FRAME_HEAD + size), BOUND);
    memcpy(frame, head, FRAME_HEAD);
    return memcmp(sum, head + BOUND, BOUND) == 0;
}

/* Return the length of the chunk's frame that seems to begin there, 0 where none does. */
static Py_ssize_t
length_of(const unsigned char *frame, Py_ssize_t room)
{
    if (room < FRAME_HEAD + CHUNK_HEAD || frame[0] != 'C' || frame[1] != 'K' || frame[2] != CHUNK
        || frame[3] & ~FLAGS_KNOWN) {
        return 0;
    }
    Py_ssize_t size = number_at(frame + 4);
    int is_one = size >= CHUNK_HEAD && size <= CHUNK_MAX && size <= room - FRAME_HEAD;
    return is_one ? FRAME_HEAD + size : 0;
}

/* What is hashed is a tag and the raw bytes. The last byte of the record's head is 0, which is the
 * tag of leaves. */
static int
is_what_it_says(const unsigned char *frame, Py_ssize_t size, unsigned char *room)
{
    const unsigned char *record = frame + FRAME_HEAD;
    unsigned char hash[KERNEL_HASH_BYTES];
    size_t head = CHUNK_HEAD - 1;
    kernel_hash(record + head, (size_t)size - head, room, hash);
    return memcmp(record, hash, DIGEST) == 0;
}

/* Write where the frames of sound raw leaves begin, one behind the other; return how many.
 * room: For hashing them, too; NULL where that is left to the caller.
 */
static Py_ssize_t
sound_ones(const struct kernel_seed *seed, const Py_buffer *buffer, uint64_t base,
           unsigned char *room, Py_ssize_t *begins)
{
    Py_ssize_t begin = 0, length, count = 0;
    unsigned char *data = buffer->buf;
    while ((length = length_of(data + begin, buffer->len - begin)) > 0) {
        Py_ssize_t size = length - FRAME_HEAD;
        if (is_raw_leaf(data + begin, size)
            && is_sound(seed, data + begin, size, base + (uint64_t)begin)
            && (room == NULL || is_what_it_says(data + begin, size, room))) {
            begins[count++] = begin;
        }
        begin += length;
    }
    return count;
}

static PyObject *
lines_of(const unsigned char *data, const Py_ssize_t *begins, Py_ssize_t count)
{
    PyObject *lines = PyList_New(count);
    for (Py_ssize_t at = 0; lines != NULL && at < count; at++) {
        const unsigned char *frame = data + begins[at];
        Py_ssize_t end = begins[at] + FRAME_HEAD + number_at(frame + 4);
        PyObject *line = Py_BuildValue("(y#nn)", (const char *)frame + FRAME_HEAD,
                                       (Py_ssize_t)DIGEST, begins[at], end);
        if (line == NULL) {
            Py_CLEAR(lines);
            break;
        }
        PyList_SET_ITEM(lines, at, line);
    }
    return lines;
}

PyObject *
kernel_raw_leaves(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "raw_leaves takes a seed, an offset, a buffer, a truth");
        return NULL;
    }
    uint64_t number = PyLong_AsUnsignedLongLong(arguments[0]);
    uint64_t base = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(arguments[1]);
    int is_hashed = PyErr_Occurred() ? 0 : PyObject_IsTrue(arguments[3]);
    Py_buffer buffer;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[2], &buffer, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    Py_ssize_t most = buffer.len / (FRAME_HEAD + CHUNK_HEAD);
    Py_ssize_t *begins = PyMem_RawMalloc((size_t)(most + 1) * sizeof *begins);
    size_t longest = buffer.len < RAW_MAX ? (size_t)buffer.len : RAW_MAX + 1;
    unsigned char *room = is_hashed ? PyMem_RawMalloc(kernel_hash_room(longest)) : NULL;
    PyObject *lines = NULL;
    if (begins == NULL || (is_hashed && room == NULL)) {
        PyErr_NoMemory();
    }
    else {
        struct kernel_seed seed;
        Py_ssize_t found;
        Py_BEGIN_ALLOW_THREADS
        kernel_prepare_seed(&seed, number);
        found = sound_ones(&seed, &buffer, base, room, begins);
        Py_END_ALLOW_THREADS
        lines = lines_of(buffer.buf, begins, found);
    }
    PyMem_RawFree(room);
    PyMem_RawFree(begins);
    PyBuffer_Release(&buffer);
    return lines;
}
