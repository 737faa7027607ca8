/* Stacks that are switched by swapcontext, and contexts that are resumed more than once. See case.h. */
#define _GNU_SOURCE
#include "case.h"
#include <pthread.h>
#include <ucontext.h>

#define STACK (1 << 17)
static ucontext_t home, routines[2];

static void prepare(ucontext_t *context, void (*function)(int), int argument)
{
    getcontext(context);
    context->uc_stack.ss_sp = malloc(STACK);
    context->uc_stack.ss_size = STACK;
    context->uc_link = &home;
    makecontext(context, (void (*)(void))function, 1, argument);
}

/* Every call returns when the other routine has made its own. */
COUNTED(step);
TRACED long step(long who)
{
    ENTER(step);
    if (who == 1)
        pause_inside();
    swapcontext(&routines[who], &routines[1 - who]);
    KEEP(who);
    LEAVE(step);
    return who;
}

static long wrong;
static void routine(int who)
{
    for (int n = 0; n < 499; n++)
        wrong += step(who) != who;
}

static void run_swap(void)
{
    prepare(&routines[0], routine, 0);
    prepare(&routines[1], routine, 1);
    swapcontext(&home, &routines[0]);
    say("wrong %ld\n", wrong);
    TELL(step);
    say("traces c:swapcontext\n");
}

/* As a generator: what asks and what answers have different stacks, and both are deep. */
static ucontext_t asker, answerer;
static long answer;
COUNTED(yields);
TRACED long yields(long depth)
{
    ENTER(yields);
    long result = 0;
    if (depth > 0)
        result = yields(depth - 1) + 1;
    else {
        answer++;
        swapcontext(&answerer, &asker);
    }
    KEEP(result);
    LEAVE(yields);
    return result;
}

static void answers(int depth)
{
    for (;;)
        wrong += yields(depth) != depth;
}

COUNTED(asks);
TRACED long asks(long depth)
{
    ENTER(asks);
    long result = 0;
    if (depth > 0)
        result = asks(depth - 1);
    else {
        pause_inside();
        swapcontext(&asker, &answerer);
        result = answer;
    }
    KEEP(result);
    LEAVE(asks);
    return result;
}

static void run_generator(void)
{
    prepare(&answerer, answers, 80);
    for (long n = 1; n <= 97; n++)
        wrong += asks(80) != n;
    say("wrong %ld\n", wrong);
    TELL(asks);
    TELL(yields);
}

/* A routine that one thread leaves and another resumes, in the middle of a call. */
static ucontext_t moving, of_thread;
COUNTED(travels);
TRACED long travels(long n)
{
    ENTER(travels);
    if (n == 1)
        pause_inside();
    swapcontext(&moving, &of_thread);
    KEEP(n);
    LEAVE(travels);
    return n;
}

static void traveller(int unused)
{
    for (long n = 0; n < 97; n++)
        wrong += travels(n) != n;
    setcontext(&of_thread);
}

static void *carry(void *unused)
{
    swapcontext(&of_thread, &moving);
    return NULL;
}

static void run_threads(void)
{
    prepare(&moving, traveller, 0);
    for (int n = 0; n <= 97; n++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, carry, NULL))
            say("no thread\n");
        pthread_join(thread, NULL);
    }
    say("wrong %ld\n", wrong);
    TELL(travels);
}

/* getcontext, which returns again whenever somebody asks it to. */
COUNTED(resumed);
TRACED long resumed(long times)
{
    ENTER(resumed);
    volatile long came = 0;
    ucontext_t here;
    if (times == 3)
        pause_inside();
    getcontext(&here);
    if (++came < times)
        setcontext(&here);
    LEAVE(resumed);
    return came;
}

static void run_resume(void)
{
    for (long n = 1; n <= 31; n++)
        wrong += resumed(n) != n;
    say("wrong %ld\n", wrong);
    TELL(resumed);
    say("traces c:*context*\n");
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"swap", run_swap}, {"generator", run_generator}, {"threads", run_threads}, {"resume", run_resume}, {NULL, NULL},
    };
    return run_case(argc, argv, cases);
}
