/* Calls as a perl with probes tells of them, but of names that nobody would think of: 13 times each. Then it ends within
   a call. */
#include <string.h>
#include <sys/sdt.h>
#include "program.h"

#define ENTER(package, sub) DTRACE_PROBE4(perl, sub__entry, sub, "shop.pl", 7, package)
#define LEAVE(package, sub) DTRACE_PROBE4(perl, sub__return, sub, "shop.pl", 7, package)

static char one[304], two[304];

static void call(const char *package, const char *sub)
{
    ENTER(package, sub);
    LEAVE(package, sub);
}

int main(void)
{
    memset(one, 'p', 300);
    memset(two, 'p', 300);
    strcpy(one + 300, "One");
    strcpy(two + 300, "Two");
    await_go();
    for (int n = 0; n < 13; n++) {
        LEAVE("Order", "unheard"); /* of which no beginning was told */
        call("Order", "\033[31m;red\nline");
        call("[a-z]*?", "caf\351");
        call(one, "leaf");
        call(two, "leaf");
        call("", "plain");
        call((char *)8, (char *)0);
        ENTER("Order", "outer");
        ENTER("Order", "died"); /* left by an exception, which tells of no return */
        LEAVE("Order", "outer");
    }
    ENTER("Order", "last");
    return 0;
}
