/* work() under callers whose frames lie in a page that is taken out of the page table before each call. */
#define _GNU_SOURCE
#include "program.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STACK = 1 << 18, PAGE = 4096 };

NOINLINE void work(int n) { __asm__ volatile("" ::"r"(n)); }

static char *low, *high;

NOINLINE void inner(int n) {
    char here;
    char *from = (char *)(((uintptr_t)&here + 2 * PAGE) & ~(uintptr_t)(PAGE - 1));
    if (from < low || madvise(from, (size_t)(high - from), MADV_DONTNEED)) abort();
    work(n);
}

NOINLINE void outer(int n) {
    char room[4 * PAGE];
    __asm__ volatile("" ::"r"(room) : "memory");
    inner(n);
}

NOINLINE void *thread(void *nothing) {
    for (int i = 0; i < 997; i++) outer(i);
    return nothing;
}

int main(void) {
    pthread_attr_t attributes;
    pthread_t id;
    int file = memfd_create("stack", 0); /* its pages stay in the file */
    if (file < 0 || ftruncate(file, STACK)) return 1;
    low = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    high = low + STACK;
    if (low == MAP_FAILED || pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, low, STACK)) return 1;
    await_go();
    if (pthread_create(&id, &attributes, thread, NULL) || pthread_join(id, NULL)) return 1;
    puts("done");
    fflush(stdout);
    await_go();
    return 0;
}
