/* Which wide registers can be compiled for; whether the machine has them is asked when it runs.
 * Tests compile without them as well.
 */
#ifndef CKPTLOG_WIDE_H
#define CKPTLOG_WIDE_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(WITHOUT_AVX2) /* clang says so, too */
#define HAS_AVX2 1
#if !defined(WITHOUT_AVX512)
#define HAS_AVX512 1
#endif
#include <immintrin.h>
#endif

#endif
