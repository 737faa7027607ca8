/* Does what it is told, when it is told: each line of its input is a number N. It fires step:plain(i, text) and, N times as
   well, step:guarded(i), which has a semaphore, and calls work(i); then it prints "fired N guarded M", where M is how
   often the semaphore was raised. It ends with its input. */
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
#include <string.h>
#include "program.h"

__extension__ volatile unsigned short step_guarded_semaphore __attribute__((section(".probes"), used));
__extension__ volatile unsigned short step_plain_semaphore __attribute__((section(".probes"), used));

NOINLINE long work(long i)
{
    __asm__ volatile("" : : "r"(i));
    return -i;
}

int main(void)
{
    char line[32];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long times = strtol(line, NULL, 10), raised = 0;
        for (long i = 0; i < times; i++) {
            char text[32];
            snprintf(text, sizeof text, "customer %ld", i);
            DTRACE_PROBE2(step, plain, i, text);
            if (step_guarded_semaphore) {
                raised++;
                DTRACE_PROBE1(step, guarded, i);
            }
            work(i);
        }
        printf("fired %ld guarded %ld\n", times, raised);
        fflush(stdout);
    }
    return 0;
}
