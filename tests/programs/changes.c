/* A process that does not stay what it is. Each line of its input is a command, answered by a line:
     call N     calls step_in(i) N times                        "called N"
     fork N     a child calls step_in(i) N times                "called N" of the child
     exec PATH  becomes that program, which says "ready"
     open PATH  loads a library                                 "opened"
     tick N     calls its tick(i) N times                       "ticked N"
     close      unloads it                                      "closed"
   Link with -ldl. With -DLIBRARY, -shared and -fPIC it is the library. */
#include "program.h"

#ifdef LIBRARY
long tick(long i) { return i + 1; }
#else
#include <dlfcn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long sum;

NOINLINE void step_in(long i) { sum += i; }

static void call(long times)
{
    for (long i = 0; i < times; i++)
        step_in(i);
    printf("called %ld\n", times);
    fflush(stdout);
}

int main(void)
{
    char line[512], word[8], rest[500];
    void *library = NULL;
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long times;
        rest[0] = 0;
        if (sscanf(line, "%7s %499s", word, rest) < 1)
            return 2;
        times = strtol(rest, NULL, 10);
        if (!strcmp(word, "call")) {
            call(times);
        } else if (!strcmp(word, "fork")) {
            pid_t child = fork();
            if (child == 0) {
                call(times);
                _exit(0);
            }
            waitpid(child, NULL, 0);
        } else if (!strcmp(word, "exec")) {
            execl(rest, rest, (char *)NULL);
            return 3;
        } else if (!strcmp(word, "open")) {
            library = dlopen(rest, RTLD_NOW);
            puts(library ? "opened" : dlerror());
        } else if (!strcmp(word, "tick")) {
            long (*tick)(long) = (long (*)(long))dlsym(library, "tick");
            for (long i = 0; i < times; i++)
                sum += tick(i);
            printf("ticked %ld\n", times);
        } else if (!strcmp(word, "close")) {
            dlclose(library);
            puts("closed");
        }
        fflush(stdout);
    }
    return 0;
}
#endif
