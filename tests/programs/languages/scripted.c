/* Fires what a perl or a tclsh that was built with probes fires, where Debian's were not: 997 calls of branch, each with
   one of leaf in it. -DTCL for Tcl's, else Perl's. */
#include <sys/sdt.h>
#include "program.h"

#ifdef TCL
#define ENTER(name) DTRACE_PROBE3(tcl, proc__entry, name, 1, &objects)
#define LEAVE(name) DTRACE_PROBE2(tcl, proc__return, name, 0)
#else
#define ENTER(name) DTRACE_PROBE4(perl, sub__entry, name, "shop.pl", 7, "Order")
#define LEAVE(name) DTRACE_PROBE4(perl, sub__return, name, "shop.pl", 7, "Order")
#endif

int main(void)
{
    static void *objects;
    await_go();
    for (int n = 0; n < 997; n++) {
        ENTER("branch");
        ENTER("leaf");
        LEAVE("leaf");
        LEAVE("branch");
#ifdef TCL
        DTRACE_PROBE1(tcl, obj__create, &objects);
#endif
    }
    (void)objects;
    printf("done\n");
    fflush(stdout);
    await_go();
    return 0;
}
