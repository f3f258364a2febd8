/* The line of a pack's index: digest, offset (u64) and length (u32) of a chunk's frame
 * (specs/pack.md).
 */
#ifndef CKPTLOG_LINES_H
#define CKPTLOG_LINES_H

#include <stdint.h>

#define DIGEST 32
#define LINE 44

static inline unsigned int
number_at(const unsigned char *from)
{
    return from[0] | (unsigned int)from[1] << 8 | (unsigned int)from[2] << 16
           | (unsigned int)from[3] << 24;
}

static inline void
put_number(unsigned char *to, uint64_t number, int bytes)
{
    for (int at = 0; at < bytes; at++) {
        to[at] = (unsigned char)(number >> 8 * at);
    }
}

#endif
