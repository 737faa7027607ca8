/* Allocates in known ways, in known functions: heap WAY [TIMES [THREADS]]
   leak       leaky(): TIMES blocks of 31 bytes that stay; tidy(): as many of 101 that are freed
   threads    THREADS threads leak() as above, and free what another has allocated
   kinds      of each function of the family one block that stays: family()
   realloc    grown(): TIMES blocks of 16 bytes become 997 bytes, which stay; moved(): to 0 bytes; refused(): too much
   large      big(): TIMES blocks of 1 MiB, which malloc maps; mapped(): 3 mappings of 8192 bytes, one is unmapped
   wait       leak, then waits for a second line
   Prints "kept BLOCKS BYTES". */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include "program.h"

static long times, kept_blocks, kept_bytes;
static void **others;
static volatile size_t too_much = (size_t)1 << 62;

NOINLINE void *keep(void *block, size_t size)
{
    if (!block)
        exit(2);
    *(volatile char *)block = 1;
    __atomic_fetch_add(&kept_blocks, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&kept_bytes, size, __ATOMIC_SEQ_CST);
    return block;
}

NOINLINE void leaky(void)
{
    for (long i = 0; i < times; i++)
        keep(malloc(31), 31);
}

NOINLINE void tidy(void)
{
    for (long i = 0; i < times; i++) {
        volatile char *block = malloc(101);
        block[0] = 1;
        free((void *)block);
    }
}

NOINLINE void family(void)
{
    void *aligned;
    keep(malloc(11), 11);
    keep(calloc(3, 13), 39);
    keep(realloc(NULL, 17), 17);
    keep(reallocarray(NULL, 5, 19), 95);
    if (posix_memalign(&aligned, 64, 23))
        exit(2);
    keep(aligned, 23);
    keep(aligned_alloc(64, 192), 192);
    keep(memalign(32, 29), 29);
    keep(valloc(37), 37);
    keep(pvalloc(41), 41);
}

NOINLINE void grown(void)
{
    for (long i = 0; i < times; i++)
        keep(realloc(malloc(16), 997), 997);
}

NOINLINE void moved(void)
{
    for (long i = 0; i < times; i++)
        if (realloc(malloc(43), 0))
            exit(2);
}

NOINLINE void refused(void)
{
    void *block = keep(malloc(47), 47);
    if (realloc(block, too_much))
        exit(2);
}

NOINLINE void big(void)
{
    for (long i = 0; i < times; i++)
        keep(malloc(1 << 20), 1 << 20);
}

NOINLINE void mapped(void)
{
    for (int i = 0; i < 3; i++) {
        void *place = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (i == 1)
            munmap(place, 8192);
        else
            keep(place, 8192);
    }
}

static void *worker(void *argument)
{
    long number = (long)argument;
    leaky();
    tidy();
    free(__atomic_exchange_n(&others[number], NULL, __ATOMIC_SEQ_CST));
    return NULL;
}

NOINLINE void threads(long count)
{
    pthread_t *ids = malloc(count * sizeof *ids);
    others = malloc(count * sizeof *others);
    for (long t = 0; t < count; t++)
        others[t] = malloc(53);
    for (long t = 0; t < count; t++)
        pthread_create(&ids[t], NULL, worker, (void *)t);
    for (long t = 0; t < count; t++)
        pthread_join(ids[t], NULL);
    free(ids);
    free(others);
}

int main(int argc, char **argv)
{
    char *way = argc > 1 ? argv[1] : "leak";
    times = number(argc, argv, 2, 997);
    await_go();
    if (!strcmp(way, "threads")) {
        threads(number(argc, argv, 3, 4));
    } else if (!strcmp(way, "kinds")) {
        family();
    } else if (!strcmp(way, "realloc")) {
        grown();
        moved();
        refused();
    } else if (!strcmp(way, "large")) {
        big();
        mapped();
    } else {
        leaky();
        tidy();
    }
    printf("kept %ld %ld\n", kept_blocks, kept_bytes);
    fflush(stdout);
    await_go();
    return 0;
}
