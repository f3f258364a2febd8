/* The hash of chunks; see hash.c. */
#ifndef CKPTLOG_HASH_H
#define CKPTLOG_HASH_H

#include <stddef.h>

#define KERNEL_HASH_BYTES 32

/* Whether hashing is fast on this machine; else the library blake3 does it better. */
int kernel_hash_is_fast(void);

/* Bytes of room that hashing so many needs. */
size_t kernel_hash_room(size_t size);

/* BLAKE3-256 of the bytes. */
void kernel_hash(const unsigned char *from, size_t size, unsigned char *room, unsigned char *hash);

#endif
