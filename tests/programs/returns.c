/* Functions that return in different ways: returns [TIMES]
   Each function is called TIMES times with 0, 1, 2, …; main adds up what they return. Compiled with -O2. */
#include "program.h"
#include <string.h>

static volatile long sink;

/* Calls nothing. */
NOINLINE long leaf(long n)
{
    return n * 3;
}

/* Calls something, and returns in one place. */
NOINLINE long plain(long n)
{
    sink = leaf(n) + 1;
    return sink + n;
}

/* Ends by a jump to a function of this file. */
NOINLINE long tail(long n)
{
    sink = leaf(n);
    return plain(n + 1);
}

/* Ends by a jump to another library's function, which is only left by its return. */
NOINLINE char *copies(char *to, const char *from)
{
    sink = leaf(1);
    return strcpy(to, from);
}

/* Ends by a jump through a pointer. */
NOINLINE long through(long (*function)(long), long n)
{
    sink = leaf(n);
    return function(n);
}

/* Jumps to another function, or goes on, by a condition. */
long maybe(long n);
__asm__(".text\n.globl maybe\n.type maybe,@function\nmaybe: test $1,%dil\njne plain\nlea 7(%rdi),%rax\nret\n.size maybe,.-maybe");

/* Is a single instruction, at which it begins and ends. */
void nothing(void);
__asm__(".text\n.globl nothing\n.type nothing,@function\nnothing: ret\n.size nothing,.-nothing");

/* Cannot be decoded: there is data within it. */
void data(void);
__asm__(".text\n.globl data\n.type data,@function\ndata: jmp 1f\n.byte 6,6,6\n1: ret\n.size data,.-data");

int main(int argc, char **argv)
{
    long times = number(argc, argv, 1, 97), sum = 0;
    char text[16];
    await_go();
    for (long i = 0; i < times; i++) {
        sum += leaf(i) + plain(i) + tail(i) + through(plain, i) + maybe(i) + *copies(text, "abc");
        nothing();
        data();
    }
    printf("%ld\n", sum);
    return 0;
}
