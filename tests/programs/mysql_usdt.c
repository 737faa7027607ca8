/* A server's query loop with the probes that MySQL 5.7 carries: mysql_usdt [QUERIES [MICROSECONDS]]
   Query I is "select I from stock", sent by connection 7, and takes at least the time given. Every 10th is followed by the
   execution of a prepared statement, for which there is no such probe. Prints "queries N traced M": M of them ran with the
   semaphore of query__start raised. */
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
#include <unistd.h>
#include "program.h"

#define SEMAPHORE(name) __extension__ volatile unsigned short name __attribute__((section(".probes"), used))
SEMAPHORE(mysql_query__start_semaphore);
SEMAPHORE(mysql_query__done_semaphore);
SEMAPHORE(mysql_command__start_semaphore);

int main(int argc, char **argv)
{
    long queries = number(argc, argv, 1, 997), microseconds = number(argc, argv, 2, 0);
    long traced = 0;
    await_go();
    for (long i = 0; i < queries; i++) {
        char text[64];
        snprintf(text, sizeof text, "select %ld from stock", i);
        traced += mysql_query__start_semaphore != 0;
        DTRACE_PROBE5(mysql, query__start, text, 7ul, "shop", "ada", "localhost");
        if (microseconds)
            usleep(microseconds);
        DTRACE_PROBE1(mysql, query__done, i % 10 == 9 ? 1 : 0);
        if (i % 10 == 9)
            DTRACE_PROBE4(mysql, command__start, 7ul, 23, "ada", "localhost");
    }
    printf("queries %ld traced %ld\n", queries, traced);
    return 0;
}
