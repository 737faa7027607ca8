/* A process that becomes another program in the middle of a call. What the new one does, its files do not tell: it jumps
   out of functions. See case.h. */
#include "case.h"

TRACED int replaces(const char *script)
{
    pause_inside();
    say("traces replaces\n");
    return execlp("sh", "sh", "-c", script, NULL);
}

static void run_exec(void)
{
    say("failed %d\n", replaces("for n in 1 2 3; do (exit $n) || echo left with $?; done; exit 7"));
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {{"exec", run_exec}, {NULL, NULL}};
    return run_case(argc, argv, cases);
}
