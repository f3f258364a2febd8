/* Writes an ordinary event in schema 2; see ckptlog/formats/short_event.py, whose twin this is.
 *
 * Ordinary: texts of ASCII without escapes, numbers in their ranges, and nothing that is rare (facts,
 * packs). What is anything else is not written here: the answer is None.
 */
#include "kernel.h"

#include <stdint.h>
#include <string.h>

#define ARGUMENTS 23
#define AGE_MAX 315537897599999999LL  /* AGE_US_MAX */
#define ROOT_BYTES 32
#define MADE_DIGITS 24
#define MADE_TIME_BYTES 7
#define KIND_MAX 16
#define FAMILY "checkpoint"
#define FAMILY_LETTERS ((Py_ssize_t)sizeof(FAMILY) - 1)

typedef struct {
    const char *at;
    Py_ssize_t size;
} Text;

typedef struct {
    char *at;
    char *stop;
    int is_first;
} Out;

/* Takes a text that stands for itself in JSON; 0 for any other. */
static int
take_text(PyObject *object, Text *text)
{
    if (!PyUnicode_CheckExact(object) || !PyUnicode_IS_COMPACT_ASCII(object)) {
        return 0;
    }
    text->at = (const char *)PyUnicode_1BYTE_DATA(object);
    text->size = PyUnicode_GET_LENGTH(object);
    if (text->size > KERNEL_ENTRY_MAX) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < text->size; i++) {
        unsigned char byte = (unsigned char)text->at[i];
        if (byte < 0x20 || byte == '"' || byte == '\\') {
            return 0;
        }
    }
    return 1;
}

static int
take_number(PyObject *object, long long least, long long *number)
{
    if (!PyLong_CheckExact(object)) {
        return 0;
    }
    int overflow = 0;
    *number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow && *number >= least && *number <= KERNEL_NUMBER_MAX;
}

static int
digit_of(char letter)
{
    if (letter >= '0' && letter <= '9') {
        return letter - '0';
    }
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* Reads small hexadecimal digits; 0 where there is anything else. */
static int
take_hex(const char *from, int bytes, unsigned char *to)
{
    for (int i = 0; i < bytes; i++) {
        int high = digit_of(from[2 * i]), low = digit_of(from[2 * i + 1]);
        if (high < 0 || low < 0) {
            return 0;
        }
        to[i] = (unsigned char)(high << 4 | low);
    }
    return 1;
}

static void
put(Out *out, const char *from, Py_ssize_t size)
{
    if (size > out->stop - out->at) {
        out->at = out->stop;  /* full: what follows has no room either */
        out->stop = out->at;
        out->is_first = -1;
        return;
    }
    memcpy(out->at, from, (size_t)size);
    out->at += size;
}

static void
put_number(Out *out, long long number)
{
    char digits[24];
    int at = (int)sizeof(digits);
    unsigned long long rest = number < 0 ? 0ULL - (unsigned long long)number
                                         : (unsigned long long)number;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0) {
        digits[--at] = '-';
    }
    put(out, digits + at, (Py_ssize_t)sizeof(digits) - at);
}

/* Writes bytes in base64 without padding. */
static void
put_base64(Out *out, const unsigned char *from, int bytes)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char made[(ROOT_BYTES + 2) / 3 * 4];
    int size = 0;
    for (int i = 0; i < bytes; i += 3) {
        int left = bytes - i;
        uint32_t bits = (uint32_t)from[i] << 16;
        bits |= left > 1 ? (uint32_t)from[i + 1] << 8 : 0;
        bits |= left > 2 ? (uint32_t)from[i + 2] : 0;
        for (int j = 0; j < (left > 2 ? 4 : left + 1); j++) {
            made[size++] = letters[bits >> (18 - 6 * j) & 63];
        }
    }
    put(out, made, size);
}

static void
put_name(Out *out, const char *name)
{
    if (out->is_first == 0) {
        put(out, ",", 1);
    }
    else if (out->is_first > 0) {
        out->is_first = 0;
    }
    put(out, "\"", 1);
    put(out, name, (Py_ssize_t)strlen(name));
    put(out, "\":", 2);
}

static void
put_text(Out *out, const char *name, Text text)
{
    put_name(out, name);
    put(out, "\"", 1);
    put(out, text.at, text.size);
    put(out, "\"", 1);
}

static void
put_member(Out *out, const char *name, long long number)
{
    put_name(out, name);
    put_number(out, number);
}

/* Writes a reference; 0 where the long way must say what is wrong with it. */
static int
put_reference(Out *out, const char *name, PyObject *const *parts)
{
    Text root, kind;
    long long size;
    unsigned char raw[ROOT_BYTES];
    if (parts[0] == Py_None) {
        return 1;
    }
    if (!take_text(parts[0], &root) || root.size != 2 * ROOT_BYTES
        || !take_hex(root.at, ROOT_BYTES, raw) || !take_number(parts[1], 0, &size)
        || !take_text(parts[2], &kind) || kind.size < 1 || kind.size > KIND_MAX) {
        return 0;
    }
    put_name(out, name);
    put(out, "\"", 1);
    put_base64(out, raw, ROOT_BYTES);
    put(out, ",", 1);
    put_number(out, size);
    if (kind.size != 4 || memcmp(kind.at, "leaf", 4) != 0) {
        for (Py_ssize_t i = 0; i < kind.size; i++) {
            if (kind.at[i] < 'a' || kind.at[i] > 'z') {
                return 0;
            }
        }
        put(out, ",", 1);
        put(out, kind.at, kind.size);
    }
    put(out, "\"", 1);
    return 1;
}

/* Writes an id that the program made; 0 for any other. */
static int
put_made(Out *out, Text id, long long at)
{
    unsigned char raw[MADE_DIGITS / 2];
    int has_blank = id.size == MADE_DIGITS + 1 && id.at[MADE_DIGITS] == ' ';
    if ((id.size != MADE_DIGITS && !has_blank) || !take_hex(id.at, MADE_DIGITS / 2, raw)) {
        return 0;
    }
    long long time = 0;
    for (int i = 0; i < MADE_TIME_BYTES; i++) {
        time = time << 8 | raw[i];
    }
    long long age = at - time;
    if (age > AGE_MAX || age < -AGE_MAX) {
        return 0;
    }
    put_name(out, "made");
    put(out, "\"", 1);
    put_number(out, age);
    put(out, ",", 1);
    put_base64(out, raw + MADE_TIME_BYTES, MADE_DIGITS / 2 - MADE_TIME_BYTES);
    put(out, has_blank ? " \"" : "\"", 1 + has_blank);
    return 1;
}

static void
put_parent(Out *out, Text parent, Text checkpoint)
{
    if (parent.size == 0) {
        return;
    }
    Py_ssize_t end = checkpoint.size, begin = 0;
    for (Py_ssize_t i = checkpoint.size; i-- > 0;) {
        if (checkpoint.at[i] == '~') {
            end = i;
            break;
        }
    }
    int is_alike = parent.size == checkpoint.size
                   && memcmp(parent.at + end, checkpoint.at + end, (size_t)(parent.size - end)) == 0
                   && memcmp(parent.at, checkpoint.at, (size_t)end) != 0;
    if (!is_alike) {
        put_text(out, "up", parent);
        return;
    }
    while (parent.at[begin] == checkpoint.at[begin]) {
        begin++;
    }
    Text other = {parent.at + begin, end - begin};
    put_text(out, "up~", other);
}

/* Takes a time that schema 2 writes as a number; 0 for any other. */
static int
take_time(PyObject *object, long long *us)
{
    return PyUnicode_CheckExact(object) && PyUnicode_IS_COMPACT_ASCII(object)
           && PyUnicode_GET_LENGTH(object) == KERNEL_TIME_LETTERS
           && kernel_take_time((const char *)PyUnicode_1BYTE_DATA(object), us)
           && *us >= -KERNEL_NUMBER_MAX && *us <= KERNEL_NUMBER_MAX;
}

static int
is_same(Text one, PyObject *other)
{
    return PyUnicode_CheckExact(other) && PyUnicode_IS_COMPACT_ASCII(other)
           && PyUnicode_GET_LENGTH(other) == one.size
           && memcmp(one.at, PyUnicode_1BYTE_DATA(other), (size_t)one.size) == 0;
}

/* Says which state a type mostly leaves, and cuts the type to what is written of it: nothing where
 * it is the first of all. 0 for a type that cannot be written.
 */
static int
settle_type(PyObject *types, Text *type, Text state, int *has_type, int *has_state)
{
    *has_type = 1;
    *has_state = state.size != 0;
    if (type->size && type->at[0] == '.') {
        return 0;
    }
    for (Py_ssize_t i = 0; i + 1 < PyTuple_GET_SIZE(types); i += 2) {
        if (is_same(*type, PyTuple_GET_ITEM(types, i))) {
            *has_type = i != 0;
            *has_state = !is_same(state, PyTuple_GET_ITEM(types, i + 1));
            break;
        }
    }
    if (type->size > FAMILY_LETTERS && memcmp(type->at, FAMILY ".", FAMILY_LETTERS + 1) == 0) {
        type->at += FAMILY_LETTERS;
        type->size -= FAMILY_LETTERS;
    }
    return 1;
}

PyObject *
kernel_short_entry(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != ARGUMENTS || !PyTuple_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "short_entry takes 23 arguments, the first a tuple");
        return NULL;
    }
    char room[KERNEL_ENTRY_MAX];
    Out out = {room, room + KERNEL_ENTRY_MAX, 1};
    Text actor, checkpoint, id, space, state, task, type, parent, worker;
    long long created = 0, at, new, origin, previous, step, total;
    PyObject *const *data = arguments + 5, *const *meta = arguments + 9;
    PyObject *const *rest = arguments + 12;
    int has_age = !PyUnicode_CheckExact(arguments[2]) || PyUnicode_GET_LENGTH(arguments[2]) != 0;
    int has_state, has_type;
    if (!take_text(arguments[1], &actor) || (has_age && !take_time(arguments[2], &created))
        || !take_time(arguments[3], &at) || !take_text(arguments[4], &checkpoint)
        || !take_text(arguments[8], &id) || !take_number(rest[0], 0, &new)
        || !take_number(rest[1], -1, &origin) || !take_number(rest[2], -1, &previous)
        || !take_text(rest[3], &space) || !take_text(rest[4], &state)
        || !take_number(rest[5], 0, &step) || !take_text(rest[6], &task)
        || !take_number(rest[7], 0, &total) || !take_text(rest[8], &type)
        || !take_text(rest[9], &parent) || !take_text(rest[10], &worker)
        || !settle_type(arguments[0], &type, state, &has_type, &has_state)
        || at - created > KERNEL_NUMBER_MAX || at - created < -KERNEL_NUMBER_MAX) {
        Py_RETURN_NONE;
    }
    put(&out, "{", 1);
    put_text(&out, "actor", actor);
    if (has_age) {
        put_member(&out, "age", at - created);
    }
    put_member(&out, "at", at);
    if (checkpoint.size) {
        put_text(&out, "cp", checkpoint);
    }
    if (!put_reference(&out, "data", data)) {
        Py_RETURN_NONE;
    }
    if (!put_made(&out, id, at)) {
        put_text(&out, "id", id);
    }
    if (!put_reference(&out, "meta", meta)) {
        Py_RETURN_NONE;
    }
    if (new) {
        put_member(&out, "new", new);
    }
    if (origin != -1) {
        put_member(&out, "origin", origin);
    }
    if (previous != origin) {
        put_member(&out, "previous", previous);
    }
    if (space.size) {
        put_text(&out, "space", space);
    }
    if (has_state) {
        put_text(&out, "state", state);
    }
    if (step) {
        put_member(&out, "step", step);
    }
    if (task.size) {
        put_text(&out, "task", task);
    }
    if (total) {
        put_member(&out, "total", total);
    }
    if (has_type) {
        put_text(&out, "type", type);
    }
    put_parent(&out, parent, checkpoint);
    if (worker.size) {
        put_text(&out, "worker", worker);
    }
    put(&out, "}", 1);
    if (out.is_first < 0) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize(room, out.at - room);
}
