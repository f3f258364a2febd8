/* Members of an event in schema 2, as they stand in an entry; for members.c and event.c alone. */
#ifndef CKPTLOG_MEMBERS_H
#define CKPTLOG_MEMBERS_H

#include "kernel.h"

#define NUMBER_DIGITS 16  /* of KERNEL_NUMBER_MAX */

/* The members that are read here, in ascending order. */
enum {
    M_ACTOR, M_AGE, M_AT, M_CP, M_DATA, M_ID, M_MADE, M_META, M_NEW, M_ORIGIN, M_PREVIOUS, M_SPACE,
    M_STATE, M_STEP, M_TASK, M_TOTAL, M_TYPE, M_UP, M_UP_OTHER, M_WORKER, MEMBERS
};

typedef struct {
    const char *at;  /* NULL: it does not stand there */
    Py_ssize_t size;
    int is_ascii;
    long long number;
} Member;

/* Note where every member stands; 0 where the entry is not ordinary. Makes no object. */
int kernel_scan(const char *at, const char *stop, Member *found);
/* Step over an integer; NULL where it is not written in the one way. */
const char *kernel_take_integer(const char *at, const char *stop, int digits_max,
                                long long *number);

#endif
