/* Loads a library when it is told, and calls its function hit N times, with a pause of U microseconds after each:
   loads LIBRARY [N [U]]. It prints how often hit said yes, then waits for another line. */
#include <dlfcn.h>
#include <unistd.h>

#include "program.h"

int main(int argc, char **argv)
{
    long raised = 0, times = number(argc, argv, 2, 997), pause = number(argc, argv, 3, 0);
    await_go();
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library)
        return 1;
    int (*hit)(int) = (int (*)(int))dlsym(library, "hit");
    for (int i = 0; i < times; i++) {
        raised += hit(i);
        if (pause)
            usleep((useconds_t)pause);
    }
    printf("raised %ld of %ld\n", raised, times);
    await_go();
    return 0;
}
