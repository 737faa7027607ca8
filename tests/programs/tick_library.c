/* A library whose function fires tick:hit(i), which has a semaphore, and says how often that was raised. */
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

__extension__ volatile unsigned short tick_hit_semaphore __attribute__((section(".probes"), used));

int hit(int i)
{
    if (!tick_hit_semaphore)
        return 0;
    DTRACE_PROBE1(tick, hit, i);
    return 1;
}
