/* Threads that call one function and fire one probe: threads [THREADS [TIMES]]
   Each thread calls work(thread, i) TIMES times, which fires pool:work(thread, i) and returns thread * 1000000 + i.
   Prints "thread T tid ID calls N" for each. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/sdt.h>
#include <unistd.h>
#include "program.h"

static long times;

struct worker { pthread_t thread; long number; int tid; long calls; };

NOINLINE long work(long thread, long i)
{
    DTRACE_PROBE2(pool, work, thread, i);
    return thread * 1000000 + i;
}

static void *run(void *argument)
{
    struct worker *self = argument;
    self->tid = gettid();
    for (long i = 0; i < times; i++)
        self->calls += work(self->number, i) == self->number * 1000000 + i;
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = number(argc, argv, 1, 10);
    times = number(argc, argv, 2, 997);
    struct worker *workers = calloc(threads, sizeof *workers);
    await_go();
    for (long t = 0; t < threads; t++) {
        workers[t].number = t;
        if (pthread_create(&workers[t].thread, NULL, run, &workers[t]))
            return 1;
    }
    for (long t = 0; t < threads; t++) {
        pthread_join(workers[t].thread, NULL);
        printf("thread %ld tid %d calls %ld\n", t, workers[t].tid, workers[t].calls);
    }
    return 0;
}
