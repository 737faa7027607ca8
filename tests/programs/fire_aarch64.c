/* Loads a provider file and fires each probe once: twelve operands 1, 2, … 12, seen at the site by the arguments of
 * its note. Prints the site's address in the file, its first instruction, and what the registers and the stack hold.
 *
 * usage: fire_aarch64 FILE SYMBOL…
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

typedef void stub(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                  uint64_t, uint64_t);

__attribute__((visibility("hidden"))) uint64_t seen[12];

/* Stands where a tracer would look: the nop is replaced by a jump to here. */
void look(void);
__asm__(".text\n.balign 4\nlook:\n\t"
        "adrp x9, seen\n\tadd x9, x9, :lo12:seen\n\t"
        "stp x0, x1, [x9]\n\tstp x2, x3, [x9, 16]\n\tstp x4, x5, [x9, 32]\n\tstp x6, x7, [x9, 48]\n\t"
        "ldp x10, x11, [sp]\n\tstp x10, x11, [x9, 64]\n\tldp x10, x11, [sp, 16]\n\tstp x10, x11, [x9, 80]\n\tret\n");

int main(int count, char **arguments) {
    void *library = dlopen(arguments[1], RTLD_NOW);
    if (!library) {
        puts(dlerror());
        return 1;
    }
    for (int at = 2; at < count; at++) {
        uint32_t *site = dlsym(library, arguments[at]);
        Dl_info info;
        if (!site || !dladdr(site, &info)) return 2;
        stub *fire = (stub *)site;
        fire(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12); /* nobody traces */
        printf("%s %#lx %08x", arguments[at], (unsigned long)((char *)site - (char *)info.dli_fbase), site[0]);
        char *page = (char *)((uintptr_t)site & -65536ul);
        if (mprotect(page, 65536, PROT_READ | PROT_WRITE | PROT_EXEC)) return 3;
        /* ldr x9, [pc, 8]; br x9; the address: over the stub and what fills up to the next one */
        uint32_t code[4] = {0x58000049, 0xd61f0120};
        void (*target)(void) = look;
        memcpy(code + 2, &target, sizeof target);
        memcpy(site, code, sizeof code);
        __builtin___clear_cache((char *)site, (char *)site + sizeof code);
        fire(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
        for (int operand = 0; operand < 12; operand++) printf(" %lu", (unsigned long)seen[operand]);
        puts("");
    }
    return 0;
}
