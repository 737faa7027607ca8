/* Fires when it is told: for each line of its input, two numbers N and D, it fires bench:hit(i, text) N times as fast as it
   can, the first D of its texts taking turns, and prints "fired N ns T", T being the processor's nanoseconds for it, the
   kernel's part included. It ends with its input. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sdt.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

enum { TEXTS = 100003 };

int main(void)
{
    char line[32];
    static char texts[TEXTS][32];
    for (int i = 0; i < TEXTS; i++)
        snprintf(texts[i], sizeof texts[i], "customer %d of the shop", 10 + i);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char *end;
        uint64_t times = strtoull(line, &end, 10), different = strtoull(end, NULL, 10), since = now_ns();
        if (!different || different > TEXTS)
            return 2;
        for (uint64_t i = 0; i < times; i++)
            DTRACE_PROBE2(bench, hit, i, texts[i % different]);
        printf("fired %llu ns %llu\n", (unsigned long long)times, (unsigned long long)(now_ns() - since));
        fflush(stdout);
    }
    return 0;
}
