/* Threads that lock mutexes: mutexes ORDER [TIMES]
   same      both threads lock first, then second
   opposite  one locks first, then second; then another second, then first: at another time, so that nothing happens
   guarded   as opposite, each under a third mutex
   circle    three threads, first-second, second-third, third-first
   try       as opposite, but the second thread only tries to lock first
   again     as opposite, but the mutexes are destroyed and made again between
   recursive one thread locks a recursive mutex twice, and another one within and without
   held      one holds a mutex for 2 ms, TIMES times, while the other waits for it
   sleeps    one waits TIMES times for 2 ms on a condition that nobody signals, with its mutex
   Prints what it did. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "program.h"

static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER, second = PTHREAD_MUTEX_INITIALIZER,
                       third = PTHREAD_MUTEX_INITIALIZER, twice;
static pthread_barrier_t both;
static long times;

NOINLINE void nest(pthread_mutex_t *outer, pthread_mutex_t *inner)
{
    pthread_mutex_lock(outer);
    pthread_mutex_lock(inner);
    pthread_mutex_unlock(inner);
    pthread_mutex_unlock(outer);
    __asm__ volatile("");
}

NOINLINE void *one(void *order)
{
    pthread_setname_np(pthread_self(), "one");
    if (!strcmp(order, "guarded"))
        pthread_mutex_lock(&third);
    for (long i = 0; i < times; i++)
        nest(&first, &second);
    if (!strcmp(order, "guarded"))
        pthread_mutex_unlock(&third);
    return NULL;
}

NOINLINE void *two(void *order)
{
    pthread_setname_np(pthread_self(), "two");
    if (!strcmp(order, "same")) {
        nest(&first, &second);
    } else if (!strcmp(order, "circle")) {
        nest(&second, &third);
        nest(&third, &first);
    } else if (!strcmp(order, "guarded")) {
        pthread_mutex_lock(&third);
        nest(&second, &first);
        pthread_mutex_unlock(&third);
    } else if (!strcmp(order, "try")) {
        pthread_mutex_lock(&second);
        if (!pthread_mutex_trylock(&first))
            pthread_mutex_unlock(&first);
        pthread_mutex_unlock(&second);
    } else if (!strcmp(order, "again")) {
        pthread_mutex_destroy(&first);
        pthread_mutex_init(&first, NULL);
        nest(&second, &first);
    } else if (!strcmp(order, "recursive")) {
        pthread_mutex_lock(&twice);
        nest(&twice, &first);
        pthread_mutex_lock(&first);
        pthread_mutex_unlock(&first);
        pthread_mutex_unlock(&twice);
    } else {
        nest(&second, &first);
    }
    return NULL;
}

NOINLINE void *holder(void *argument)
{
    for (long i = 0; i < times; i++) {
        pthread_mutex_lock(&first);
        pthread_barrier_wait(&both);
        usleep(2000);
        pthread_mutex_unlock(&first);
        pthread_barrier_wait(&both);
    }
    return argument;
}

NOINLINE void *waiter(void *argument)
{
    for (long i = 0; i < times; i++) {
        pthread_barrier_wait(&both);
        pthread_mutex_lock(&first);
        pthread_mutex_unlock(&first);
        pthread_barrier_wait(&both);
    }
    return argument;
}

NOINLINE void *sleeper(void *argument)
{
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&first);
    for (long i = 0; i < times; i++) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 2000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&never, &first, &until);
    }
    pthread_mutex_unlock(&first);
    return argument;
}

NOINLINE void *nothing(void *argument)
{
    return argument;
}

static void together(void *(*a)(void *), void *(*b)(void *), void *argument, int at_once)
{
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, a, argument);
    if (!at_once)
        pthread_join(threads[0], NULL);
    pthread_create(&threads[1], NULL, b, argument);
    if (at_once)
        pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}

int main(int argc, char **argv)
{
    char *order = argc > 1 ? argv[1] : "same";
    pthread_mutexattr_t recursive;
    times = number(argc, argv, 2, 1);
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&twice, &recursive);
    pthread_barrier_init(&both, NULL, 2);
    await_go();
    if (!strcmp(order, "held"))
        together(holder, waiter, order, 1);
    else if (!strcmp(order, "sleeps"))
        together(sleeper, nothing, order, 1);
    else
        together(one, two, order, 0);
    printf("done first %p second %p third %p\n", (void *)&first, (void *)&second, (void *)&third);
    return 0;
}
