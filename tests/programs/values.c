/* Probe arguments in forms that tests/programs/operands.c does not have: twelve of them, twenty inlined sites that differ,
   floats and doubles in memory, and by hand what compilers seldom choose. Prints each probe's name and values. */
#include <stdint.h>
#include <sys/sdt.h>
#include "program.h"

volatile int64_t words[] = {-1, 997, INT64_MIN, INT64_MAX};
static volatile float single[] = {1.5f, -0.0f, 3.4028235e38f, 1e-45f, -1.17549421e-38f};
static volatile double twice[] = {-2.25, 1e300};

NOINLINE void twelve(int8_t a, uint16_t b, int32_t c, uint64_t d, int16_t e, uint8_t f, uint32_t g, int64_t h)
{
    DTRACE_PROBE12(values, twelve, a, b, c, d, e, f, g, h, a + 1, b * 2, c - 3, h ^ 4);
    printf("twelve %d %u %d %lu %d %u %u %ld %d %d %d %ld\n", a, b, c, d, e, f, g, h, a + 1, b * 2, c - 3, h ^ 4);
}

static inline __attribute__((always_inline)) void inlined(long first, volatile int64_t *second)
{
    DTRACE_PROBE2(values, inlined, first, *second);
    printf("inlined %ld %ld\n", first, *second);
}

#define FIVE(n) inlined(n, &words[1]); inlined(count, &words[n & 3]); inlined(words[n & 3], &local); \
    inlined((n) * 1000003L, &words[count & 3]); inlined(local + (n), words + 2);

NOINLINE void many(long count)
{
    volatile int64_t local = 7 * count;
    FIVE(1) FIVE(2) FIVE(3) FIVE(-4)
}

NOINLINE void floats(void)
{
    for (long at = 0; at < 5; at++) {
        __asm__ volatile(STAP_PROBE_ASM(values, floats, 4f@(%[single],%[at],4) 8f@(%[twice])) : :
            [single] "r"(single), [twice] "r"(&twice[at & 1]), [at] "r"(at) : "memory");
        printf("floats %.17g %.17g\n", single[at], twice[at & 1]);
    }
}

#ifdef __x86_64__
/* A second byte, an index without a base, a symbol with an offset, one that is wider than its size says. */
NOINLINE void by_hand(long index)
{
    long pair = 0x8182838485867f80 + index;
    __asm__ volatile(
        STAP_PROBE_ASM(values, by_hand, -1@%%ah 1@%%ah -1@%%al 2@%%ax -4@%%eax 8@words(,%%rcx,8) 8@words+8(%%rip) -8@8+words(%%rip) 1@%%rax)
        : : "a"(pair), "c"(index) : "memory");
    printf("by_hand %d %u %d %u %d %lu %ld %ld %u\n", (int8_t)(pair >> 8), (uint8_t)(pair >> 8), (int8_t)pair,
        (uint16_t)pair, (int32_t)pair, (uint64_t)words[index], words[1], words[1], (uint8_t)pair);
}
#endif

int main(void)
{
    await_go();
    twelve(-128, 65535, INT32_MIN, UINT64_MAX, -32768, 255, UINT32_MAX, INT64_MIN);
    twelve(127, 0, INT32_MAX, 1, 32767, 0, 1, INT64_MAX);
    for (long count = 0; count < 3; count++)
        many(count);
    floats();
#ifdef __x86_64__
    for (long index = 0; index < 4; index++)
        by_hand(index);
#endif
    return 0;
}
