/* Directories as the system lists them; for confirm.c and folder.c, which look at them. */
#ifndef CKPTLOG_LISTING_H
#define CKPTLOG_LISTING_H

#define _GNU_SOURCE
#include "kernel.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* As the kernel of the system writes it (getdents64(2)). */
struct listed {
    uint64_t inode;
    int64_t next;
    unsigned short size;
    unsigned char kind;
    char name[];
};

struct listing {
    char *bytes;        /* what getdents64 gave, all of it; whoever has the listing frees it */
    size_t room, used;
    const char *reserved;  /* names, each with its NUL; they begin with a dot */
    size_t reserved_size;
};

/* List an open directory from where it stands; 0 where that failed. */
int kernel_list(struct listing *listing, int fd);
/* The next name that counts, and the place behind it; NULL at the end. Begin at 0. */
const struct listed *kernel_next_listed(const struct listing *listing, size_t *at);

static inline int64_t
kernel_nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

#endif
#endif
