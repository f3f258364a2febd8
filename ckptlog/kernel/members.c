/* Walks through an entry of schema 2: canonical JSON, one flat object of texts and integers.
 *
 * Ordinary: the members that members.h lists, in their order, without white space and escapes;
 * everything else, also what is sound but rare, is refused. That texts are UTF-8 is looked at where
 * they are made.
 */
#include "members.h"

#include <string.h>

#define STEP 16

#define TEXT (-2)  /* instead of the least number that may stand there */

static const struct {
    const char *name;  /* with what ends it */
    Py_ssize_t size;
    long long least;
} members[MEMBERS] = {
#define MEMBER(name, least) {name "\":", sizeof(name "\":") - 1, least}
    MEMBER("actor", TEXT), MEMBER("age", -KERNEL_NUMBER_MAX), MEMBER("at", -KERNEL_NUMBER_MAX),
    MEMBER("cp", TEXT), MEMBER("data", TEXT), MEMBER("id", TEXT), MEMBER("made", TEXT),
    MEMBER("meta", TEXT), MEMBER("new", 0), MEMBER("origin", -1), MEMBER("previous", -1),
    MEMBER("space", TEXT), MEMBER("state", TEXT), MEMBER("step", 0), MEMBER("task", TEXT),
    MEMBER("total", 0), MEMBER("type", TEXT), MEMBER("up", TEXT), MEMBER("up~", TEXT),
    MEMBER("worker", TEXT),
};

/* Return where a text stops to be plain: a quote, a backslash, a control character, not ASCII. */
static const char *
plain_end(const char *at, const char *stop)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i blank = _mm_set1_epi8(' ');
    while (stop - at >= STEP) {
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)at);
        /* As signed bytes, those beyond ASCII are below a blank too. */
        __m128i odd = _mm_or_si128(_mm_cmplt_epi8(part, blank),
                                   _mm_or_si128(_mm_cmpeq_epi8(part, quote),
                                                _mm_cmpeq_epi8(part, backslash)));
        int found = _mm_movemask_epi8(odd);
        if (found) {
            return at + __builtin_ctz((unsigned)found);
        }
        at += STEP;
    }
#endif
    while (at < stop && *at != '"' && *at != '\\' && (unsigned char)(*at - 0x20) < 0x60) {
        at++;
    }
    return at;
}

/* Step over a text, from behind its first quote; NULL where it is not ordinary. */
static const char *
take_text(const char *at, const char *stop, Member *member)
{
    member->at = at;
    member->is_ascii = 1;
    for (at = plain_end(at, stop); at < stop && *at != '"'; at = plain_end(at + 1, stop)) {
        if ((unsigned char)*at < 0x80) {
            return NULL;
        }
        member->is_ascii = 0;
    }
    if (at >= stop) {
        return NULL;
    }
    member->size = at - member->at;
    return at + 1;
}

const char *
kernel_take_integer(const char *at, const char *stop, int digits_max, long long *number)
{
    int is_negative = at < stop && *at == '-';
    const char *first = at + is_negative, *place = first;
    long long made = 0;
    while (place < stop && *place >= '0' && *place <= '9') {
        if (place - first >= digits_max) {
            return NULL;
        }
        made = made * 10 + (*place++ - '0');
    }
    if (place == first || (*first == '0' && (place - first > 1 || is_negative))) {
        return NULL;
    }
    *number = is_negative ? -made : made;
    return place;
}

int
kernel_scan(const char *at, const char *stop, Member *found)
{
    int next = 0;
    if (stop - at < 2 || *at != '{') {
        return 0;
    }
    do {
        if (stop - ++at < 2 || *at++ != '"') {
            return 0;
        }
        while (next < MEMBERS
               && (*at != members[next].name[0] || stop - at <= members[next].size
                   || memcmp(at, members[next].name, (size_t)members[next].size) != 0)) {
            next++;
        }
        if (next == MEMBERS) {
            return 0;
        }
        Member *member = &found[next];
        long long least = members[next].least;
        at += members[next++].size;
        if (least == TEXT) {
            at = *at == '"' ? take_text(at + 1, stop, member) : NULL;
        }
        else {
            member->at = at;
            at = kernel_take_integer(at, stop, NUMBER_DIGITS, &member->number);
            if (member->number < least || member->number > KERNEL_NUMBER_MAX) {
                return 0;
            }
        }
        if (at == NULL || at >= stop) {
            return 0;
        }
    } while (*at == ',');
    return *at == '}' && at + 1 == stop && found[M_ACTOR].at != NULL && found[M_AT].at != NULL;
}
