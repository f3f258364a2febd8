/* Reads an ordinary event of schema 2; see ckptlog/formats/short_event.py: twin of the decoder of
 * `Short` and of `unpack`.
 *
 * Ordinary: canonical JSON without escapes, and nothing that is rare (facts, packs, times as text).
 * What is anything else, or wrong, or only may be, is not read here: the answer is None, and the
 * long way decides, with its own words. So this may refuse too much, and never too little.
 *
 * First the object is walked through once, and every member noted (members.c): nothing is made yet.
 * After that the parts are made, and of them the event (`build`).
 */
#include "members.h"

#include <string.h>

#define AGE_DIGITS 18  /* of AGE_US_MAX */
#define ROOT_BYTES 32
#define ROOT_LETTERS 43
#define MADE_TIME_DIGITS 14
#define MADE_TIME_MAX ((1LL << 56) - 1)
#define MADE_REST_BYTES 5
#define MADE_REST_LETTERS 7
#define KIND_MAX 16
#define FAMILY "checkpoint"
#define FAMILY_LETTERS ((Py_ssize_t)sizeof(FAMILY) - 1)
#define TYPE_MAX 64  /* bytes; longer ones are rare */

/* What Python hands over: see `short_event` in __init__.py. */
enum { P_EVENT, P_REFERENCE, P_SUBJECT, P_NAMES, P_TYPES, P_LEAF, P_SCHEMA, PARTS };

/* The fields of an event that can differ here, in the order of their names. */
enum {
    F_ACTOR, F_CREATED, F_DATA, F_ID, F_META, F_NEW, F_ORIGIN, F_PREVIOUS, F_SCHEMA, F_STATE,
    F_STEP, F_SUBJECT, F_TIME, F_TOTAL, F_TYPE, FIELDS
};

/* --- the parts ----------------------------------------------------------------------------
 * Each is a new reference; NULL without an exception where the long way must decide.
 */

static PyObject *
ascii_of(const char *from, Py_ssize_t size)
{
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL && size) {
        memcpy(PyUnicode_1BYTE_DATA(text), from, (size_t)size);
    }
    return text;
}

static PyObject *
text_of(const Member *member)
{
    if (member->at == NULL || member->is_ascii) {
        return ascii_of(member->at, member->size);
    }
    PyObject *text = PyUnicode_DecodeUTF8(member->at, member->size, NULL);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
    }
    return text;
}

static PyObject *
number_of(const Member *member, long long otherwise)
{
    return PyLong_FromLongLong(member->at != NULL ? member->number : otherwise);
}

static PyObject *
time_of(long long us)
{
    char text[KERNEL_TIME_LETTERS];
    return kernel_put_time(text, us) ? ascii_of(text, KERNEL_TIME_LETTERS) : NULL;
}

/* The bits that a letter of base64 stands for; negative for any other. */
static inline int
bits_of(char letter)
{
    static const signed char plus_one[256] = {
        ['A'] = 1, ['B'] = 2, ['C'] = 3, ['D'] = 4, ['E'] = 5, ['F'] = 6, ['G'] = 7, ['H'] = 8,
        ['I'] = 9, ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15,
        ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22,
        ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29,
        ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36,
        ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42, ['q'] = 43,
        ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49, ['x'] = 50,
        ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56, ['4'] = 57,
        ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
    };
    return plus_one[(unsigned char)letter] - 1;
}

static char *
put_hex(char *to, unsigned number, int digits)
{
    for (int i = digits; i-- > 0; number >>= 4) {
        to[i] = "0123456789abcdef"[number & 15];
    }
    return to + digits;
}

/* Write what base64 without padding says as hexadecimal digits; 0 where it is not canonical. */
static int
put_base64_as_hex(char *to, const char *from, int letters)
{
    unsigned bits = 0, odd = 0;
    int at = 0;
    for (; at + 4 <= letters; at += 4) {
        int a = bits_of(from[at]), b = bits_of(from[at + 1]);
        int c = bits_of(from[at + 2]), d = bits_of(from[at + 3]);
        if ((a | b | c | d) < 0) {
            return 0;
        }
        to = put_hex(to, (unsigned)(a << 18 | b << 12 | c << 6 | d), 6);
    }
    for (; at < letters; at++) {
        int six = bits_of(from[at]);
        if (six < 0) {
            return 0;
        }
        bits = bits << 6 | (unsigned)six;
        odd += 6;
    }
    /* What is left over of the last byte must be nothing. */
    unsigned left = odd % 8;
    put_hex(to, bits >> left, (int)(odd / 8 * 2));
    return (bits & ((1U << left) - 1)) == 0;
}

/* `<root>,<size>[,<kind>]` */
static PyObject *
reference_of(const Member *member, PyObject *parts)
{
    if (member->size == 0) {
        return Py_NewRef(Py_None);
    }
    char root[2 * ROOT_BYTES];
    const char *at = member->at, *stop = at + member->size;
    long long size;
    if (member->size < ROOT_LETTERS + 2 || at[ROOT_LETTERS] != ','
        || !put_base64_as_hex(root, at, ROOT_LETTERS)) {
        return NULL;
    }
    at = kernel_take_integer(at + ROOT_LETTERS + 1, stop, NUMBER_DIGITS, &size);
    if (at == NULL || size < 0 || size > KERNEL_NUMBER_MAX) {
        return NULL;
    }
    PyObject *kind, *made[3] = {NULL, NULL, NULL}, *reference = NULL;
    if (at == stop) {
        kind = Py_NewRef(PyTuple_GET_ITEM(parts, P_LEAF));
    }
    else {
        Py_ssize_t letters = stop - at - 1;
        if (*at++ != ',' || letters < 1 || letters > KIND_MAX
            || (letters == 4 && memcmp(at, "leaf", 4) == 0)) {
            return NULL;
        }
        for (Py_ssize_t i = 0; i < letters; i++) {
            if (at[i] < 'a' || at[i] > 'z') {
                return NULL;
            }
        }
        kind = ascii_of(at, letters);
    }
    made[0] = kind;
    made[1] = ascii_of(root, (Py_ssize_t)sizeof(root));
    made[2] = PyLong_FromLongLong(size);
    if (made[0] != NULL && made[1] != NULL && made[2] != NULL) {
        reference = PyObject_Vectorcall(PyTuple_GET_ITEM(parts, P_REFERENCE), made, 3, NULL);
    }
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(made[i]);
    }
    return reference;
}

/* `made` is `<age in microseconds>,<7 letters>`, maybe with a blank behind. */
static PyObject *
id_of(const Member *id, const Member *made, long long at)
{
    char text[MADE_TIME_DIGITS + 2 * MADE_REST_BYTES + 1];
    long long age;
    if (id->at != NULL) {
        return made->size ? NULL : text_of(id);
    }
    if (made->at == NULL) {
        return NULL;
    }
    const char *stop = made->at + made->size;
    const char *rest = kernel_take_integer(made->at, stop, AGE_DIGITS, &age);
    if (rest == NULL || rest == stop || *rest++ != ',') {
        return NULL;
    }
    int has_blank = stop - rest == MADE_REST_LETTERS + 1 && stop[-1] == ' ';
    long long time = at - age;
    if (stop - rest != MADE_REST_LETTERS + has_blank || time < 0 || time > MADE_TIME_MAX) {
        return NULL;
    }
    char *place = put_hex(text, (unsigned)(time >> 28), MADE_TIME_DIGITS / 2);
    place = put_hex(place, (unsigned)(time & 0xfffffff), MADE_TIME_DIGITS / 2);
    if (!put_base64_as_hex(place, rest, MADE_REST_LETTERS)) {
        return NULL;
    }
    text[sizeof(text) - 1] = ' ';
    return ascii_of(text, (Py_ssize_t)sizeof(text) - !has_blank);
}

static PyObject *
parent_of(const Member *whole, const Member *differing, const Member *checkpoint)
{
    if (differing->size == 0) {
        return text_of(whole);
    }
    if (whole->size || !differing->is_ascii || checkpoint->size < differing->size
        || !checkpoint->is_ascii) {
        return NULL;
    }
    Py_ssize_t end = checkpoint->size;
    for (Py_ssize_t i = checkpoint->size; i-- > 0;) {
        if (checkpoint->at[i] == '~') {
            end = i;
            break;
        }
    }
    if (end < differing->size) {
        return NULL;
    }
    PyObject *parent = ascii_of(checkpoint->at, checkpoint->size);
    if (parent != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(parent) + end - differing->size, differing->at,
               (size_t)differing->size);
    }
    return parent;
}

static PyObject *
subject_of(const Member *found, PyObject *parts)
{
    PyObject *subject = NULL, *made[5] = {NULL};
    if ((made[0] = text_of(&found[M_CP])) != NULL && (made[1] = text_of(&found[M_SPACE])) != NULL
        && (made[2] = parent_of(&found[M_UP], &found[M_UP_OTHER], &found[M_CP])) != NULL
        && (made[3] = text_of(&found[M_TASK])) != NULL
        && (made[4] = text_of(&found[M_WORKER])) != NULL) {
        subject = PyObject_Vectorcall(PyTuple_GET_ITEM(parts, P_SUBJECT), made, 5, NULL);
    }
    for (int i = 0; i < 5; i++) {
        Py_XDECREF(made[i]);
    }
    return subject;
}

/* Say whether a type is what is told, behind so many letters of the family. */
static int
is_type(PyObject *type, Py_ssize_t family, const Member *told)
{
    if (!PyUnicode_CheckExact(type) || !PyUnicode_IS_COMPACT_ASCII(type)
        || PyUnicode_GET_LENGTH(type) != family + told->size) {
        return 0;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(type);
    return memcmp(text + family, told->at, (size_t)told->size) == 0
           && memcmp(text, FAMILY, (size_t)family) == 0;
}

static PyObject *
type_of(const Member *told, Py_ssize_t family)
{
    char text[sizeof(FAMILY) + TYPE_MAX];
    if (family == 0) {
        return text_of(told);
    }
    if (!told->is_ascii || told->size > TYPE_MAX) {
        return NULL;
    }
    memcpy(text, FAMILY, FAMILY_LETTERS);
    memcpy(text + FAMILY_LETTERS, told->at, (size_t)told->size);
    return ascii_of(text, FAMILY_LETTERS + told->size);
}

/* Make the type, and the state that mostly follows from it. */
static int
make_type(const Member *found, PyObject *types, PyObject **fields)
{
    const Member *told = &found[M_TYPE], *state = &found[M_STATE];
    Py_ssize_t family = told->size && told->at[0] == '.' ? FAMILY_LETTERS : 0;
    for (Py_ssize_t i = 0; i + 1 < PyTuple_GET_SIZE(types); i += 2) {
        PyObject *type = PyTuple_GET_ITEM(types, i);
        if (told->at == NULL || is_type(type, family, told)) {
            fields[F_TYPE] = Py_NewRef(type);
            fields[F_STATE] = state->at == NULL ? Py_NewRef(PyTuple_GET_ITEM(types, i + 1))
                                                : text_of(state);
            return fields[F_STATE] != NULL;
        }
    }
    return (fields[F_TYPE] = type_of(told, family)) != NULL
           && (fields[F_STATE] = text_of(state)) != NULL;
}

static int
make_numbers(const Member *found, PyObject **fields)
{
    return (fields[F_NEW] = number_of(&found[M_NEW], 0)) != NULL
           && (fields[F_ORIGIN] = number_of(&found[M_ORIGIN], -1)) != NULL
           && (fields[F_PREVIOUS] = found[M_PREVIOUS].at == NULL
                                        ? Py_NewRef(fields[F_ORIGIN])
                                        : number_of(&found[M_PREVIOUS], -1)) != NULL
           && (fields[F_STEP] = number_of(&found[M_STEP], 0)) != NULL
           && (fields[F_TOTAL] = number_of(&found[M_TOTAL], 0)) != NULL;
}

static int
make_times(const Member *found, PyObject **fields)
{
    long long at = found[M_AT].number;
    return (fields[F_TIME] = time_of(at)) != NULL
           && (fields[F_CREATED] = found[M_AGE].at == NULL
                                       ? ascii_of(NULL, 0)
                                       : time_of(at - found[M_AGE].number)) != NULL;
}

static PyObject *
build(const Member *found, PyObject *parts)
{
    PyObject *event = NULL, *fields[FIELDS] = {NULL};
    fields[F_SCHEMA] = Py_NewRef(PyTuple_GET_ITEM(parts, P_SCHEMA));
    if (make_times(found, fields) && make_numbers(found, fields)
        && make_type(found, PyTuple_GET_ITEM(parts, P_TYPES), fields)
        && (fields[F_ACTOR] = text_of(&found[M_ACTOR])) != NULL
        && (fields[F_DATA] = reference_of(&found[M_DATA], parts)) != NULL
        && (fields[F_META] = reference_of(&found[M_META], parts)) != NULL
        && (fields[F_ID] = id_of(&found[M_ID], &found[M_MADE], found[M_AT].number)) != NULL
        && (fields[F_SUBJECT] = subject_of(found, parts)) != NULL) {
        event = PyObject_Vectorcall(PyTuple_GET_ITEM(parts, P_EVENT), fields, 0,
                                    PyTuple_GET_ITEM(parts, P_NAMES));
    }
    for (int i = 0; i < FIELDS; i++) {
        Py_XDECREF(fields[i]);
    }
    return event;
}

/* Return the bytes of an entry; NULL where they are not ordinary. What another process, or another
 * object, could change meanwhile is copied first.
 */
static const char *
bytes_of(PyObject *entry, char *room, Py_ssize_t *size)
{
    if (PyBytes_CheckExact(entry)) {
        *size = PyBytes_GET_SIZE(entry);
        return *size <= KERNEL_ENTRY_MAX ? PyBytes_AS_STRING(entry) : NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(entry, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return NULL;
    }
    *size = view.len;
    if (view.len <= KERNEL_ENTRY_MAX) {
        memcpy(room, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    return *size <= KERNEL_ENTRY_MAX ? room : NULL;
}

PyObject *
kernel_short_event(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *parts = count == 2 ? arguments[1] : NULL;
    if (parts == NULL || !PyTuple_CheckExact(parts) || PyTuple_GET_SIZE(parts) != PARTS
        || !PyTuple_CheckExact(PyTuple_GET_ITEM(parts, P_NAMES))
        || PyTuple_GET_SIZE(PyTuple_GET_ITEM(parts, P_NAMES)) != FIELDS
        || !PyTuple_CheckExact(PyTuple_GET_ITEM(parts, P_TYPES))
        || PyTuple_GET_SIZE(PyTuple_GET_ITEM(parts, P_TYPES)) < 2) {
        PyErr_SetString(PyExc_TypeError, "short_event takes an entry and 7 parts");
        return NULL;
    }
    char room[KERNEL_ENTRY_MAX];
    Py_ssize_t size = 0;
    Member found[MEMBERS] = {{NULL, 0, 0, 0}};
    const char *entry = bytes_of(arguments[0], room, &size);
    if (entry == NULL || !kernel_scan(entry, entry + size, found)) {
        Py_RETURN_NONE;
    }
    PyObject *event = build(found, parts);
    if (event == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return event;
}
