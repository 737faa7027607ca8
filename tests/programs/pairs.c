/* Starts and ends of USDT pairs, in any order: pairs PATTERN [TIMES [THREADS]]
   Each thread goes TIMES times through PATTERN, in which "(" fires nest:start(serial, text), ")" fires nest:end(serial of the
   innermost open start, or 0), and "." works for about 50 microseconds. Prints for each end with a start, by thread:
   "tid SERIAL NANOSECONDS", as it measured from the start to the end itself. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/sdt.h>
#include <unistd.h>
#include "program.h"

static const char *pattern;
static long times;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

struct open_start { long serial; uint64_t since; };

static void *run(void *number)
{
    size_t room = 1 << 20;
    struct open_start *open = calloc(4096, sizeof *open);
    char *told = malloc(room), *to = told;
    long serial = (long)number * 1000000, depth = 0;
    for (long round = 0; round < times; round++)
        for (const char *c = pattern; *c; c++) {
            char text[32];
            uint64_t now;
            switch (*c) {
            case '(':
                serial++;
                snprintf(text, sizeof text, "start %ld", serial);
                DTRACE_PROBE2(nest, start, serial, text);
                open[depth++] = (struct open_start){serial, now_ns()};
                break;
            case ')':
                now = now_ns();
                long ended = depth ? open[--depth].serial : 0;
                DTRACE_PROBE1(nest, end, ended);
                if (ended)
                    to += snprintf(to, told + room - to, "%d %ld %llu\n", gettid(), ended, (unsigned long long)(now - open[depth].since));
                break;
            default:
                for (now = now_ns(); now_ns() < now + 50000;)
                    ;
            }
        }
    pthread_mutex_lock(&turn);
    fwrite(told, 1, to - told, stdout);
    pthread_mutex_unlock(&turn);
    return NULL;
}

int main(int argc, char **argv)
{
    pattern = argc > 1 ? argv[1] : "(.)";
    times = number(argc, argv, 2, 1);
    long threads = number(argc, argv, 3, 1);
    pthread_t *started = calloc(threads, sizeof *started);
    await_go();
    for (long t = 0; t < threads; t++)
        if (pthread_create(&started[t], NULL, run, (void *)t))
            return 1;
    for (long t = 0; t < threads; t++)
        pthread_join(started[t], NULL);
    return 0;
}
