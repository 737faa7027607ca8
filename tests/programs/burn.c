/* Threads that use CPU time: burn [THREADS [MILLISECONDS]]
   Each uses that much of it in burn(), and nearly all of that in user mode. THREADS of them run before "ready"; one more,
   and a child process, start after the line that it waits for. Prints "thread ID used NANOSECONDS" for each of the
   threads, and "child ID". */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include "program.h"

static uint64_t wanted_ns;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

struct burner { pthread_t thread; int tid; uint64_t used_ns; };

NOINLINE uint64_t used(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

NOINLINE uint64_t burn(uint64_t until)
{
    volatile uint64_t sum = 0;
    uint64_t now;
    while ((now = used()) < until) {
        for (int n = 0; n < 200000; n++)
            sum += n;
    }
    return now;
}

static void *run(void *argument)
{
    struct burner *self = argument;
    self->tid = gettid();
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    self->used_ns = burn(wanted_ns);
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = number(argc, argv, 1, 2);
    wanted_ns = number(argc, argv, 2, 500) * 1000000;
    struct burner *burners = calloc(threads + 1, sizeof *burners);
    pthread_mutex_lock(&gate);
    for (long t = 0; t < threads; t++) {
        if (pthread_create(&burners[t].thread, NULL, run, &burners[t]))
            return 1;
    }
    await_go();
    pid_t child = fork();
    if (child == 0) {
        burn(wanted_ns);
        _exit(0);
    }
    pthread_mutex_unlock(&gate);
    if (pthread_create(&burners[threads].thread, NULL, run, &burners[threads]))
        return 1;
    for (long t = 0; t <= threads; t++) {
        pthread_join(burners[t].thread, NULL);
        printf("thread %d used %lu\n", burners[t].tid, (unsigned long)burners[t].used_ns);
    }
    waitpid(child, NULL, 0);
    printf("child %d\n", child);
    return 0;
}
