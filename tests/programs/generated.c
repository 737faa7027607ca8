/* Calls by way of code that is made at run time: generated [TIMES]
   work() is called TIMES times in each of the chains main < KIND < (code) < inner < work. KIND says what the code does with
   the frame pointer: "keeping" keeps the chain of them, "clearing" sets it to 0, and "using" to a number that is no address,
   as code that is compiled without frame pointers may. For x86-64. Prints "done". */
#include <string.h>
#include <sys/mman.h>
#include "program.h"

volatile long sum;
typedef void (*code)(long n, void (*called)(long n));

NOINLINE void work(long n) { sum += n; }
NOINLINE void inner(long n) { work(n); sum++; }

NOINLINE void keeping(long n, code through) { through(n, inner); sum++; }
NOINLINE void clearing(long n, code through) { through(n, inner); sum++; }
NOINLINE void using(long n, code through) { through(n, inner); sum++; }

int main(int argc, char **argv)
{
    static const char bytes[3][16] = {
        "\x55\x48\x89\xe5\xff\xd6\x5d\xc3",         /* push %rbp; mov %rsp,%rbp; call *%rsi; pop %rbp; ret */
        "\x55\x31\xed\xff\xd6\x5d\xc3",             /* push %rbp; xor %ebp,%ebp; call *%rsi; pop %rbp; ret */
        "\x55\xbd\x05\x00\x00\x00\xff\xd6\x5d\xc3", /* push %rbp; mov $5,%ebp; call *%rsi; pop %rbp; ret */
    };
    char *made = mmap(NULL, sizeof bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long times = number(argc, argv, 1, 997);
    if (made == MAP_FAILED)
        return 1;
    memcpy(made, bytes, sizeof bytes);
    await_go();
    for (long i = 0; i < times; i++) {
        keeping(i, (code)made);
        clearing(i, (code)(made + 16));
        using(i, (code)(made + 32));
    }
    puts("done");
    fflush(stdout);
    await_go();
    return 0;
}
