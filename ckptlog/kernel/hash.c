/* The hash of chunks: BLAKE3, 256 bits. Its meaning is the library blake3; tests hold the two
 * together. It stands here to be called for many chunks at once, while other threads run.
 *
 * The input is cut into segments of 1 KiB, the last may be shorter; each is hashed on its own,
 * sixteen blocks one after the other, into a chaining value of 32 bytes. Two values make the block
 * of their parent, level by level; one without a partner goes up as it is. The last is the root.
 * Segments do not depend on each other, nor do parents of a level: wide registers take eight or
 * sixteen at once.
 */
#include "hash.h"

#include <stdint.h>
#include <string.h>

#include "lines.h"
#include "wide.h"

#define HASH KERNEL_HASH_BYTES
#define BLOCK 64
#define SEGMENT 1024
#define BLOCKS (SEGMENT / BLOCK)
#define LANES_MAX 16

#define SEGMENT_START 1
#define SEGMENT_END 2
#define PARENT 4
#define ROOT 8

#define IV_0 0x6A09E667U
#define IV_1 0xBB67AE85U
#define IV_2 0x3C6EF372U
#define IV_3 0xA54FF53AU
#define IV_4 0x510E527FU
#define IV_5 0x9B05688CU
#define IV_6 0x1F83D9ABU
#define IV_7 0x5BE0CD19U

/* What an input is: so many whole blocks, how the number goes on from one to the next, and what
 * tells its blocks apart.
 */
struct kind {
    int blocks;
    uint32_t step, first, each, last;
};

static const struct kind segments = {BLOCKS, 1, SEGMENT_START, 0, SEGMENT_END};
static const struct kind parents = {1, 0, 0, PARENT, 0};

static inline size_t
bytes_of(const struct kind *kind)
{
    return BLOCK * (size_t)kind->blocks;
}

static inline uint32_t
flags_of(const struct kind *kind, int block, int blocks)
{
    return kind->each | (block == 0 ? kind->first : 0) | (block == blocks - 1 ? kind->last : 0);
}

#define LANES 1
#define TARGET
#define NAMED(name) name##_1
#include "hash_lanes.h"

#if defined(HAS_AVX2)

__attribute__((target("avx2"))) static inline __m256i
row_8(const unsigned char *from, size_t distance)
{
    __m256i row = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)from));
    return _mm256_inserti128_si256(row, _mm_loadu_si128((const __m128i *)(from + distance)), 1);
}

/* Bytes are moved faster than words are turned, where no instruction turns them. */
#define QUARTERS(a, b, c, d)                                                                  \
    a, b, c, d, 4 + a, 4 + b, 4 + c, 4 + d, 8 + a, 8 + b, 8 + c, 8 + d, 12 + a, 12 + b, 12 + c, \
        12 + d
#define MOVED(word, order) ((word_8)_mm256_shuffle_epi8((__m256i)(word), order))
#define ROTATED_16(word) MOVED(word, _mm256_setr_epi8(QUARTERS(2, 3, 0, 1), QUARTERS(2, 3, 0, 1)))
#define ROTATED_8(word) MOVED(word, _mm256_setr_epi8(QUARTERS(1, 2, 3, 0), QUARTERS(1, 2, 3, 0)))
#define LANES 8
#define TARGET __attribute__((target("avx2")))
#define NAMED(name) name##_8
#define REGISTER __m256i
#define VECTOR(name) _mm256_##name
#include "hash_lanes.h"

#endif

#if defined(HAS_AVX512)

__attribute__((target("avx512f"))) static inline __m512i
row_16(const unsigned char *from, size_t distance)
{
    __m512i row = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)from));
    row = _mm512_inserti32x4(row, _mm_loadu_si128((const __m128i *)(from + distance)), 1);
    row = _mm512_inserti32x4(row, _mm_loadu_si128((const __m128i *)(from + 2 * distance)), 2);
    return _mm512_inserti32x4(row, _mm_loadu_si128((const __m128i *)(from + 3 * distance)), 3);
}

#define LANES 16
#define TARGET __attribute__((target("avx512f")))
#define NAMED(name) name##_16
#define REGISTER __m512i
#define VECTOR(name) _mm512_##name
#include "hash_lanes.h"

#endif

/* Write the chaining value of one input, or the root's. */
static void
take_one(const unsigned char *from, size_t size, const struct kind *kind, uint32_t number,
         uint32_t root, unsigned char *value)
{
    uint32_t words[8] = {IV_0, IV_1, IV_2, IV_3, IV_4, IV_5, IV_6, IV_7}, message[16];
    int blocks = size > BLOCK ? (int)((size + BLOCK - 1) / BLOCK) : 1;
    for (int at = 0; at < blocks; at++) {
        unsigned char block[BLOCK] = {0};
        size_t length = at < blocks - 1 ? BLOCK : size - BLOCK * (size_t)at;
        uint32_t flags = flags_of(kind, at, blocks) | (at == blocks - 1 ? root : 0);
        memcpy(block, from + BLOCK * at, length);
        for (int word = 0; word < 16; word++) {
            message[word] = number_at(block + 4 * word);
        }
        compress_1(words, message, number, (uint32_t)length, flags);
    }
    for (int at = 0; at < 8; at++) {
        put_number(value + 4 * at, words[at], 4);
    }
}

static void
take_1(const unsigned char *from, const struct kind *kind, uint32_t number, unsigned char *values)
{
    take_one(from, bytes_of(kind), kind, number, 0, values);
}

struct width {
    size_t lanes;
    void (*take)(const unsigned char *, const struct kind *, uint32_t, unsigned char *);
};

static struct width
width_for(size_t count)
{
#if defined(HAS_AVX512)
    if (count > 8 && __builtin_cpu_supports("avx512f")) {
        return (struct width){16, take_16};
    }
#endif
#if defined(HAS_AVX2)
    if (count > 1 && __builtin_cpu_supports("avx2")) {
        return (struct width){8, take_8};
    }
#endif
    (void)count;
    return (struct width){1, take_1};
}

/* Take fewer inputs than there are lanes, from where the other lanes may read as well. */
static void
take_few(struct width width, const unsigned char *from, size_t count, const struct kind *kind,
         uint32_t number, unsigned char *values)
{
    unsigned char inputs[SEGMENT * LANES_MAX], taken[HASH * LANES_MAX];
    memcpy(inputs, from, bytes_of(kind) * count);
    width.take(inputs, kind, number, taken);
    memcpy(values, taken, HASH * count);
}

/* Write the chaining values of whole inputs; they may be written over the inputs. */
static void
take_all(const unsigned char *from, size_t count, const struct kind *kind, unsigned char *values)
{
    size_t taken;
    for (size_t at = 0; at < count; at += taken) {
        struct width width = width_for(count - at);
        const unsigned char *input = from + bytes_of(kind) * at;
        uint32_t number = kind->step * (uint32_t)at;
        if (count - at < width.lanes) {
            taken = count - at;
            take_few(width, input, taken, kind, number, values + HASH * at);
        }
        else {
            taken = width.lanes;
            width.take(input, kind, number, values + HASH * at);
        }
    }
}

int
kernel_hash_is_fast(void)
{
    return width_for(LANES_MAX).lanes > 1;
}

size_t
kernel_hash_room(size_t size)
{
    return HASH * (size / SEGMENT + 1);
}

/* Inputs are in memory, and frames far smaller than the 4 TiB at which the number of a segment no
 * longer fits.
 */
void
kernel_hash(const unsigned char *from, size_t size, unsigned char *room, unsigned char *hash)
{
    size_t whole = size / SEGMENT, rest = size % SEGMENT, count = whole + (rest > 0);
    if (count <= 1) {
        take_one(from, size, &segments, 0, ROOT, hash);
        return;
    }
    take_all(from, whole, &segments, room);
    if (rest > 0) {
        take_one(from + SEGMENT * whole, rest, &segments, (uint32_t)whole, 0, room + HASH * whole);
    }
    for (; count > 2; count = count / 2 + count % 2) {
        take_all(room, count / 2, &parents, room);
        if (count % 2) {
            memcpy(room + HASH * (count / 2), room + HASH * (count - 1), HASH);
        }
    }
    take_one(room, BLOCK, &parents, 0, ROOT, hash);
}
