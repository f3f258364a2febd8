/* BLAKE3's compression in LANES lanes at once: a body that hash.c takes in once for each width.
 *
 * Each register has the same word of LANES inputs that do not depend on each other, so one row of
 * instructions does the work of LANES. What is wanted: LANES; TARGET, the machine it is compiled
 * for; NAMED(name), the name of this width's; of wide ones also REGISTER, VECTOR(name), and `row`,
 * which loads 16 bytes of every fourth lane. ROTATED_16 and ROTATED_8 where there is better.
 */

#if LANES == 1
typedef uint32_t NAMED(word);
#else
typedef uint32_t NAMED(word) __attribute__((vector_size(4 * LANES)));
#endif

#define ROTATED(word, bits) ((word) >> (bits) | (word) << (32 - (bits)))
#ifndef ROTATED_16
#define ROTATED_16(word) ROTATED(word, 16)
#define ROTATED_8(word) ROTATED(word, 8)
#endif

#define MIX(a, b, c, d, one, other) \
    do {                            \
        a += b + message[one];      \
        d = ROTATED_16(d ^ a);      \
        c += d;                     \
        b = ROTATED(b ^ c, 12);     \
        a += b + message[other];    \
        d = ROTATED_8(d ^ a);       \
        c += d;                     \
        b = ROTATED(b ^ c, 7);      \
    } while (0)

/* Columns, then diagonals; the order of the message's words is the round's. */
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
    do {                                                                            \
        MIX(v[0], v[4], v[8], v[12], m0, m1);                                       \
        MIX(v[1], v[5], v[9], v[13], m2, m3);                                       \
        MIX(v[2], v[6], v[10], v[14], m4, m5);                                      \
        MIX(v[3], v[7], v[11], v[15], m6, m7);                                      \
        MIX(v[0], v[5], v[10], v[15], m8, m9);                                      \
        MIX(v[1], v[6], v[11], v[12], m10, m11);                                    \
        MIX(v[2], v[7], v[8], v[13], m12, m13);                                     \
        MIX(v[3], v[4], v[9], v[14], m14, m15);                                     \
    } while (0)

/* Take a block into the chaining value of each lane. */
TARGET static inline void
NAMED(compress)(NAMED(word) *value, const NAMED(word) *message, NAMED(word) number,
                uint32_t length, uint32_t flags)
{
    const NAMED(word) none = {0};
    NAMED(word) v[16] = {
        value[0], value[1], value[2], value[3], value[4], value[5], value[6], value[7],
        none + IV_0, none + IV_1, none + IV_2, none + IV_3,
        number, none, none + length, none + flags,
    };
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8);
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1);
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6);
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4);
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7);
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13);
    for (int at = 0; at < 8; at++) {
        value[at] = v[at] ^ v[at + 8];
    }
}

#if LANES > 1
/* Turn blocks, one in each lane, into words of all lanes: four words of four lanes at a time. */
TARGET static inline void
NAMED(load)(const unsigned char *from, size_t stride, NAMED(word) *message)
{
    for (int at = 0; at < BLOCK / 16; at++) {
        REGISTER rows[4];
        for (int row = 0; row < 4; row++) {
            rows[row] = NAMED(row)(from + 16 * at + (size_t)row * stride, 4 * stride);
        }
        REGISTER low = VECTOR(unpacklo_epi32)(rows[0], rows[1]);
        REGISTER high = VECTOR(unpackhi_epi32)(rows[0], rows[1]);
        REGISTER other_low = VECTOR(unpacklo_epi32)(rows[2], rows[3]);
        REGISTER other_high = VECTOR(unpackhi_epi32)(rows[2], rows[3]);
        message[4 * at] = (NAMED(word))VECTOR(unpacklo_epi64)(low, other_low);
        message[4 * at + 1] = (NAMED(word))VECTOR(unpackhi_epi64)(low, other_low);
        message[4 * at + 2] = (NAMED(word))VECTOR(unpacklo_epi64)(high, other_high);
        message[4 * at + 3] = (NAMED(word))VECTOR(unpackhi_epi64)(high, other_high);
    }
}

/* Write the chaining values of LANES inputs that stand one behind the other. */
TARGET static void
NAMED(take)(const unsigned char *from, const struct kind *kind, uint32_t number,
            unsigned char *values)
{
    const NAMED(word) none = {0};
    NAMED(word) value[8] = {none + IV_0, none + IV_1, none + IV_2, none + IV_3,
                            none + IV_4, none + IV_5, none + IV_6, none + IV_7};
    NAMED(word) numbers = none, message[16];
    for (int lane = 0; lane < LANES; lane++) {
        numbers[lane] = number + kind->step * (uint32_t)lane;
    }
    for (int at = 0; at < kind->blocks; at++) {
        NAMED(load)(from + BLOCK * at, BLOCK * (size_t)kind->blocks, message);
        NAMED(compress)(value, message, numbers, BLOCK, flags_of(kind, at, kind->blocks));
    }
    for (int lane = 0; lane < LANES; lane++) {
        for (int at = 0; at < 8; at++) {
            put_number(values + HASH * lane + 4 * at, value[at][lane], 4);
        }
    }
}
#endif

#undef ROTATED
#undef ROTATED_16
#undef ROTATED_8
#undef MIX
#undef ROUND
#undef LANES
#undef TARGET
#undef NAMED
#undef REGISTER
#undef VECTOR
