/* One function that calls itself: recursive [DEPTH [TIMES]]
   descend(depth) works for about depth * 10 microseconds, then calls descend(depth - 1), down to 1, and returns the number of
   levels below it. Prints "DEPTH NANOSECONDS" for every call, in order of return, as the function measured itself. */
#include "program.h"

static struct { int depth; uint64_t ns; } *calls;
static long made;

NOINLINE int descend(int depth)
{
    uint64_t start = now_ns(), until = start + (uint64_t)depth * 10000;
    while (now_ns() < until)
        ;
    int below = depth > 1 ? 1 + descend(depth - 1) : 0;
    calls[made].depth = depth;
    calls[made++].ns = now_ns() - start;
    return below;
}

int main(int argc, char **argv)
{
    long depth = number(argc, argv, 1, 7), times = number(argc, argv, 2, 3);
    calls = calloc(depth * times, sizeof *calls);
    await_go();
    for (long i = 0; i < times; i++)
        descend(depth);
    for (long i = 0; i < made; i++)
        printf("%d %llu\n", calls[i].depth, (unsigned long long)calls[i].ns);
    return 0;
}
