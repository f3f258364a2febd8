/* JSON strings: which bytes must be escaped and how, 16 bytes at a time. For wire.c alone. */
#ifndef CKPTLOG_ESCAPE_H
#define CKPTLOG_ESCAPE_H

#include "kernel.h"

#include <stdint.h>
#include <string.h>

static inline char *
put_escaped(char *at, unsigned char byte)
{
    static const char digits[] = "0123456789abcdef";
    *at++ = '\\';
    switch (byte) {
    case '"': *at++ = '"'; return at;
    case '\\': *at++ = '\\'; return at;
    case '\b': *at++ = 'b'; return at;
    case '\f': *at++ = 'f'; return at;
    case '\n': *at++ = 'n'; return at;
    case '\r': *at++ = 'r'; return at;
    case '\t': *at++ = 't'; return at;
    default:
        memcpy(at, "u00", 3);
        at[3] = digits[byte >> 4];
        at[4] = digits[byte & 15];
        return at + 5;
    }
}

static inline int
must_be_escaped(unsigned char byte)
{
    return byte < 0x20 || byte == '"' || byte == '\\';
}

#define STEP 16  /* bytes that are copied and looked at together */

/* Copy 16 bytes; say which is the first that must be escaped, or 16. */
static inline int
copy_step(char *at, const char *from)
{
#if defined(__SSE2__)
    __m128i bytes = _mm_loadu_si128((const __m128i *)from);
    _mm_storeu_si128((__m128i *)at, bytes);
    /* below 0x20: nothing is left above 0x1f when 0x1f is taken away, without going below zero */
    __m128i found = _mm_cmpeq_epi8(_mm_subs_epu8(bytes, _mm_set1_epi8(0x1f)), _mm_setzero_si128());
    found = _mm_or_si128(found, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
    found = _mm_or_si128(found, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    unsigned int mask = (unsigned int)_mm_movemask_epi8(found);
    return mask == 0 ? STEP : __builtin_ctz(mask);
#else
    memcpy(at, from, STEP);
    for (int half = 0; half < STEP; half += 8) {
        uint64_t word;
        memcpy(&word, from + half, 8);
        const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
        uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
        /* Exact enough: a byte that is none may be taken for one, and is looked at below. */
        uint64_t found = ((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote)
                         | ((backslash - ones) & ~backslash);
        if (found & tops) {
            for (int i = half; i < half + 8; i++) {
                if (must_be_escaped((unsigned char)from[i])) {
                    return i;
                }
            }
        }
    }
    return STEP;
#endif
}

#define WIDE_STEP 32

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

static inline int
can_copy_wide(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

/* Copy bytes, 32 at a time, up to the first that must be escaped; return how many were copied. The
 * last few are left to `copy_step`.
 */
__attribute__((target("avx2"))) static Py_ssize_t
copy_wide(char *at, const char *from, Py_ssize_t size)
{
    const __m256i control = _mm256_set1_epi8(0x1f), quote = _mm256_set1_epi8('"');
    const __m256i backslash = _mm256_set1_epi8('\\');
    Py_ssize_t done = 0;
    for (; size - done >= WIDE_STEP; done += WIDE_STEP) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(from + done));
        _mm256_storeu_si256((__m256i *)(at + done), bytes);
        __m256i found = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, control), bytes);
        found = _mm256_or_si256(found, _mm256_cmpeq_epi8(bytes, quote));
        found = _mm256_or_si256(found, _mm256_cmpeq_epi8(bytes, backslash));
        unsigned int mask = (unsigned int)_mm256_movemask_epi8(found);
        if (mask) {
            return done + __builtin_ctz(mask);
        }
    }
    return done;
}
#else
static inline int
can_copy_wide(void)
{
    return 0;
}

static inline Py_ssize_t
copy_wide(char *at, const char *from, Py_ssize_t size)
{
    (void)at;
    (void)from;
    (void)size;
    return 0;
}
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CAN_READ_BEHIND(from) 0
#else
#define CAN_READ_BEHIND(from) (((uintptr_t)(from) & 4095) <= 4096 - STEP)
#endif

#define SHORT (2 * STEP)  /* most keys, names and ids are not longer */

/* Write a short text with its quotes; NULL where it is longer, or needs more than a copy.
 * There must be room for SHORT + 2 bytes.
 */
static inline char *
put_short(char *at, PyObject *text)
{
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text)) {
        return NULL;
    }
    Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    const char *from = (const char *)PyUnicode_1BYTE_DATA(text);
    if (size > SHORT) {
        return NULL;
    }
    *at++ = '"';
    if (size >= STEP) {
        /* Two steps, of which the second may overlap the first. */
        if (copy_step(at, from) != STEP
            || copy_step(at + size - STEP, from + size - STEP) != STEP) {
            return NULL;
        }
    }
    else if (CAN_READ_BEHIND(from)) {
        /* What stands behind the text lies in the same page, so it can be read; it is not used. */
        if (copy_step(at, from) < size) {
            return NULL;
        }
    }
    else {
        return NULL;
    }
    at[size] = '"';
    return at + size + 1;
}

#endif
