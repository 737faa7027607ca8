/* What plain C does: nothing here unwinds a stack or leaves it for another. See case.h. */
#define _GNU_SOURCE
#include "case.h"
#include <linux/seccomp.h>
#include <linux/filter.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;

COUNTED(leaf);
TRACED long leaf(long n)
{
    ENTER(leaf);
    KEEP(n);
    LEAVE(leaf);
    return n + 1;
}

/* Further down than the 64 pending returns that the kernel keeps of a thread. */
COUNTED(deep);
TRACED long deep(long levels)
{
    ENTER(deep);
    long below = 0;
    if (levels > 0)
        below = deep(levels - 1) + 1;
    else
        pause_inside();
    KEEP(below);
    LEAVE(deep);
    return below;
}

static void run_deep(void)
{
    say("levels %ld\n", deep(5000));
    TELL(deep);
}

COUNTED(tailer);
TRACED long tailer(long n)
{
    ENTER(tailer);
    if (n == 7)
        pause_inside();
    LEAVE(tailer);
    return leaf(n + 1);
}

static void run_tail(void)
{
    long wrong = 0;
    for (long n = 0; n < 997; n++)
        wrong += tailer(n) != n + 2;
    say("wrong %ld\n", wrong);
    TELL(tailer);
    TELL(leaf);
}

COUNTED(big_frame);
TRACED long big_frame(long n)
{
    ENTER(big_frame);
    volatile char room[1 << 20];
    room[0] = room[sizeof room - 1] = (char)n;
    if (n == 3)
        pause_inside();
    long result = leaf(room[0]) + room[sizeof room - 1];
    KEEP(result);
    LEAVE(big_frame);
    return result;
}

static void run_big_frame(void)
{
    long wrong = 0;
    for (long n = 0; n < 97; n++)
        wrong += big_frame(n) != 2 * n + 1;
    say("wrong %ld\n", wrong);
    TELL(big_frame);
    TELL(leaf);
}

/* Results that do not fit into one register: floating point, two registers, memory that the caller gives. */
struct two { long first, second; };
struct many { long values[9]; };
COUNTED(floating);
COUNTED(both);
COUNTED(in_memory);
TRACED double floating(double a, double b)
{
    ENTER(floating);
    double result = a / b;
    __asm__ volatile("" : "+x"(result) : : "memory");
    LEAVE(floating);
    return result;
}

TRACED struct two both(long n)
{
    ENTER(both);
    struct two result = {n, -n};
    KEEP(result.first);
    if (n == 5)
        pause_inside();
    LEAVE(both);
    return result;
}

TRACED struct many in_memory(long n)
{
    ENTER(in_memory);
    struct many result;
    for (int i = 0; i < 9; i++)
        result.values[i] = n * i;
    KEEP(n);
    LEAVE(in_memory);
    return result;
}

static void run_results(void)
{
    double sum = 0;
    long wrong = 0;
    for (long n = 1; n <= 97; n++) {
        sum += floating(n, 7);
        struct two pair = both(n);
        wrong += pair.first != n || pair.second != -n;
        wrong += in_memory(n).values[8] != 8 * n;
    }
    say("sum %.9f, wrong %ld\n", sum, wrong);
    TELL(floating);
    TELL(both);
    TELL(in_memory);
}

COUNTED(compare);
TRACED int compare(const void *a, const void *b)
{
    ENTER(compare);
    int x = *(const int *)a, y = *(const int *)b;
    pause_inside();
    LEAVE(compare);
    return (x > y) - (x < y);
}

static void run_sort(void)
{
    int numbers[97], wrong = 0;
    for (int i = 0; i < 97; i++)
        numbers[i] = i * 61 % 97;
    qsort(numbers, 97, sizeof *numbers, compare);
    for (int i = 0; i < 97; i++)
        wrong += numbers[i] != i;
    say("wrong %d\n", wrong);
    TELL(compare);
    say("calls c:qsort 1 1\n");
}

COUNTED(handler);
COUNTED(raises);
static volatile sig_atomic_t handled;
TRACED void handler(int number)
{
    ENTER(handler);
    handled++;
    if (handled == 11)
        pause_inside();
    LEAVE(handler);
}

TRACED long raises(long n)
{
    ENTER(raises);
    raise(SIGUSR1);
    KEEP(n);
    LEAVE(raises);
    return n + 1;
}

static void handle(int number, int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(number, &action, NULL);
}

static void run_signals(void)
{
    long wrong = 0;
    handle(SIGUSR1, 0);
    for (long n = 0; n < 997; n++)
        wrong += raises(n) != n + 1;
    say("handled %d, wrong %ld\n", (int)handled, wrong);
    TELL(raises);
    TELL(handler);
}

static void run_alternate_stack(void)
{
    long wrong = 0;
    stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&other, NULL);
    handle(SIGUSR1, SA_ONSTACK);
    for (long n = 0; n < 997; n++)
        wrong += raises(n) != n + 1;
    say("handled %d, wrong %ld\n", (int)handled, wrong);
    TELL(raises);
    TELL(handler);
}

/* Signals at any instruction: also between a breakpoint and the instruction that is stepped in its place. */
COUNTED(interrupted);
TRACED long interrupted(long n)
{
    ENTER(interrupted);
    if (n == 1)
        pause_inside();
    long result = leaf(n) - 1;
    KEEP(result);
    LEAVE(interrupted);
    return result;
}

static void run_timer(void)
{
    long wrong = 0, n = 0;
    handle(SIGALRM, SA_RESTART);
    handled = 100; /* past the handler's own pause */
    struct itimerval every = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, NULL);
    while (handled < 300) {
        wrong += interrupted(n) != n;
        n++;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    say("wrong %ld\n", wrong);
    say("traces interrupted\ntraces leaf\ntraces handler\n");
}

static int status_of(pid_t child)
{
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

COUNTED(vforks);
TRACED long vforks(long n)
{
    ENTER(vforks);
    if (n == 1)
        pause_inside();
    pid_t child = vfork();
    if (child == 0) {
        struct calls before = leaf_calls; /* the child has its parent's memory, and is another process */
        long result = leaf(n);
        leaf_calls = before;
        _exit((int)(result & 63));
    }
    long status = status_of(child);
    KEEP(status);
    LEAVE(vforks);
    return status;
}

static void run_vfork(void)
{
    long wrong = 0;
    for (long n = 0; n < 97; n++)
        wrong += vforks(n) != ((n + 1) & 63);
    say("wrong %ld\n", wrong);
    TELL(vforks);
    TELL(leaf);
}

static int cloned(void *result)
{
    struct calls before = leaf_calls;
    *(long *)result = leaf(*(long *)result);
    leaf_calls = before;
    return 5;
}

COUNTED(clones);
TRACED long clones(long n)
{
    static char stack[1 << 16];
    ENTER(clones);
    long result = n;
    if (n == 1)
        pause_inside();
    long status = status_of(clone(cloned, stack + sizeof stack, CLONE_VM | SIGCHLD, &result));
    KEEP(status);
    LEAVE(clones);
    return status == 5 ? result : -1;
}

static void run_clone_vm(void)
{
    long wrong = 0;
    for (long n = 0; n < 97; n++) {
        wrong += clones(n) != n + 1;
        wrong += leaf(n) != n + 1;
    }
    say("wrong %ld\n", wrong);
    TELL(clones);
    TELL(leaf);
}

/* The child returns through the functions that its parent has called. */
COUNTED(forks);
TRACED pid_t forks(long n)
{
    ENTER(forks);
    if (n == 0)
        pause_inside();
    pid_t child = fork();
    KEEP(child);
    if (child)
        LEAVE(forks);
    return child;
}

static void run_fork(void)
{
    long wrong = 0;
    for (long n = 0; n < 97; n++) {
        pid_t child = forks(n);
        if (child == 0)
            _exit(leaf(n) == n + 1 && deep(97) == 97 ? 6 : 7);
        wrong += status_of(child) != 6;
    }
    say("wrong %ld\n", wrong);
    TELL(forks);
    TELL(leaf);
}

COUNTED(spawns);
TRACED int spawns(const char *word)
{
    ENTER(spawns);
    pid_t child;
    char *command[] = {(char *)"sh", (char *)"-c", (char *)word, NULL};
    pause_inside();
    int status = posix_spawnp(&child, "sh", NULL, NULL, command, environ) ? -1 : status_of(child);
    LEAVE(spawns);
    return status;
}

static void run_spawn(void)
{
    char line[64] = "";
    say("spawned %d %d\n", spawns("exit 3"), spawns("echo spawned; exit 4"));
    say("system %d\n", WEXITSTATUS(system("exit 5")));
    FILE *from = popen("echo by popen", "r");
    if (!from || !fgets(line, sizeof line, from))
        say("nothing\n");
    say("read %s", line);
    say("closed %d\n", pclose(from));
    TELL(spawns);
    say("calls c:system 1 1\ncalls c:popen 1 1\ncalls c:pclose 1 1\n");
}

static void at_exit(void)
{
    say("at exit %ld\n", leaf(1));
    TELL(leaf);
}

COUNTED(leaves);
TRACED void leaves(int status)
{
    ENTER(leaves);
    pause_inside();
    TELL(leaves);
    exit(status);
}

static void run_exit(void)
{
    atexit(at_exit);
    leaves(9);
}

COUNTED(dies);
TRACED void dies(void)
{
    ENTER(dies);
    pause_inside();
    TELL(dies);
    abort();
}

static void run_signal_death(void)
{
    dies();
}

/* Strict: read, write, exit and sigreturn are all that there is; anything else kills. */
static void run_seccomp_strict(void)
{
    long wrong = 0;
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    for (long n = 0; n < 31; n++) {
        wrong += tailer(n) != n + 2;
        wrong += deep(97) != 97;
    }
    say("wrong %ld\n", wrong);
    TELL(tailer);
    TELL(deep);
    say("done\n");
    syscall(SYS_exit, 11);
}

static void run_seccomp_filter(void)
{
    long wrong = 0;
#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), ALLOW(SYS_read), ALLOW(SYS_write),
        ALLOW(SYS_exit_group), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        say("no filter\n");
    for (long n = 0; n < 31; n++) {
        wrong += tailer(n) != n + 2;
        wrong += deep(97) != 97;
    }
    say("wrong %ld\n", wrong);
    TELL(tailer);
    TELL(deep);
}

#define THREADS 8
static void *recurses(void *wrong)
{
    for (int i = 0; i < 199; i++)
        *(long *)wrong += deep(5) != 5;
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[THREADS];
    long wrong[THREADS] = {0}, sum = 0;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, recurses, &wrong[i]))
            say("no thread\n");
    sum += deep(97) != 97;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += wrong[i];
    }
    say("wrong %ld\n", sum);
    TELL(deep);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"deep", run_deep}, {"tail", run_tail}, {"big_frame", run_big_frame}, {"results", run_results}, {"sort", run_sort},
        {"signals", run_signals}, {"alternate_stack", run_alternate_stack}, {"timer", run_timer}, {"vfork", run_vfork},
        {"clone_vm", run_clone_vm}, {"fork", run_fork}, {"spawn", run_spawn}, {"exit", run_exit},
        {"signal_death", run_signal_death}, {"seccomp_strict", run_seccomp_strict}, {"seccomp_filter", run_seccomp_filter},
        {"threads", run_threads}, {NULL, NULL},
    };
    return run_case(argc, argv, cases);
}
