/* Stacks that are switched by a few instructions of the program's own, as coroutine libraries do: nothing in the file's
   imports tells. See case.h. */
#include "case.h"
#include <stdint.h>

/* Saves what a call must keep on this stack, and goes on where `to` was left. */
void switch_stack(void **from, void *to);
__asm__(".text\n"
        ".type switch_stack, @function\n"
        "switch_stack:\n"
        "    .cfi_startproc\n"
        "    push %rbp\n    .cfi_adjust_cfa_offset 8\n"
        "    push %rbx\n    .cfi_adjust_cfa_offset 8\n"
        "    push %r12\n    .cfi_adjust_cfa_offset 8\n"
        "    push %r13\n    .cfi_adjust_cfa_offset 8\n"
        "    push %r14\n    .cfi_adjust_cfa_offset 8\n"
        "    push %r15\n    .cfi_adjust_cfa_offset 8\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n     .cfi_adjust_cfa_offset -8\n"
        "    pop %r14\n     .cfi_adjust_cfa_offset -8\n"
        "    pop %r13\n     .cfi_adjust_cfa_offset -8\n"
        "    pop %r12\n     .cfi_adjust_cfa_offset -8\n"
        "    pop %rbx\n     .cfi_adjust_cfa_offset -8\n"
        "    pop %rbp\n     .cfi_adjust_cfa_offset -8\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size switch_stack, . - switch_stack\n");

#define ROUTINES 3
static void *main_stack, *stacks[ROUTINES];
static int current;
static long finished, wrong;

COUNTED(yield);
TRACED void yield(void)
{
    ENTER(yield);
    int from = current;
    current = (current + 1) % ROUTINES;
    if (current == 2)
        pause_inside();
    switch_stack(&stacks[from], stacks[current]);
    current = from;
    LEAVE(yield);
}

COUNTED(nested);
TRACED long nested(long depth)
{
    ENTER(nested);
    long result = 0;
    if (depth)
        result = nested(depth - 1) + 1;
    else
        yield();
    KEEP(result);
    LEAVE(nested);
    return result;
}

static void routine(void)
{
    for (int n = 0; n < 97; n++)
        wrong += nested(n) != n;
    void *done;
    if (++finished == ROUTINES)
        switch_stack(&done, main_stack);
    for (;;)
        yield();
}

static void run_switch(void)
{
    for (int i = 0; i < ROUTINES; i++) {
        uintptr_t *top = (uintptr_t *)((char *)aligned_alloc(16, 1 << 17) + (1 << 17));
        top -= 2; /* of a call: 8 below a multiple of 16 */
        top[0] = (uintptr_t)routine;
        top[1] = 0;
        stacks[i] = top - 6;
        memset(stacks[i], 0, 6 * sizeof *top);
    }
    switch_stack(&main_stack, stacks[0]);
    say("finished %ld, wrong %ld\n", finished, wrong);
    TELL(nested);
    say("traces yield\ntraces switch_stack\n");
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {{"switch", run_switch}, {NULL, NULL}};
    return run_case(argc, argv, cases);
}
