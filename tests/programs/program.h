/* The manners of every C target: it says "ready", waits for a line (or the end) of its input so that a tracer can attach
   first, does its work, and prints what it did: the oracle that a trace is compared with. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))

static inline void await_go(void)
{
    printf("ready\n");
    fflush(stdout);
    for (int c = getchar(); c != '\n' && c != EOF; c = getchar())
        ;
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

/* The argument of this place as a number, or the default. */
static inline long number(int argc, char **argv, int place, long otherwise)
{
    return argc > place ? strtol(argv[place], NULL, 10) : otherwise;
}
