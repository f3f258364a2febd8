/* The checksum of frames: XXH3, 64 bits, with a seed (specs/frame.md), for the lengths that frames
 * of chunks have. Its meaning is the library xxhash; tests hold the two together.
 *
 * Short inputs are folded 16 bytes at a time against a fixed table; from 241 bytes on, eight sums
 * take in 64 bytes at a time against a table that depends on the seed.
 */
#include "checksum.h"

#include <string.h>

#include "wide.h"

#define P32_1 0x9E3779B1U
#define P32_2 0x85EBCA77U
#define P32_3 0xC2B2AE3DU
#define P64_1 0x9E3779B185EBCA87ULL
#define P64_2 0xC2B2AE3D27D4EB4FULL
#define P64_3 0x165667B19E3779F9ULL
#define P64_4 0x85EBCA77C2B2AE63ULL
#define P64_5 0x27D4EB2F165667C5ULL
#define MIX 0x165667919E3779F9ULL

#define SUMS 8
#define STRIPE 64
#define STEP 8        /* of the table, from one stripe to the next */
#define STRIPES 16    /* of a block: what the table has room for */
#define BLOCK (STRIPES * STRIPE)
#define LEAST_TABLE 136  /* what a table has at least; the longer of the short inputs end by it */

static const unsigned char table[KERNEL_TABLE_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static uint64_t
word_at(const unsigned char *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static void
put_word(unsigned char *to, uint64_t word)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to, &word, sizeof word);
}

/* The two halves of a product of 128 bits, one over the other. */
static uint64_t
folded(uint64_t left, uint64_t right)
{
#if defined(__SIZEOF_INT128__)
    unsigned __int128 product = (unsigned __int128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t low = (left & 0xFFFFFFFF) * (right & 0xFFFFFFFF);
    uint64_t one = (left >> 32) * (right & 0xFFFFFFFF);
    uint64_t other = (left & 0xFFFFFFFF) * (right >> 32);
    uint64_t middle = (low >> 32) + (one & 0xFFFFFFFF) + other;
    uint64_t high = (left >> 32) * (right >> 32) + (one >> 32) + (middle >> 32);
    return (middle << 32 | (low & 0xFFFFFFFF)) ^ high;
#endif
}

static uint64_t
stirred(uint64_t sum)
{
    sum ^= sum >> 37;
    sum *= MIX;
    return sum ^ sum >> 32;
}

static uint64_t
sixteen(const unsigned char *from, const unsigned char *key, uint64_t seed)
{
    return folded(word_at(from) ^ (word_at(key) + seed),
                  word_at(from + 8) ^ (word_at(key + 8) - seed));
}

/* 17 to 128 bytes: from both ends towards the middle. */
static uint64_t
sum_short(const unsigned char *from, size_t size, uint64_t seed)
{
    uint64_t sum = size * P64_1;
    for (size_t pair = (size - 1) / 32 + 1; pair-- > 0;) {
        sum += sixteen(from + 16 * pair, table + 32 * pair, seed);
        sum += sixteen(from + size - 16 * (pair + 1), table + 32 * pair + 16, seed);
    }
    return stirred(sum);
}

/* 129 to 240 bytes. */
static uint64_t
sum_middle(const unsigned char *from, size_t size, uint64_t seed)
{
    uint64_t sum = size * P64_1;
    for (size_t at = 0; at < 8; at++) {
        sum += sixteen(from + 16 * at, table + 16 * at, seed);
    }
    sum = stirred(sum);
    for (size_t at = 8; at < size / 16; at++) {
        sum += sixteen(from + 16 * at, table + 16 * (at - 8) + 3, seed);
    }
    return stirred(sum + sixteen(from + size - 16, table + LEAST_TABLE - 17, seed));
}

static void
take_stripe(uint64_t *sums, const unsigned char *from, const unsigned char *key)
{
    uint64_t words[SUMS], keyed[SUMS];
    for (int at = 0; at < SUMS; at++) {
        words[at] = word_at(from + 8 * at);
        keyed[at] = words[at] ^ word_at(key + 8 * at);
    }
    for (int at = 0; at < SUMS; at++) {
        sums[at] += words[at ^ 1] + (keyed[at] & 0xFFFFFFFF) * (keyed[at] >> 32);
    }
}

static void
scramble(uint64_t *sums, const unsigned char *key)
{
    for (int at = 0; at < SUMS; at++) {
        sums[at] = (sums[at] ^ sums[at] >> 47 ^ word_at(key + 8 * at)) * P32_1;
    }
}

/* Take in stripes; where they are a whole block, scramble the sums with its key. */
static void
take_stripes(uint64_t *sums, const unsigned char *from, const unsigned char *keys, int stripes,
             const unsigned char *block_key)
{
    for (int at = 0; at < stripes; at++) {
        take_stripe(sums, from + STRIPE * at, keys + STEP * at);
    }
    if (block_key != NULL) {
        scramble(sums, block_key);
    }
}

/* The same, four or eight sums at once: compilers do not find it in the loops above. */

#if defined(HAS_AVX2)
__attribute__((target("avx2"))) static inline __m256i
four(__m256i sums, const unsigned char *from, const unsigned char *key)
{
    __m256i words = _mm256_loadu_si256((const __m256i *)from);
    __m256i keyed = _mm256_xor_si256(words, _mm256_loadu_si256((const __m256i *)key));
    __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    __m256i swapped = _mm256_shuffle_epi32(words, 0x4E);
    return _mm256_add_epi64(sums, _mm256_add_epi64(product, swapped));
}

__attribute__((target("avx2"))) static inline __m256i
scrambled_four(__m256i sums, const unsigned char *key)
{
    const __m256i prime = _mm256_set1_epi64x(P32_1);
    sums = _mm256_xor_si256(sums, _mm256_srli_epi64(sums, 47));
    sums = _mm256_xor_si256(sums, _mm256_loadu_si256((const __m256i *)key));
    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(sums, 32), prime);
    return _mm256_add_epi64(_mm256_mul_epu32(sums, prime), _mm256_slli_epi64(high, 32));
}

__attribute__((target("avx2"))) static void
take_stripes_avx2(uint64_t *sums, const unsigned char *from, const unsigned char *keys,
                  int stripes, const unsigned char *block_key)
{
    __m256i *halves = (__m256i *)sums;
    __m256i low = _mm256_loadu_si256(halves), high = _mm256_loadu_si256(halves + 1);
    for (int at = 0; at < stripes; at++) {
        low = four(low, from + STRIPE * at, keys + STEP * at);
        high = four(high, from + STRIPE * at + STRIPE / 2, keys + STEP * at + STRIPE / 2);
    }
    if (block_key != NULL) {
        low = scrambled_four(low, block_key);
        high = scrambled_four(high, block_key + STRIPE / 2);
    }
    _mm256_storeu_si256(halves, low);
    _mm256_storeu_si256(halves + 1, high);
}
#endif

#if defined(HAS_AVX512)
__attribute__((target("avx512f"))) static void
take_stripes_avx512(uint64_t *sums, const unsigned char *from, const unsigned char *keys,
                    int stripes, const unsigned char *block_key)
{
    const __m512i prime = _mm512_set1_epi64(P32_1);
    __m512i all = _mm512_loadu_si512(sums);
    for (int at = 0; at < stripes; at++) {
        __m512i words = _mm512_loadu_si512(from + STRIPE * at);
        __m512i keyed = _mm512_xor_si512(words, _mm512_loadu_si512(keys + STEP * at));
        __m512i product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
        __m512i swapped = _mm512_shuffle_epi32(words, 0x4E);
        all = _mm512_add_epi64(all, _mm512_add_epi64(product, swapped));
    }
    if (block_key != NULL) {
        all = _mm512_xor_si512(all, _mm512_srli_epi64(all, 47));
        all = _mm512_xor_si512(all, _mm512_loadu_si512(block_key));
        __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(all, 32), prime);
        all = _mm512_add_epi64(_mm512_mul_epu32(all, prime), _mm512_slli_epi64(high, 32));
    }
    _mm512_storeu_si512(sums, all);
}
#endif

typedef void (*take)(uint64_t *, const unsigned char *, const unsigned char *, int,
                     const unsigned char *);

static take
best_take(void)
{
#if defined(HAS_AVX512)
    if (__builtin_cpu_supports("avx512f")) {
        return take_stripes_avx512;
    }
#endif
#if defined(HAS_AVX2)
    if (__builtin_cpu_supports("avx2")) {
        return take_stripes_avx2;
    }
#endif
    return take_stripes;
}

static uint64_t
sum_long(const unsigned char *from, size_t size, const struct kernel_seed *seed)
{
    const unsigned char *keys = seed->table;
    uint64_t sums[SUMS] = {P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1};
    const unsigned char *at = from, *end = from + size;
    take take_all = best_take();
    for (size_t blocks = (size - 1) / BLOCK; blocks > 0; blocks--, at += BLOCK) {
        take_all(sums, at, keys, STRIPES, keys + KERNEL_TABLE_BYTES - STRIPE);
    }
    take_all(sums, at, keys, (int)((end - at - 1) / STRIPE), NULL);
    take_all(sums, end - STRIPE, keys + KERNEL_TABLE_BYTES - STRIPE - 7, 1, NULL);
    uint64_t sum = size * P64_1;
    for (int pair = 0; pair < SUMS / 2; pair++) {
        sum += folded(sums[2 * pair] ^ word_at(keys + 11 + 16 * pair),
                      sums[2 * pair + 1] ^ word_at(keys + 19 + 16 * pair));
    }
    return stirred(sum);
}

void
kernel_prepare_seed(struct kernel_seed *seed, uint64_t number)
{
    seed->number = number;
    for (int at = 0; at < KERNEL_TABLE_BYTES; at += 16) {
        put_word(seed->table + at, word_at(table + at) + number);
        put_word(seed->table + at + 8, word_at(table + at + 8) - number);
    }
}

uint64_t
kernel_checksum(const struct kernel_seed *seed, const unsigned char *from, size_t size)
{
    if (size <= 128) {
        return sum_short(from, size, seed->number);
    }
    return size <= 240 ? sum_middle(from, size, seed->number) : sum_long(from, size, seed);
}
