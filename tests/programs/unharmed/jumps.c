/* Functions that return twice, and functions that are left by longjmp and siglongjmp. See case.h. */
#define _GNU_SOURCE
#include "case.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

static jmp_buf back;
static sigjmp_buf signal_back;

COUNTED(outer);
COUNTED(middle);
COUNTED(inner);
TRACED long inner(long n)
{
    ENTER(inner);
    if (n == 1)
        pause_inside();
    if (n % 10 == 0)
        longjmp(back, 1);
    KEEP(n);
    LEAVE(inner);
    return n;
}

TRACED long middle(long n)
{
    ENTER(middle);
    long result = inner(n) + 1;
    KEEP(result);
    LEAVE(middle);
    return result;
}

TRACED long outer(long n)
{
    volatile long result = -1;
    ENTER(outer);
    if (setjmp(back) == 0)
        result = middle(n);
    LEAVE(outer);
    return result;
}

static void run_longjmp(void)
{
    long wrong = 0;
    for (volatile long n = 1; n <= 997; n++)
        wrong += outer(n) != (n % 10 ? n + 1 : -1);
    say("wrong %ld\n", wrong);
    TELL(outer);
    TELL(middle);
    TELL(inner);
}

/* Further down than the 64 pending returns that the kernel keeps of a thread. */
static jmp_buf *volatile way_out = &back; /* so that the compiler does not know that down never returns */
COUNTED(down);
TRACED long down(long levels)
{
    ENTER(down);
    long result = 0;
    if (levels > 0)
        result = down(levels - 1) + 1;
    else {
        pause_inside();
        if (way_out)
            longjmp(*way_out, 3);
    }
    KEEP(result);
    LEAVE(down);
    return result;
}

static void run_deep_longjmp(void)
{
    volatile long came = 0;
    for (volatile int n = 0; n < 31; n++)
        if (setjmp(back) == 3)
            came++;
        else
            down(199);
    say("came %ld\n", came);
    TELL(down);
}

static void leave_by_signal(int number)
{
    siglongjmp(signal_back, number);
}

COUNTED(crashes);
TRACED long crashes(long n)
{
    ENTER(crashes);
    if (n == 2)
        pause_inside();
    volatile int *where = n % 2 ? (volatile int *)8 : (volatile int *)&n;
    __asm__ volatile("" : "+r"(where));
    *where = *where;
    LEAVE(crashes);
    return n;
}

static void run_siglongjmp(void)
{
    volatile long caught = 0, back_normally = 0;
    signal(SIGSEGV, leave_by_signal);
    for (volatile long n = 0; n < 997; n++)
        if (sigsetjmp(signal_back, 1) == SIGSEGV)
            caught++;
        else
            back_normally += crashes(n) == n;
    say("caught %ld, came back %ld\n", caught, back_normally);
    TELL(crashes);
}

/* The same from another stack than the one that is jumped to. */
static void run_alternate_stack(void)
{
    volatile long caught = 0, back_normally = 0;
    stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&other, NULL);
    struct sigaction action = {.sa_handler = leave_by_signal, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    for (volatile long n = 0; n < 997; n++)
        if (sigsetjmp(signal_back, 1) == SIGSEGV)
            caught++;
        else
            back_normally += crashes(n) == n;
    say("caught %ld, came back %ld\n", caught, back_normally);
    TELL(crashes);
}

/* Signals at any instruction, every third of which leaves what it has interrupted. */
static volatile sig_atomic_t ticks, armed;
static void tick(int number)
{
    if (armed && ++ticks % 3 == 0)
        siglongjmp(signal_back, number);
}

TRACED long begins(long n)
{
    pause_inside();
    KEEP(n);
    return n;
}

TRACED long works(long n)
{
    long sum = 0;
    for (int i = 0; i < 8; i++) {
        sum += i;
        KEEP(sum);
    }
    return sum + n;
}

static void run_timer(void)
{
    volatile long wrong = begins(1) != 1, n = 1, left = 0;
    struct sigaction action = {.sa_handler = tick};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, NULL);
    while (left < 31) {
        if (sigsetjmp(signal_back, 1) == SIGALRM) {
            left++;
            continue;
        }
        armed = 1;
        for (int i = 0; i < 100; i++) /* so that most signals come there, however slow all else is */
            wrong += works(n) != 28 + n;
        armed = 0;
        n++;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    say("left %ld, wrong %ld\n", left, wrong);
    say("traces begins\ntraces works\n");
}

COUNTED(compare);
TRACED int compare(const void *a, const void *b)
{
    ENTER(compare);
    if (*(const int *)a == -1 || *(const int *)b == -1)
        longjmp(back, 1);
    int result = *(const int *)a - *(const int *)b;
    pause_inside();
    LEAVE(compare);
    return result;
}

/* A function of the C library that calls back, and is left from there. */
static void run_sort(void)
{
    volatile int whole = 0, left = 0;
    for (volatile int n = 0; n < 20; n++) {
        int numbers[16];
        for (int i = 0; i < 16; i++)
            numbers[i] = n % 2 && i == 11 ? -1 : i * 7 % 16;
        if (setjmp(back))
            left++;
        else {
            qsort(numbers, 16, sizeof *numbers, compare);
            whole++;
        }
    }
    say("whole %d, left %d\n", whole, left);
    TELL(compare);
    say("calls c:qsort 20 10\n");
}

/* What is traced are the functions that return twice themselves, and those that jump. */
static void run_family(void)
{
    static volatile int order[64];
    volatile int count = 0, got;
    order[count++] = got = setjmp(back);
    if (got < 3)
        longjmp(back, got + 1);
    order[count++] = got = sigsetjmp(signal_back, 1);
    if (got < 3)
        siglongjmp(signal_back, got + 1);
    order[count++] = got = sigsetjmp(signal_back, 0);
    if (got < 3)
        siglongjmp(signal_back, got + 1);
    for (volatile int n = 0; n < 13; n++) {
        got = _setjmp(back);
        if (got == 0)
            middle(n == 7 ? 1 : 10);
        order[count++] = got;
    }
    say("order");
    for (int i = 0; i < count; i++)
        say(" %d", order[i]);
    say("\ntraces c:*set*\ntraces c:*jmp*\n");
    TELL(middle);
    TELL(inner);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"longjmp", run_longjmp}, {"deep_longjmp", run_deep_longjmp}, {"siglongjmp", run_siglongjmp},
        {"alternate_stack", run_alternate_stack}, {"timer", run_timer}, {"sort", run_sort}, {"family", run_family},
        {NULL, NULL},
    };
    return run_case(argc, argv, cases);
}
