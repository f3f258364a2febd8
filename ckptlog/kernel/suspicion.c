/* Where a wire may hold a secret: twin of `_has_hint` in policy/sanitise.py.
 *
 * The table holds, for each byte that leads a hint, what may stand around it:
 *
 *   offset  size  field
 *   0       256   for each byte, the number of its list from 1 on; 0: no list
 *   256     128   for the second byte before, the one before, the leading one and the one behind:
 *                 for each low half of a byte, then for each high half, the set of the buckets
 *                 that it may be in; each list is in one of 8 buckets
 *   384     2*n   where each of the n lists begins, little-endian
 *   then, for each list:
 *   0       32    set of the bytes that may follow in any of its hints
 *   32      32    set of the bytes that may stand right before in any of them
 *   64            hints, each
 *   0       1     1 + how many bytes before it are looked at; 0 ends the list
 *   1       1     a byte that must be somewhere behind it in the wire, 0 for none
 *   2       32    set of the bytes that may follow
 *   34      32*n  sets of the bytes that may stand before it, the nearest first
 */
#include "kernel.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE 1
#include <immintrin.h>
#endif

#define HAS(set, byte) ((set)[(byte) >> 3] >> ((byte) & 7) & 1)
#define HALVES 256
#define LISTS 384
#define HINTS 64

struct text {
    const unsigned char *table, *wire;
    Py_ssize_t size;
    /* The last byte that was needed, and where it stands first behind a place: -1 nowhere. */
    unsigned char needed;
    Py_ssize_t needed_at;
};

static int
has_behind(struct text *text, unsigned char byte, Py_ssize_t at)
{
    if (text->needed == byte && (text->needed_at < 0 || text->needed_at > at)) {
        return text->needed_at >= 0;
    }
    const unsigned char *found = memchr(text->wire + at, byte, (size_t)(text->size - at));
    text->needed = byte;
    text->needed_at = found == NULL ? -1 : found - text->wire;
    return found != NULL;
}

static int
is_hint(struct text *text, const unsigned char *hint, Py_ssize_t at)
{
    Py_ssize_t before = hint[0] - 1;
    if (at < before || !HAS(hint + 2, text->wire[at + 1])) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < before; i++) {
        if (!HAS(hint + 34 + 32 * i, text->wire[at - 1 - i])) {
            return 0;
        }
    }
    return hint[1] == 0 || has_behind(text, hint[1], at);
}

static int
is_suspicious_at(struct text *text, Py_ssize_t at)
{
    unsigned int number = text->table[text->wire[at]];
    if (number == 0 || at + 1 >= text->size) {
        return 0;
    }
    const unsigned char *entry = text->table + LISTS + 2 * (number - 1);
    const unsigned char *list = text->table + (entry[0] | (unsigned int)entry[1] << 8);
    /* What stands right beside it clears nearly every letter. */
    if (!HAS(list, text->wire[at + 1]) || (at > 0 && !HAS(list + 32, text->wire[at - 1]))) {
        return 0;
    }
    for (const unsigned char *hint = list + HINTS; *hint; hint += 34 + 32 * (*hint - 1)) {
        if (is_hint(text, hint, at)) {
            return 1;
        }
    }
    return 0;
}

#ifdef WIDE
#define WIDTH 32

__attribute__((target("avx2"))) static inline __m256i
halves_at(const unsigned char *halves)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)halves));
}

/* Return for each of 32 bytes the buckets that its two halves allow. */
__attribute__((target("avx2"))) static inline __m256i
buckets_of(const unsigned char *from, __m256i lows, __m256i highs)
{
    const __m256i half = _mm256_set1_epi8(15);
    __m256i bytes = _mm256_loadu_si256((const __m256i *)from);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), half);
    return _mm256_and_si256(_mm256_shuffle_epi8(lows, _mm256_and_si256(bytes, half)),
                            _mm256_shuffle_epi8(highs, high));
}

/* Look at 32 bytes together; say how far that went, or where there is suspicion. */
__attribute__((target("avx2"))) static Py_ssize_t
scan_wide(struct text *text, Py_ssize_t at, int *found)
{
    const unsigned char *halves = text->table + HALVES;
    const __m256i lows_second = halves_at(halves), highs_second = halves_at(halves + 16);
    const __m256i lows_before = halves_at(halves + 32), highs_before = halves_at(halves + 48);
    const __m256i lows = halves_at(halves + 64), highs = halves_at(halves + 80);
    const __m256i lows_behind = halves_at(halves + 96), highs_behind = halves_at(halves + 112);
    for (; at + WIDTH + 1 <= text->size; at += WIDTH) {
        const unsigned char *from = text->wire + at;
        __m256i buckets = _mm256_and_si256(
            _mm256_and_si256(buckets_of(from - 2, lows_second, highs_second),
                             buckets_of(from - 1, lows_before, highs_before)),
            _mm256_and_si256(buckets_of(from, lows, highs),
                             buckets_of(from + 1, lows_behind, highs_behind)));
        __m256i none = _mm256_cmpeq_epi8(buckets, _mm256_setzero_si256());
        unsigned int leading = ~(unsigned int)_mm256_movemask_epi8(none);
        for (; leading; leading &= leading - 1) {
            Py_ssize_t place = at + __builtin_ctz(leading);
            if (is_suspicious_at(text, place)) {
                *found = 1;
                return place;
            }
        }
    }
    return at;
}
#endif

static Py_ssize_t
scan_eight(struct text *text, Py_ssize_t at, int *found)
{
    const unsigned char *table = text->table;
    for (; at + 8 <= text->size; at += 8) {
        const unsigned char *eight = text->wire + at;
        /* Many stretches of eight bytes hold no letter that leads a hint. */
        if (!(table[eight[0]] | table[eight[1]] | table[eight[2]] | table[eight[3]]
              | table[eight[4]] | table[eight[5]] | table[eight[6]] | table[eight[7]])) {
            continue;
        }
        for (Py_ssize_t place = at; place < at + 8; place++) {
            if (is_suspicious_at(text, place)) {
                *found = 1;
                return place;
            }
        }
    }
    return at;
}

static Py_ssize_t
scan(struct text *text, Py_ssize_t at)
{
    int found = 0;
    for (Py_ssize_t two = at + 2; at < two; at++) {  /* from there on, two bytes stand before */
        if (at >= text->size || is_suspicious_at(text, at)) {
            return at < text->size ? at : -1;
        }
    }
#ifdef WIDE
    if (__builtin_cpu_supports("avx2")) {
        at = scan_wide(text, at, &found);
    }
#endif
    if (!found) {
        at = scan_eight(text, at, &found);
    }
    while (!found && at < text->size) {
        found = is_suspicious_at(text, at);
        at += !found;
    }
    return found ? at : -1;
}

PyObject *
kernel_suspect(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[1])
        || PyBytes_GET_SIZE(arguments[1]) < LISTS) {
        PyErr_SetString(PyExc_TypeError, "suspect takes two bytes objects and a place");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(arguments[2]);
    if (at < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a place is 0 or more");
        }
        return NULL;
    }
    struct text text = {
        (const unsigned char *)PyBytes_AS_STRING(arguments[1]),
        (const unsigned char *)PyBytes_AS_STRING(arguments[0]),
        PyBytes_GET_SIZE(arguments[0]), 0, 0,
    };
    return PyLong_FromSsize_t(scan(&text, at));
}
