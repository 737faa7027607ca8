/* Nested calls, some of which never return: longjmp [TIMES [EVERY]]
   outer(i) calls middle(i), that calls inner(i); for each i divisible by EVERY, inner jumps back to outer, so that inner and
   middle have an entry without a return. Prints "NAME entries N returns M" for the three. */
#include <setjmp.h>
#include "program.h"

struct count { long entries, returns; };
static struct count outer_count, middle_count, inner_count;
static jmp_buf back;
static long every;

NOINLINE long inner(long i)
{
    inner_count.entries++;
    if (i % every == 0)
        longjmp(back, 1);
    inner_count.returns++;
    return i;
}

NOINLINE long middle(long i)
{
    middle_count.entries++;
    long result = inner(i) + 1;
    middle_count.returns++;
    return result;
}

NOINLINE long outer(long i)
{
    long result = -1;
    outer_count.entries++;
    if (setjmp(back) == 0)
        result = middle(i);
    outer_count.returns++;
    return result;
}

static void tell(const char *name, struct count count)
{
    printf("%s entries %ld returns %ld\n", name, count.entries, count.returns);
}

int main(int argc, char **argv)
{
    long times = number(argc, argv, 1, 997);
    every = number(argc, argv, 2, 10);
    await_go();
    for (volatile long i = 1; i <= times; i++)
        outer(i);
    tell("outer", outer_count);
    tell("middle", middle_count);
    tell("inner", inner_count);
    return 0;
}
