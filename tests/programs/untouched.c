/* Fires once with a string in a page of constants that it never reads itself. */
#include <sys/sdt.h>
#include "program.h"

/* A page of its own: whatever else is constant shares none with it. */
static const char page[3][4096] __attribute__((aligned(4096))) = {"", "a string that nobody has read", ""};
static const struct { char filler[4090]; char text[4096]; } across __attribute__((aligned(4096))) = {"", "from one page into the next"};

int main(void)
{
    await_go();
    DTRACE_PROBE2(lab, untouched, page[1], across.text);
    return 0;
}
