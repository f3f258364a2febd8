/* A value's wire, written in one walk: twin of `_Lowering` and `_encode` in model/value.py.
 *
 * Theory. While nothing but this file runs, no other thread does, and containers cannot change. So
 * lists and dicts are read as they stand, without a copy, for as long as only exact built-in types
 * are met. Before anything that can run somebody's code (an attribute of a registered object, a
 * key that was never judged, a value that only Python can lower) every container that is being
 * read is *frozen*: what is left of it is copied, with references, and read from there on. Each
 * was unchanged since its reading began, or else it was frozen before. So each container is stored
 * as it was at one moment, and nothing that is read can go away.
 *
 * Tuples cannot change; what they stand in, frozen, keeps them alive.
 *
 * An answer of None (LONG_WAY) is no judgement: the walk in Python says what is wrong, or succeeds.
 */
#include "attribute.h"
#include "escape.h"
#include "kernel.h"

#include <stdint.h>
#include <string.h>

enum outcome { DONE = 1, LONG_WAY = 0, FAILED = -1 };

#define KEYS 128          /* keys that are remembered in one walk; a power of two */
#define KEY_NUMBER(key) (int)(((uintptr_t)(key) >> 4 ^ (uintptr_t)(key) >> 9) & (KEYS - 1))
#define KINDS 16          /* types whose codecs are remembered in one walk; a power of two */
#define NUMBERS_MIN 8     /* floats from which on a list is handed to the encoder as a whole */
#define BYTES_FIRST 1024  /* room to begin with */
#define LARGE 65536       /* bytes from which on the room that is asked for is foreseen */
#define DONE_MIN 8        /* items of a container that say how large the others are */
#define FORESEEN_MAX ((Py_ssize_t)1 << 28)

/* A list or dict that is being read. */
struct frame {
    struct frame *outer;
    PyObject *container;
    Py_ssize_t place;  /* of the item in hand: an index, or a dict's position */
    PyObject **rest;   /* frozen: the item in hand (before it its key, in a dict), and what follows */
    Py_ssize_t next, count;
};

/* How a key is written, with quotes and colon; size is 0 where it is long, or has to be escaped. */
struct written {
    unsigned char size;
    char text[SHORT + STEP];
};

/* A type that was met, and where its objects have their attributes. */
struct known_kind {
    PyTypeObject *kind;  /* the table holds it */
    Py_ssize_t codec;
    int is_sought;       /* whether the attributes were looked for */
    struct attributes attributes;
};

struct walk {
    PyObject *codecs;       /* tuple of (type, start of its wire, attributes), one after the other */
    PyObject *verdicts;     /* dict: key -> is it secret; NULL where nothing is looked for */
    PyObject *replacement;  /* what stands in a secret's place */
    PyObject *odd, *context, *encode;
    Py_ssize_t left;        /* containers that may still be met */
    int depth_max;
    PyObject *bytes;        /* the wire, and room behind it */
    char *at, *end;
    struct frame *inner;
    int is_wide;            /* whether the machine copies 32 bytes at once */
    struct known_kind kinds[KINDS];
    PyObject *keys[KEYS];   /* no secrets; references are held */
    struct written written[KEYS];  /* of each of them; not set before it is */
};

static enum outcome emit(struct walk *walk, PyObject *value, int depth);

/* --- room -------------------------------------------------------------------------------------- */

/* Return how large the wire may become, going by how far the outermost long container is. */
static Py_ssize_t
foreseen(struct walk *walk, Py_ssize_t used)
{
    double share = 0;
    for (struct frame *frame = walk->inner; frame != NULL; frame = frame->outer) {
        Py_ssize_t size = frame->count, done = frame->next - 1;
        if (frame->rest == NULL) {  /* else its container may be gone */
            size = PyDict_CheckExact(frame->container) ? PyDict_GET_SIZE(frame->container)
                                                       : PyList_GET_SIZE(frame->container);
            done = frame->place;
        }
        if (done >= DONE_MIN && size > done) {
            share = (double)done / (double)size;
        }
    }
    double size = share > 0 ? (double)used / share * 1.03 : 0;
    return size < (double)FORESEEN_MAX ? (Py_ssize_t)size : FORESEEN_MAX;
}

static int
grow(struct walk *walk, Py_ssize_t more)
{
    Py_ssize_t used = walk->at - PyBytes_AS_STRING(walk->bytes);
    Py_ssize_t size = PyBytes_GET_SIZE(walk->bytes);
    if (more > PY_SSIZE_T_MAX / 2 - used) {
        PyErr_NoMemory();
        return 0;
    }
    size = size < PY_SSIZE_T_MAX / 4 && size * 2 >= used + more ? size * 2 : used + more;
    /* Fresh memory costs as much as writing: a long wire is moved once, not at each doubling. */
    Py_ssize_t expected = size >= LARGE ? foreseen(walk, used) : 0;
    size = expected > used + more ? expected : size;
    if (_PyBytes_Resize(&walk->bytes, size) < 0) {
        return 0;  /* bytes is NULL now */
    }
    walk->at = PyBytes_AS_STRING(walk->bytes) + used;
    walk->end = PyBytes_AS_STRING(walk->bytes) + size;
    return 1;
}

static inline int
has_room(struct walk *walk, Py_ssize_t size)
{
    return walk->end - walk->at >= size || grow(walk, size);
}

static inline enum outcome
put(struct walk *walk, const char *text, Py_ssize_t size)
{
    if (!has_room(walk, size)) {
        return FAILED;
    }
    memcpy(walk->at, text, (size_t)size);
    walk->at += size;
    return DONE;
}

#define PUT(walk, literal) put(walk, literal, (Py_ssize_t)sizeof(literal) - 1)

static enum outcome
put_bytes(struct walk *walk, PyObject *bytes)
{
    return put(walk, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

/* --- scalars ----------------------------------------------------------------------------------- */

static enum outcome
emit_utf8(struct walk *walk, const char *from, Py_ssize_t size)
{
    if (!has_room(walk, size + 2 + WIDE_STEP)) {
        return FAILED;
    }
    char *at = walk->at;
    *at++ = '"';
    while (size > 0) {
        Py_ssize_t plain = walk->is_wide ? copy_wide(at, from, size) : 0;
        if (plain == 0 && (size >= STEP || CAN_READ_BEHIND(from))) {
            plain = copy_step(at, from);
            plain = plain < size ? plain : size;
        }
        while (plain < size && plain < STEP && !must_be_escaped((unsigned char)from[plain])) {
            at[plain] = from[plain];
            plain++;
        }
        at += plain;
        from += plain;
        size -= plain;
        if (size > 0 && must_be_escaped((unsigned char)*from)) {
            at = put_escaped(at, (unsigned char)*from++);
            size--;
            walk->at = at;
            /* An escape takes up to 6 bytes for one. */
            if (!has_room(walk, size + 7 + WIDE_STEP)) {
                return FAILED;
            }
            at = walk->at;
        }
    }
    *at++ = '"';
    walk->at = at;
    return DONE;
}

/* Return the UTF-8 of a text; NULL where it has none (then no error is set), or an error came. */
static inline const char *
utf8_of(PyObject *text, Py_ssize_t *size)
{
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        *size = PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_1BYTE_DATA(text);
    }
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, size);
    if (utf8 == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
    }
    return utf8;
}

static enum outcome
emit_text(struct walk *walk, PyObject *text)
{
    Py_ssize_t size;
    const char *utf8 = utf8_of(text, &size);
    if (utf8 == NULL) {
        return PyErr_Occurred() ? FAILED : LONG_WAY;
    }
    return emit_utf8(walk, utf8, size);
}

static enum outcome
emit_int(struct walk *walk, long long value)
{
    char digits[24];
    char *at = digits + sizeof digits;
    unsigned long long left = value < 0 ? 0ull - (unsigned long long)value
                                        : (unsigned long long)value;
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0) {
        *--at = '-';
    }
    return put(walk, at, digits + sizeof digits - at);
}

/* The encoder's own way to write numbers; it runs nobody's code. */
static enum outcome
emit_encoded(struct walk *walk, PyObject *value)
{
    PyObject *bytes = PyObject_CallOneArg(walk->encode, value);
    if (bytes == NULL) {
        return FAILED;
    }
    enum outcome outcome = FAILED;
    if (PyBytes_CheckExact(bytes)) {
        outcome = put_bytes(walk, bytes);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "encode must return bytes");
    }
    Py_DECREF(bytes);
    return outcome;
}

static enum outcome
emit_float(struct walk *walk, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    if (number - number == 0.0) {
        return emit_encoded(walk, value);
    }
    if (number != number) {
        return PUT(walk, "{\"$float\":\"nan\"}");
    }
    return number > 0 ? PUT(walk, "{\"$float\":\"inf\"}") : PUT(walk, "{\"$float\":\"-inf\"}");
}

/* --- freezing ---------------------------------------------------------------------------------- */

static int
freeze_one(struct frame *frame)
{
    int is_dict = PyDict_CheckExact(frame->container);
    Py_ssize_t size = is_dict ? 2 * PyDict_GET_SIZE(frame->container)
                              : PyList_GET_SIZE(frame->container) - frame->place;
    frame->rest = PyMem_New(PyObject *, (size_t)(size > 0 ? size : 1));
    if (frame->rest == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    frame->count = 0;
    if (is_dict) {
        PyObject *key, *item;
        Py_ssize_t place = frame->place;
        while (frame->count + 2 <= size
               && PyDict_Next(frame->container, &place, &key, &item)) {
            Py_INCREF(key);
            Py_INCREF(item);
            frame->rest[frame->count++] = key;
            frame->rest[frame->count++] = item;
        }
    }
    else {
        for (Py_ssize_t i = 0; i < size; i++) {
            PyObject *item = PyList_GET_ITEM(frame->container, frame->place + i);
            Py_INCREF(item);
            frame->rest[frame->count++] = item;
        }
    }
    frame->next = is_dict ? 2 : 1;  /* the item in hand was taken already */
    return 1;
}

/* To be called before anything that can run somebody's code, while an item is in hand. */
static int
freeze(struct walk *walk)
{
    /* All that stand around a frozen one are frozen. */
    for (struct frame *frame = walk->inner; frame && !frame->rest; frame = frame->outer) {
        if (!freeze_one(frame)) {
            return 0;
        }
    }
    return 1;
}

static void
leave(struct walk *walk, struct frame *frame)
{
    walk->inner = frame->outer;
    if (frame->rest != NULL) {
        for (Py_ssize_t i = 0; i < frame->count; i++) {
            Py_DECREF(frame->rest[i]);
        }
        PyMem_Free(frame->rest);
    }
}

/* --- containers -------------------------------------------------------------------------------- */

static inline enum outcome
enter(struct walk *walk, int depth)
{
    return depth > walk->depth_max || --walk->left < 0 ? LONG_WAY : DONE;
}

/* A list or tuple of floats and small ints alone: the encoder writes it faster than we could. */
static int
is_of_numbers(PyObject *const *items, Py_ssize_t size)
{
    if (size < NUMBERS_MIN || !PyFloat_CheckExact(items[0])) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        if (!PyFloat_CheckExact(items[i])) {
            return 0;
        }
        double number = PyFloat_AS_DOUBLE(items[i]);
        if (number - number != 0.0) {
            return 0;
        }
    }
    return 1;
}

static enum outcome
emit_items(struct walk *walk, struct frame *frame, int depth)
{
    enum outcome outcome = DONE;
    for (;;) {
        PyObject *item;
        if (frame->rest != NULL) {
            if (frame->next >= frame->count) {
                return DONE;
            }
            item = frame->rest[frame->next++];
        }
        else if (frame->place < PyList_GET_SIZE(frame->container)) {
            item = PyList_GET_ITEM(frame->container, frame->place);
        }
        else {
            return DONE;
        }
        outcome = emit(walk, item, depth);
        if (outcome != DONE) {
            return outcome;
        }
        frame->place++;
        outcome = PUT(walk, ",");
        if (outcome != DONE) {
            return outcome;
        }
    }
}

/* Close a container in place of the comma behind its last item. */
static enum outcome
close_with(struct walk *walk, char bracket)
{
    if (walk->at[-1] == ',') {
        walk->at[-1] = bracket;
        return DONE;
    }
    return put(walk, &bracket, 1);
}

static enum outcome
emit_list(struct walk *walk, PyObject *list, int depth)
{
    enum outcome outcome = enter(walk, depth);
    if (outcome != DONE) {
        return outcome;
    }
    Py_ssize_t size = PyList_GET_SIZE(list);
    if (size > 0 && is_of_numbers(&PyList_GET_ITEM(list, 0), size)) {
        return emit_encoded(walk, list);
    }
    struct frame frame = {walk->inner, list, 0, NULL, 0, 0};
    walk->inner = &frame;
    outcome = PUT(walk, "[");
    if (outcome == DONE) {
        outcome = emit_items(walk, &frame, depth + 1);
    }
    leave(walk, &frame);
    return outcome == DONE ? close_with(walk, ']') : outcome;
}

static enum outcome
emit_tuple(struct walk *walk, PyObject *tuple, int depth)
{
    enum outcome outcome = enter(walk, depth);
    if (outcome == DONE) {
        outcome = PUT(walk, "{\"$tuple\":[");
    }
    for (Py_ssize_t i = 0; outcome == DONE && i < PyTuple_GET_SIZE(tuple); i++) {
        outcome = emit(walk, PyTuple_GET_ITEM(tuple, i), depth + 1);
        if (outcome == DONE) {
            outcome = PUT(walk, ",");
        }
    }
    if (outcome == DONE) {
        outcome = close_with(walk, ']');
    }
    return outcome == DONE ? PUT(walk, "}") : outcome;
}

/* Say whether redacting would leave what stands under a secret key as it is. */
static int
has_nothing_secret(struct walk *walk, PyObject *item)
{
    if (item == Py_None || PyBool_Check(item) || PyLong_CheckExact(item)
        || PyFloat_CheckExact(item)) {
        return 1;
    }
    return PyUnicode_CheckExact(item)
           && (PyUnicode_GET_LENGTH(item) == 0
               || PyUnicode_Compare(item, walk->replacement) == 0);
}

/* Say whether a key names nothing secret; -1 with an error. This can run somebody's code. */
static int
is_plain_key(struct walk *walk, PyObject *key)
{
    if (walk->verdicts == NULL) {
        return 1;
    }
    PyObject *is_secret = PyDict_GetItemWithError(walk->verdicts, key);
    if (is_secret != NULL) {
        Py_INCREF(is_secret);
    }
    else {
        if (PyErr_Occurred() || !freeze(walk)) {
            return -1;
        }
        is_secret = PyObject_GetItem(walk->verdicts, key);  /* judges it, in Python */
        if (is_secret == NULL) {
            return -1;
        }
    }
    int is_plain = is_secret == Py_False;
    Py_DECREF(is_secret);
    return is_plain;
}

/* Write a key that was not met, or is not short, and its colon. */
static enum outcome
emit_new_key(struct walk *walk, PyObject *key, PyObject *item)
{
    char *begin = walk->at, *at = put_short(begin, key);
    int is_short = at != NULL, number = KEY_NUMBER(key);
    if (is_short) {
        walk->at = at;
    }
    else {
        enum outcome outcome = PyUnicode_CheckExact(key) ? emit_text(walk, key) : LONG_WAY;
        if (outcome != DONE || !has_room(walk, 2 * STEP + SHORT)) {
            return outcome == DONE ? FAILED : outcome;
        }
    }
    *walk->at++ = ':';
    if (walk->keys[number] == key) {
        return DONE;
    }
    int is_plain = is_plain_key(walk, key);
    if (is_plain <= 0) {
        return is_plain < 0 ? FAILED : has_nothing_secret(walk, item) ? DONE : LONG_WAY;
    }
    Py_INCREF(key);
    Py_XSETREF(walk->keys[number], key);
    struct written *written = &walk->written[number];
    written->size = is_short ? (unsigned char)(walk->at - begin) : 0;
    if (is_short) {
        memcpy(written->text, begin, written->size);
    }
    return DONE;
}

/* Write a value that takes few bytes, and its comma; say whether it was one. There is room. */
static inline int
put_small(struct walk *walk, PyObject *item, int depth)
{
    char *at = put_short(walk->at, item);
    if (at == NULL) {
        const char *text;
        int size = 4;
        if (item == Py_None) {
            text = "null";
        }
        else if (item == Py_False) {
            text = "false";
            size = 5;
        }
        else if (item == Py_True) {
            text = "true";
        }
        else {
            int is_list = PyList_CheckExact(item) && PyList_GET_SIZE(item) == 0;
            if (!is_list && !(PyDict_CheckExact(item) && PyDict_GET_SIZE(item) == 0)) {
                return 0;
            }
            if (enter(walk, depth) != DONE) {
                return 0;  /* it is met again, and refused again */
            }
            text = is_list ? "[]" : "{}";
            size = 2;
        }
        at = (char *)memcpy(walk->at, text, (size_t)size) + size;
    }
    *at++ = ',';
    walk->at = at;
    return 1;
}

static inline enum outcome
emit_entry(struct walk *walk, PyObject *key, PyObject *item, int depth)
{
    if (!has_room(walk, 2 * (SHORT + STEP))) {
        return FAILED;
    }
    int number = KEY_NUMBER(key);
    if (walk->keys[number] == key && walk->written[number].size) {
        memcpy(walk->at, walk->written[number].text, SHORT + STEP);
        walk->at += walk->written[number].size;
    }
    else {
        enum outcome outcome = emit_new_key(walk, key, item);
        if (outcome != DONE) {
            return outcome;
        }
    }
    /* There still is room for one short value and its comma. */
    if (put_small(walk, item, depth)) {
        return DONE;
    }
    enum outcome outcome = emit(walk, item, depth);
    return outcome == DONE ? PUT(walk, ",") : outcome;
}

static enum outcome
emit_entries(struct walk *walk, struct frame *frame, int depth)
{
    enum outcome outcome = DONE;
    Py_ssize_t place = 0;
    while (outcome == DONE) {
        PyObject *key, *item;
        if (frame->rest != NULL) {
            if (frame->next >= frame->count) {
                break;
            }
            key = frame->rest[frame->next++];
            item = frame->rest[frame->next++];
        }
        else {
            frame->place = place;
            if (!PyDict_Next(frame->container, &place, &key, &item)) {
                break;
            }
        }
        outcome = emit_entry(walk, key, item, depth);
    }
    return outcome;
}

/* An object with one key that begins with `$` would be a tag. */
static int
looks_like_a_tag(PyObject *dict)
{
    PyObject *key, *item;
    Py_ssize_t place = 0, size;
    if (PyDict_GET_SIZE(dict) != 1 || !PyDict_Next(dict, &place, &key, &item)
        || !PyUnicode_CheckExact(key)) {
        return 0;
    }
    const char *utf8 = utf8_of(key, &size);
    if (utf8 == NULL) {
        PyErr_Clear();  /* whatever it was comes again where the key is written */
        return 0;
    }
    return size > 0 && utf8[0] == '$';
}

static enum outcome
emit_dict(struct walk *walk, PyObject *dict, int depth)
{
    enum outcome outcome = enter(walk, depth);
    if (outcome != DONE) {
        return outcome;
    }
    int is_escaped = looks_like_a_tag(dict);
    struct frame frame = {walk->inner, dict, 0, NULL, 0, 0};
    walk->inner = &frame;
    outcome = is_escaped ? PUT(walk, "{\"$object\":{") : PUT(walk, "{");
    if (outcome == DONE) {
        outcome = emit_entries(walk, &frame, depth + 1);
    }
    leave(walk, &frame);
    if (outcome == DONE) {
        outcome = close_with(walk, '}');
    }
    return outcome == DONE && is_escaped ? PUT(walk, "}") : outcome;
}

/* --- objects ----------------------------------------------------------------------------------- */

/* An exception of somebody's code: the long way meets it again and tells it with its path. */
static enum outcome
pass_on(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return FAILED;  /* an interrupt */
    }
    PyErr_Clear();
    return LONG_WAY;
}

/* Read attributes that need nobody's code; say how many, which is all of them or none. */
static Py_ssize_t
read_simple(PyObject *value, Py_ssize_t count, const struct attributes *attributes,
            PyObject **held)
{
    if (!attributes_hold(attributes, Py_TYPE(value))) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        held[i] = attribute_at(value, attributes->offsets[i]);
        if (held[i] == NULL) {
            while (i > 0) {
                Py_DECREF(held[--i]);
            }
            return 0;
        }
    }
    return count;
}

static enum outcome
emit_attributes(struct walk *walk, PyObject *value, struct known_kind *known, int depth)
{
    enum outcome outcome = enter(walk, depth);
    if (outcome != DONE) {
        return outcome;
    }
    PyObject *names = PyTuple_GET_ITEM(walk->codecs, known->codec + 2);
    /* All are read before any is written, as the twin does: a moment of the object. */
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    PyObject *few[8];
    PyObject **held = count <= 8 ? few : PyMem_New(PyObject *, (size_t)count);
    if (held == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    Py_ssize_t read = read_simple(value, count, &known->attributes, held);
    if (read < count && !freeze(walk)) {
        outcome = FAILED;
    }
    for (; outcome == DONE && read < count; read++) {
        held[read] = PyObject_GetAttr(value, PyTuple_GET_ITEM(names, read));
        if (held[read] == NULL) {
            outcome = pass_on();
            break;
        }
    }
    for (Py_ssize_t i = 0; outcome == DONE && i < count; i++) {
        outcome = i == 0 ? DONE : PUT(walk, ",");
        if (outcome == DONE) {
            outcome = emit(walk, held[i], depth + 1);
        }
    }
    while (read > 0) {
        Py_DECREF(held[--read]);
    }
    if (held != few) {
        PyMem_Free(held);
    }
    return outcome;
}

/* Find the codec of a type; identity alone counts, as a metaclass may say what it likes. */
static struct known_kind *
kind_of(struct walk *walk, PyTypeObject *kind)
{
    struct known_kind *known = &walk->kinds[((uintptr_t)kind >> 5 ^ (uintptr_t)kind >> 10)
                                            & (KINDS - 1)];
    if (known->kind == kind) {
        return known;
    }
    Py_ssize_t size = PyTuple_GET_SIZE(walk->codecs);
    for (Py_ssize_t i = 0; i < size; i += 3) {
        if (PyTuple_GET_ITEM(walk->codecs, i) == (PyObject *)kind) {
            memset(known, 0, sizeof *known);
            known->kind = kind;
            known->codec = i;
            return known;
        }
    }
    return NULL;
}

static enum outcome
emit_object(struct walk *walk, PyObject *value, struct known_kind *known, int depth)
{
    enum outcome outcome = enter(walk, depth);
    if (outcome == DONE) {
        outcome = put_bytes(walk, PyTuple_GET_ITEM(walk->codecs, known->codec + 1));
    }
    if (outcome == DONE && !known->is_sought) {
        if (!freeze(walk)) {
            return FAILED;
        }
        known->is_sought = 1;
        kernel_find_attributes(known->kind, PyTuple_GET_ITEM(walk->codecs, known->codec + 2),
                               &known->attributes);
    }
    if (outcome == DONE) {
        outcome = emit_attributes(walk, value, known, depth + 1);
    }
    return outcome == DONE ? PUT(walk, "]]}") : outcome;
}

/* One value that only Python can lower; containers in it are counted there. */
static enum outcome
emit_odd(struct walk *walk, PyObject *value, int depth)
{
    if (!freeze(walk)) {
        return FAILED;
    }
    PyObject *answer = NULL, *at = PyLong_FromLong(depth), *left = PyLong_FromSsize_t(walk->left);
    if (at != NULL && left != NULL) {
        answer = PyObject_CallFunctionObjArgs(walk->odd, walk->context, value, at, left, NULL);
    }
    Py_XDECREF(at);
    Py_XDECREF(left);
    if (answer == NULL) {
        return FAILED;
    }
    enum outcome outcome = LONG_WAY;
    if (answer != Py_None) {
        PyObject *wire;
        if (!PyTuple_Check(answer)) {
            PyErr_SetString(PyExc_TypeError, "odd must return (bytes, int) or None");
            outcome = FAILED;
        }
        else if (!PyArg_ParseTuple(answer, "Sn", &wire, &walk->left)) {
            outcome = FAILED;
        }
        else {
            outcome = put_bytes(walk, wire);
        }
    }
    Py_DECREF(answer);
    return outcome;
}

static enum outcome
emit_other(struct walk *walk, PyObject *value, int depth)
{
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? emit_odd(walk, value, depth) : emit_int(walk, number);
    }
    if (PyFloat_CheckExact(value)) {
        return emit_float(walk, value);
    }
    if (PyTuple_CheckExact(value)) {
        return emit_tuple(walk, value, depth);
    }
    struct known_kind *known = kind_of(walk, Py_TYPE(value));
    return known == NULL ? emit_odd(walk, value, depth) : emit_object(walk, value, known, depth);
}

/* The value's holder keeps it alive: whoever may run code freezes that first. */
static enum outcome
emit(struct walk *walk, PyObject *value, int depth)
{
    if (PyUnicode_CheckExact(value)) {
        return emit_text(walk, value);
    }
    if (PyDict_CheckExact(value)) {
        return emit_dict(walk, value, depth);
    }
    if (value == Py_None) {
        return PUT(walk, "null");
    }
    if (value == Py_True) {
        return PUT(walk, "true");
    }
    if (value == Py_False) {
        return PUT(walk, "false");
    }
    if (PyList_CheckExact(value)) {
        return emit_list(walk, value, depth);
    }
    return emit_other(walk, value, depth);
}

/* --- the door ---------------------------------------------------------------------------------- */

static int
is_table(PyObject *codecs)
{
    if (!PyTuple_CheckExact(codecs) || PyTuple_GET_SIZE(codecs) % 3 != 0) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(codecs); i += 3) {
        if (!PyBytes_CheckExact(PyTuple_GET_ITEM(codecs, i + 1))
            || !PyTuple_CheckExact(PyTuple_GET_ITEM(codecs, i + 2))) {
            return 0;
        }
    }
    return 1;
}

static PyObject *
answer_of(struct walk *walk, enum outcome outcome)
{
    for (int i = 0; i < KEYS; i++) {
        Py_XDECREF(walk->keys[i]);
    }
    if (outcome == DONE) {
        _PyBytes_Resize(&walk->bytes, walk->at - PyBytes_AS_STRING(walk->bytes));
        return walk->bytes;
    }
    Py_XDECREF(walk->bytes);
    if (outcome == FAILED) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
kernel_wire(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 9 || !is_table(arguments[1])
        || !(arguments[2] == Py_None || PyDict_Check(arguments[2]))
        || !PyUnicode_CheckExact(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "wire takes 9 arguments: a value, a table of codecs, a "
                                         "dict or None, a text, ...");
        return NULL;
    }
    struct walk walk;
    memset(&walk, 0, offsetof(struct walk, written));
    walk.is_wide = can_copy_wide();
    walk.codecs = arguments[1];
    walk.verdicts = arguments[2] == Py_None ? NULL : arguments[2];
    walk.replacement = arguments[3];
    walk.odd = arguments[4];
    walk.context = arguments[5];
    walk.encode = arguments[6];
    walk.depth_max = (int)PyLong_AsLong(arguments[7]);
    walk.left = PyLong_AsSsize_t(arguments[8]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    walk.bytes = PyBytes_FromStringAndSize(NULL, BYTES_FIRST);
    if (walk.bytes == NULL) {
        return NULL;
    }
    walk.at = PyBytes_AS_STRING(walk.bytes);
    walk.end = walk.at + BYTES_FIRST;
    return answer_of(&walk, emit(&walk, arguments[0], 1));
}
