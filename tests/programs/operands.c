/* Probe arguments of every C integer type, wherever the compiler puts them: in registers, constants, on the stack, in
   globals and arrays. Prints each probe's name and its arguments' values, for each time that it fires. */
#include <sys/sdt.h>
#include "program.h"

struct item { short key; unsigned char flag; long long weight; };

volatile int global_int = -77777;
volatile unsigned char global_byte = 200;
static volatile short table[] = {-1, 2, -300, 30000};
static struct item items[] = {{-5, 250, -(1ll << 40)}, {7, 128, 1ll << 41}, {-32768, 0, -1}};

NOINLINE void integers(signed char a, unsigned char b, short c, unsigned short d, int e, unsigned f, long g, unsigned long h)
{
    DTRACE_PROBE8(operands, integers, a, b, c, d, e, f, g, h);
    printf("integers %d %d %d %d %d %u %ld %lu\n", a, b, c, d, e, f, g, h);
}

NOINLINE void arrays(struct item *list, long at, volatile short *numbers)
{
    DTRACE_PROBE5(operands, arrays, list[at].key, list[at].flag, list[at].weight, numbers[at], at);
    printf("arrays %d %d %lld %d %ld\n", list[at].key, list[at].flag, list[at].weight, numbers[at], at);
}

NOINLINE void globals(void)
{
    DTRACE_PROBE4(operands, globals, global_int, global_byte, table[2], items[1].weight);
    printf("globals %d %d %d %lld\n", global_int, global_byte, table[2], items[1].weight);
}

NOINLINE void constants(void)
{
    DTRACE_PROBE4(operands, constants, -1, 4096, 'x', -(1l << 31));
    printf("constants %d %d %d %ld\n", -1, 4096, 'x', -(1l << 31));
}

/* By hand, the forms that a compiler seldom chooses: an index that is scaled, with and without displacement, memory relative
   to the instruction, and a negative displacement. */
NOINLINE void by_hand(volatile short *numbers, long at, struct item *end)
{
    __asm__ volatile(
        STAP_PROBE_ASM(operands, by_hand, -2@(%[numbers],%[at],2) -2@2(%[numbers],%[at],2) -4@global_int(%%rip) -8@-8(%[end]) 8@%[at] -4@$-3)
        : : [numbers] "r"(numbers), [at] "r"(at), [end] "r"(end) : "memory");
    printf("by_hand %d %d %d %lld %ld %d\n", numbers[at], numbers[at + 1], global_int, end[-1].weight, at, -3);
}

int main(void)
{
    await_go();
    integers(-128, 255, -32768, 65535, -2147483647 - 1, 4294967295u, -9223372036854775807l - 1, 18446744073709551615ul);
    integers(127, 1, 32767, 2, 2147483647, 3, 9223372036854775807l, 4);
    for (long at = 0; at < 3; at++)
        arrays(items, at, table);
    globals();
    constants();
    by_hand(table, 2, items + 1);
    return 0;
}
