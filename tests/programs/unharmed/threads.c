/* Threads that are cancelled or leave from within functions, and backtrace(3): what glibc does by unwinding the stack.
   See case.h. */
#define _GNU_SOURCE
#include "case.h"
#include <execinfo.h>
#include <pthread.h>
#include <semaphore.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static sem_t is_inside;
static long cleaned, destroyed;
static volatile long spins;

static void clean(void *locked)
{
    __atomic_add_fetch(&cleaned, 1, __ATOMIC_RELAXED);
    if (locked)
        pthread_mutex_unlock(locked);
}

static const char *state_of_mutex(void)
{
    if (pthread_mutex_trylock(&mutex))
        return "locked";
    pthread_mutex_unlock(&mutex);
    return "free";
}

static void wait_inside(void)
{
    while (sem_wait(&is_inside))
        ;
}

static void *join(pthread_t thread)
{
    void *result = "no thread";
    pthread_join(thread, &result);
    return result;
}

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument))
        say("no thread\n");
    return thread;
}

COUNTED(blocked);
COUNTED(locks);
TRACED long blocked(long n)
{
    ENTER(blocked);
    pause_inside();
    sem_post(&is_inside);
    for (;;)
        pause();
    LEAVE(blocked);
    return n;
}

TRACED long locks(long n)
{
    long result;
    ENTER(locks);
    pthread_mutex_lock(&mutex);
    pthread_cleanup_push(clean, &mutex);
    result = blocked(n);
    pthread_cleanup_pop(1);
    KEEP(result);
    LEAVE(locks);
    return result;
}

static void *is_cancelled(void *unused)
{
    pthread_cleanup_push(clean, NULL);
    locks(1);
    pthread_cleanup_pop(1);
    return NULL;
}

static void run_cancel(void)
{
    for (int n = 0; n < 13; n++) {
        pthread_t thread = start(is_cancelled, NULL);
        wait_inside();
        pthread_cancel(thread);
        if (join(thread) != PTHREAD_CANCELED)
            say("not cancelled\n");
    }
    say("cleaned %ld, mutex %s\n", cleaned, state_of_mutex());
    TELL(locks);
    TELL(blocked);
    say("calls c:pause 13 0\n");
}

COUNTED(spin);
COUNTED(holds);
TRACED long spin(long n)
{
    ENTER(spin);
    pause_inside();
    sem_post(&is_inside);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    for (;;)
        spins++;
    LEAVE(spin);
    return n;
}

TRACED long holds(long n)
{
    long result;
    ENTER(holds);
    pthread_mutex_lock(&mutex);
    pthread_cleanup_push(clean, &mutex);
    result = spin(n);
    pthread_cleanup_pop(1);
    KEEP(result);
    LEAVE(holds);
    return result;
}

static void *is_stopped(void *unused)
{
    holds(1);
    return NULL;
}

static void run_cancel_at_once(void)
{
    for (int n = 0; n < 13; n++) {
        pthread_t thread = start(is_stopped, NULL);
        wait_inside();
        pthread_cancel(thread);
        if (join(thread) != PTHREAD_CANCELED)
            say("not cancelled\n");
    }
    say("cleaned %ld, mutex %s\n", cleaned, state_of_mutex());
    TELL(holds);
    TELL(spin);
}

/* Cancelled at any instruction of calls that go on and on. */
TRACED long short_call(long n)
{
    KEEP(n);
    return n + 1;
}

TRACED long busy(long n)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    sem_post(&is_inside);
    for (;;)
        n = short_call(n);
    return n;
}

TRACED long pauses(long n)
{
    pause_inside();
    KEEP(n);
    return n;
}

static void *is_busy(void *unused)
{
    pthread_cleanup_push(clean, NULL);
    busy(1);
    pthread_cleanup_pop(1);
    return NULL;
}

static void run_cancel_storm(void)
{
    pauses(1);
    for (int n = 0; n < 25; n++) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            threads[i] = start(is_busy, NULL);
        for (int i = 0; i < 4; i++)
            wait_inside();
        for (int i = 0; i < 4; i++)
            pthread_cancel(threads[i]);
        for (int i = 0; i < 4; i++)
            if (join(threads[i]) != PTHREAD_CANCELED)
                say("not cancelled\n");
    }
    say("cleaned %ld\n", cleaned);
    say("traces pauses\ntraces busy\ntraces short_call\n");
}

COUNTED(waits);
TRACED long waits(long n)
{
    ENTER(waits);
    pthread_mutex_lock(&mutex);
    pthread_cleanup_push(clean, &mutex);
    pause_inside();
    sem_post(&is_inside);
    for (;;)
        pthread_cond_wait(&never, &mutex);
    pthread_cleanup_pop(1);
    LEAVE(waits);
    return n;
}

static void *is_waiting(void *unused)
{
    waits(1);
    return NULL;
}

static void run_cancel_wait(void)
{
    for (int n = 0; n < 13; n++) {
        pthread_t thread = start(is_waiting, NULL);
        wait_inside();
        pthread_mutex_lock(&mutex); /* it waits, and has let go of it */
        pthread_mutex_unlock(&mutex);
        pthread_cancel(thread);
        if (join(thread) != PTHREAD_CANCELED)
            say("not cancelled\n");
    }
    say("cleaned %ld, mutex %s\n", cleaned, state_of_mutex());
    TELL(waits);
    say("calls c:pthread_cond_wait 13 0\n");
}

static void destroy(void *value)
{
    destroyed += (long)value;
}

COUNTED(leaves);
COUNTED(goes);
TRACED long leaves(long n)
{
    ENTER(leaves);
    pause_inside();
    if (n)
        pthread_exit((void *)n);
    KEEP(n);
    LEAVE(leaves);
    return n;
}

TRACED long goes(long n)
{
    long result;
    ENTER(goes);
    pthread_cleanup_push(clean, NULL);
    result = leaves(n);
    pthread_cleanup_pop(1);
    KEEP(result);
    LEAVE(goes);
    return result;
}

static pthread_key_t key;
static void *is_left(void *n)
{
    pthread_setspecific(key, (void *)1);
    return (void *)(goes((long)n) - 1);
}

static void run_thread_exit(void)
{
    long sum = 0;
    pthread_key_create(&key, destroy);
    for (long n = 0; n < 31; n++)
        sum += (long)join(start(is_left, (void *)(n % 2 ? n : 0)));
    say("sum %ld, cleaned %ld, destroyed %ld\n", sum, cleaned, destroyed);
    TELL(goes);
    TELL(leaves);
}

/* The first thread leaves, and the process goes on without it. */
static pthread_t first;
static void *stays(void *unused)
{
    void *result = NULL;
    pthread_join(first, &result);
    say("left with %ld\n", (long)result);
    TELL(goes);
    TELL(leaves);
    say("done\n");
    exit(13);
}

static void run_first_exits(void)
{
    first = pthread_self();
    start(stays, NULL);
    goes(5);
}

/* Functions as an unwinder sees them: by name, without the addresses, which differ from run to run. */
COUNTED(look);
COUNTED(recurse);
TRACED int look(int print)
{
    void *found[256];
    ENTER(look);
    if (print)
        pause_inside();
    int number = backtrace(found, 256);
    char **names = print ? backtrace_symbols(found, number) : NULL;
    for (int i = 0; names && i < number; i++) {
        char *name = strchr(names[i], '('), *end = name ? strchr(name, '+') : NULL;
        if (!name || !end)
            say("frame unknown\n");
        else if (end - name > 1)
            say("frame %.*s\n", (int)(end - name - 1), name + 1);
    }
    free(names);
    LEAVE(look);
    return number;
}

TRACED int recurse(int levels, int print)
{
    ENTER(recurse);
    int number = levels ? recurse(levels - 1, print) : look(print);
    KEEP(number);
    LEAVE(recurse);
    return number;
}

static void run_backtrace(void)
{
    int base = recurse(0, 0);
    say("frames %d %d\n", recurse(5, 1) - base, recurse(97, 0) - base);
    TELL(recurse);
    TELL(look);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"cancel", run_cancel}, {"cancel_at_once", run_cancel_at_once}, {"cancel_storm", run_cancel_storm},
        {"cancel_wait", run_cancel_wait}, {"thread_exit", run_thread_exit}, {"first_exits", run_first_exits},
        {"backtrace", run_backtrace}, {NULL, NULL},
    };
    sem_init(&is_inside, 0, 0);
    return run_case(argc, argv, cases);
}
