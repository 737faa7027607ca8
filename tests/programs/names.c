/* Functions of which compilers have left copies, and functions whose names D and Swift have mangled. */
#include <stdio.h>
#define KEPT __attribute__((noinline, noclone, used))
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))

static __attribute__((noinline)) long constant(const long *p, int n)
{
    long total = 0;
    for (int i = 0; i < n; i++)
        total += p[i] * 3;
    OPAQUE(total);
    return total;
}

static __attribute__((noinline)) long scalar(const long *p) { return p[0] * 997; }
KEPT static long helper(long n) { OPAQUE(n); return n + 1; }

#define NAMED(name) __asm__(".globl \"" name "\"; .type \"" name "\",@function; \"" name "\": nop; ret; .size \"" name "\",2")
NAMED("_D3app4Shop4sellMFiZi");
NAMED("_D3app__T5twiceTiZQjFNaNbNiNfiZi");
NAMED("_D3app4mainFZ9__lambda1MFiZi");
NAMED("$s3app4ShopC4sellyS2iF");
NAMED("$s3app5twiceyxxSjRzlF");
NAMED("$s3app4mainyyFSiycfU_");
NAMED("whole");
NAMED("whole.part.0");
NAMED("whole.constprop.0.isra.1");
NAMED("with space");
NAMED("with\\\"quote");
NAMED("star*");
NAMED("query?[x]");
NAMED("plus+0x10");
NAMED("colon:colon");
NAMED("hash#semicolon;comma,");

extern long helpers(long n);
long numbers[9];

int main(int count, char **arguments)
{
    numbers[0] = count;
    long total = constant(numbers, 3) + constant(numbers + 1, 3) + scalar(numbers);
    for (int i = 0; i < 997; i++)
        total += helper(i);
    for (int i = 0; i < 97; i++)
        total += helpers(i);
    return total == 1;
}
