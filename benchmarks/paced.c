/* Fires when it is told, at a pace: for each line of its input, three numbers N, R and D, it fires bench:hit(i, text), and
   around it mysql:query__start and query__done, N times, R times a second, the first D of its texts taking turns. Then it
   prints "fired". It ends with its input. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sdt.h>
#include <time.h>

enum { TEXTS = 1000003, SHORTEST_SLEEP_NS = 60000 };
static char texts[TEXTS][40];

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

static void wait_until(uint64_t due)
{
    uint64_t now;
    while ((now = now_ns()) < due)
        if (due - now > SHORTEST_SLEEP_NS) {
            struct timespec until = {due / 1000000000u, due % 1000000000u};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        }
}

int main(void)
{
    char line[64];
    for (int i = 0; i < TEXTS; i++)
        snprintf(texts[i], sizeof texts[i], "SELECT c FROM sbtest1 WHERE id=%d", i);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long times, rate, different;
        if (sscanf(line, "%llu %llu %llu", &times, &rate, &different) != 3 || !rate || !different || different > TEXTS)
            return 2;
        uint64_t since = now_ns();
        for (uint64_t i = 0; i < times; i++) {
            const char *text = texts[i % different];
            wait_until(since + i * 1000000000u / rate);
            DTRACE_PROBE5(mysql, query__start, text, 7ul, "shop", "ada", "localhost");
            DTRACE_PROBE2(bench, hit, i, text);
            DTRACE_PROBE1(mysql, query__done, 0);
        }
        printf("fired\n");
        fflush(stdout);
    }
    return 0;
}
