/* The checksum of frames; see checksum.c. */
#ifndef CKPTLOG_CHECKSUM_H
#define CKPTLOG_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#define KERNEL_TABLE_BYTES 192
#define KERNEL_CHECKSUM_MIN 17  /* bytes that are summed, at least */

struct kernel_seed {
    uint64_t number;
    unsigned char table[KERNEL_TABLE_BYTES];
};

void kernel_prepare_seed(struct kernel_seed *seed, uint64_t number);

/* The checksum of at least KERNEL_CHECKSUM_MIN bytes. */
uint64_t kernel_checksum(const struct kernel_seed *seed, const unsigned char *from, size_t size);

#endif
