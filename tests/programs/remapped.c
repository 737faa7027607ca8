/* Fires pages:hot(i) from a page of its own when it is told, 997 times. Before it says "ready" it does to that page what
   its argument asks: "copied" puts anonymous memory with the same code in its place, as programs do for huge pages,
   "writable" makes it writable too. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/sdt.h>

#include "program.h"

#define PAGE 4096

__attribute__((noinline, aligned(PAGE), section(".hot"))) void hot(long i) { DTRACE_PROBE1(pages, hot, i); }
__attribute__((used, section(".hot"))) static void rest_of_the_page(void) { __asm__ volatile(".fill 4096, 1, 0x90"); }

int main(int argc, char **argv)
{
    char *page = (char *)((uintptr_t)hot & -(uintptr_t)PAGE);
    if (argc > 1 && !strcmp(argv[1], "copied")) {
        char *copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(copy, page, PAGE);
        mprotect(copy, PAGE, PROT_READ | PROT_EXEC);
        mremap(copy, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page);
    }
    if (argc > 1 && !strcmp(argv[1], "writable"))
        mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    await_go();
    for (long i = 0; i < 997; i++)
        hot(i);
    printf("done\n");
    fflush(stdout);
    await_go();
    return 0;
}
