/* Many distinct stacks: paths [DEPTH [TIMES]]
   For each number of DEPTH bits, work() is called TIMES times by way of DEPTH calls, each from the place that a bit chooses.
   Compile without optimisation. Prints "stacks N hits N". */
#include "program.h"

volatile long sum;

NOINLINE void work(long path) { sum += path; }

NOINLINE void branch(long depth, long path, long bits)
{
    if (depth == 0)
        work(path);
    else if (bits & 1)
        branch(depth - 1, path, bits >> 1);
    else
        branch(depth - 1, path, bits >> 1);
}

int main(int argc, char **argv)
{
    long depth = number(argc, argv, 1, 11), times = number(argc, argv, 2, 3);
    await_go();
    for (long i = 0; i < times; i++)
        for (long path = 0; path < 1L << depth; path++)
            branch(depth, path, path);
    printf("stacks %ld hits %ld\n", 1L << depth, times << depth);
    fflush(stdout);
    await_go();
    return 0;
}
