/* Known chains of calls: chains [TIMES [exit]]
   work() is called TIMES times by way of each of main < left < work, main < right < deeper < work, and the recursion
   main < descend x 3 < work. Compiled with frame pointers. Prints "left N", "right N", "descend N". With a second argument
   it does not wait for a line at the end. */
#include "program.h"

volatile long sum;

/* work() sets up its frame first of all, bare() never does. */
NOINLINE void work(long n) { sum += n; }
__attribute__((noinline, noclone, optimize("omit-frame-pointer"))) long bare(long n) { return sum += n; }

NOINLINE void left(long n) { work(n); bare(n); sum++; }
NOINLINE void deeper(long n) { work(n); bare(n); sum++; }
NOINLINE void right(long n) { deeper(n); sum++; }
NOINLINE void descend(int depth, long n)
{
    if (depth > 1)
        descend(depth - 1, n);
    else {
        work(n);
        bare(n);
    }
    sum++;
}

int main(int argc, char **argv)
{
    long times = number(argc, argv, 1, 997);
    await_go();
    for (long i = 0; i < times; i++) {
        left(i);
        right(i);
        descend(3, i);
    }
    printf("left %ld\nright %ld\ndescend %ld\n", times, times, times);
    fflush(stdout);
    if (argc <= 2)
        await_go();
    return 0;
}
