/* N calls of work, with arguments of every kind in registers and on the stack: work [N]
   work(n, …) is told "odd" or "even", a time of n * 1000 ns, n % 5 bytes of data, and returns n * 2, of an odd n -1.
   Then N / 2 pairs of jobs that overlap: begin(a), begin(b), finish(0, a), finish(1, b); with probes of the same. */
#include <sys/sdt.h>

#include "program.h"

struct job { long id; };

NOINLINE int work(int n, const char *name, const struct timespec *req, const unsigned char *data, size_t size, char six,
                  short seven, unsigned eight, long nine, long ten, long eleven, const char *twelve)
{
    DTRACE_PROBE5(work, done, n, name, size, req, data);
    DTRACE_PROBE1(other, done, six + seven + eight + nine + ten + eleven + twelve[0]);
    return n % 2 ? -1 : n * 2;
}

NOINLINE long begin(struct job *job)
{
    DTRACE_PROBE1(jobs, start, job->id);
    return job->id;
}

NOINLINE long finish(int code, struct job *job)
{
    DTRACE_PROBE2(jobs, done, job->id, code);
    return code + job->id;
}

int main(int argc, char **argv)
{
    static const unsigned char data[] = {1, 0, 0xfe, 'x', 'y'};
    long times = number(argc, argv, 1, 997), sum = 0;
    await_go();
    for (int n = 0; n < times; n++) {
        struct timespec req = {n, n * 1000};
        sum += work(n, n % 2 ? "odd" : "even", &req, data, n % 5, 'A', -7, 8, -9, 10, 11, "twelfth");
    }
    for (long n = 0; n < times / 2; n++) {
        struct job a = {2 * n}, b = {2 * n + 1};
        sum += begin(&a) + begin(&b);
        sum += finish(0, &a) + finish(1, &b);
    }
    printf("%ld\n", sum);
    return 0;
}
