/* Lists directories; see listing.h. */
#include "listing.h"

#if defined(__linux__)

#include <sys/syscall.h>

#define BATCH (64 * 1024)

int
kernel_list(struct listing *listing, int fd)
{
    listing->used = 0;
    for (;;) {
        if (listing->room - listing->used < BATCH) {
            size_t room = listing->room ? listing->room * 2 : BATCH * 2;
            char *larger = realloc(listing->bytes, room);
            if (larger == NULL) {
                return 0;
            }
            listing->bytes = larger;
            listing->room = room;
        }
        long count = syscall(SYS_getdents64, fd, listing->bytes + listing->used,
                             listing->room - listing->used);
        if (count <= 0) {
            return count == 0;
        }
        listing->used += (size_t)count;
    }
}

static int
is_reserved(const struct listing *listing, const char *name)
{
    if (!name[1] || (name[1] == '.' && !name[2])) {
        return 1;
    }
    const char *at = listing->reserved, *end = at + listing->reserved_size;
    while (at < end) {
        if (strcmp(at, name) == 0) {
            return 1;
        }
        at += strlen(at) + 1;
    }
    return 0;
}

const struct listed *
kernel_next_listed(const struct listing *listing, size_t *at)
{
    while (*at < listing->used) {
        const struct listed *one = (const struct listed *)(listing->bytes + *at);
        *at += one->size;
        if (one->name[0] != '.' || !is_reserved(listing, one->name)) {
            return one;
        }
    }
    return NULL;
}

#endif
