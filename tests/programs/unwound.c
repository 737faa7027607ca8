/* Chains of calls that are hard to follow without frame pointers: unwound [TIMES [LIBRARY]]
   For each line of its input, hit() is called TIMES times in each of them: from the handler of a signal, which has a stack
   of its own; below frames of a variable size, and ones that are aligned; behind a tail call; below a call that cannot
   return; from a thread, a callback of libc, a context, and a function that a fault interrupts at its first instruction.
   With LIBRARY, which is loaded at the first line, also from there. Prints "done TIMES" after each line. */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include "program.h"

volatile long sum;
NOINLINE void hit(long n) { sum += n; }

/* A signal that is sent, on an alternate stack. */
NOINLINE void on_signal(int number) { hit(number); sum++; }
NOINLINE void by_signal(long n) { raise(SIGUSR1); sum += n; }

/* A fault of the first instruction of a function. What lies right before it has another frame. */
void faults(void);
void neighbour(void);
__asm__(".text\n"
        ".globl neighbour\n.type neighbour, @function\nneighbour:\n.cfi_startproc\n"
        "sub $56, %rsp\n.cfi_adjust_cfa_offset 56\ncall abort\n.cfi_endproc\n.size neighbour, .-neighbour\n"
        ".globl faults\n.type faults, @function\nfaults:\n.cfi_startproc\nud2\nret\n.cfi_endproc\n.size faults, .-faults\n");
NOINLINE void on_fault(int number, siginfo_t *info, void *context)
{
    (void)info;
    hit(number);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}
NOINLINE void by_fault(long n) { faults(); sum += n; }

/* Frames whose size only the program knows, and which are aligned. */
NOINLINE long by_size(long n)
{
    char *room = alloca(n % 100 + 1);
    memset(room, n, n % 100 + 1);
    hit(n);
    return room[0];
}
NOINLINE double by_alignment(long n)
{
    char *room = alloca(n % 100 + 1);
    double __attribute__((aligned(64))) values[16];
    for (int i = 0; i < 16; i++)
        values[i] = (double)n * i;
    memset(room, n, n % 100 + 1);
    sum += by_size(n);
    return values[n & 15] + room[0];
}

/* The compiler makes a jump of the last call, whose caller is then not on the stack. */
NOINLINE void jumped_to(long n) { hit(n + 1); sum++; }
NOINLINE void jumps(long n) { sum += n; jumped_to(n); }
NOINLINE void by_jump(long n) { jumps(n); sum++; }

/* The address behind a call that cannot return is that of the next function. */
static jmp_buf back;
NOINLINE __attribute__((noreturn)) void never_returns(long n) { hit(n); longjmp(back, 1); }
NOINLINE void by_no_return(long n) { sum += n; never_returns(n); }
NOINLINE void neighbour_of_no_return(long n) { char room[200]; memset(room, (int)n, 200); sum += room[n % 200]; }
NOINLINE void by_jump_back(long n)
{
    if (!setjmp(back))
        by_no_return(n);
    hit(n);
    neighbour_of_no_return(n);
}

/* libc calls us. */
static int by_comparison(const void *a, const void *b) { hit(1); return *(const int *)a - *(const int *)b; }
NOINLINE void sorts(void) { int two[] = {2, 1}; qsort(two, 2, sizeof(int), by_comparison); sum += two[0]; }

/* A stack that is none of a thread. */
static ucontext_t here, there;
static void by_context(int n) { hit(n); sum++; }
NOINLINE void switches(long n)
{
    static char stack[65536];
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, (void (*)(void))by_context, 1, (int)n);
    swapcontext(&here, &there);
    sum++;
}

/* Deeper than what is kept of a stack. */
NOINLINE long by_depth(long n) { if (n) return by_depth(n - 1) + sum; hit(n); return sum; }

/* As many calls below each other as there are pending return probes. */
NOINLINE long by_ten(long n) { if (n > 1) return by_ten(n - 1) + sum; hit(n); return sum; }

static void *by_thread(void *times)
{
    for (long i = 0; i < (long)times; i++)
        hit(i);
    return NULL;
}

int main(int argc, char **argv)
{
    static char signal_stack[65536];
    long times = number(argc, argv, 1, 997);
    stack_t alternate = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    struct sigaction on_sent = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    struct sigaction on_faulted = {.sa_sigaction = on_fault, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    void (*through)(void (*)(long), long) = NULL;
    pthread_t thread;

    sigaltstack(&alternate, NULL);
    sigaction(SIGUSR1, &on_sent, NULL);
    sigaction(SIGILL, &on_faulted, NULL);
    for (await_go(); !feof(stdin); await_go()) {
        if (argc > 2 && !through)
            *(void **)&through = dlsym(dlopen(argv[2], RTLD_NOW), "by_library");
        for (long i = 0; i < times; i++) {
            by_signal(i);
            by_fault(i);
            sum += by_alignment(i);
            by_jump(i);
            by_jump_back(i);
            sorts();
            switches(i);
            by_depth(200);
            by_ten(10);
            if (through)
                through(hit, i);
        }
        pthread_create(&thread, NULL, by_thread, (void *)times);
        pthread_join(thread, NULL);
        printf("done %ld\n", times);
    }
    return 0;
}
