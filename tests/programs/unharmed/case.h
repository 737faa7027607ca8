/* The manners of the programs of tests/kernel/test_unharmed.py: PROGRAM CASE
   It says "ready" and waits for a line, so that a tracer can attach first; in the middle of a traced function it says
   "inside" and waits for a line, so that a tracer can attach or detach there. What it says besides is the same in every
   run. "calls NAME ENTERED RETURNED" names a function to trace, and says how often it was called and came back;
   "traces NAME" names one whose calls nobody counts.
   Only read(2) and write(2) are used, so that nothing depends on the state of stdio. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __cplusplus
#define TRACED extern "C" __attribute__((noinline, noclone))
#else
#define TRACED __attribute__((noinline, noclone))
#endif
/* Keeps a call before it from becoming a jump, and the compiler from knowing what a function returns. */
#define KEEP(value) __asm__ volatile("" : "+r"(value) : : "memory")

struct calls { const char *name; long entered, returned; };
#define COUNTED(function) static struct calls function##_calls = {#function, 0, 0}
/* Not by a constant: a function that began with `lock` could not be probed. */
#define COUNT(counter) do { long one = 1; KEEP(one); __atomic_add_fetch(&(counter), one, __ATOMIC_RELAXED); } while (0)
#define ENTER(function) COUNT(function##_calls.entered)
#define LEAVE(function) COUNT(function##_calls.returned)
#define TELL(function) say("calls %s %ld %ld\n", function##_calls.name, function##_calls.entered, function##_calls.returned)

static __attribute__((unused, format(printf, 1, 2))) void say(const char *format, ...)
{
    char text[256];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (write(1, text, length) != length)
        _exit(99);
}

/* Waits for a line, or the end, of its input. */
static __attribute__((unused)) void await_line(void)
{
    char c;
    for (;;) {
        ssize_t got = read(0, &c, 1);
        if (got == 0 || (got == 1 && c == '\n'))
            return;
        if (got < 0 && errno != EINTR)
            _exit(98);
    }
}

/* To be called in the middle of a traced function; waits the first time only. */
static __attribute__((unused, noinline)) void pause_inside(void)
{
    static int paused;
    if (__atomic_exchange_n(&paused, 1, __ATOMIC_RELAXED))
        return;
    if (write(1, "inside\n", 7) != 7)
        _exit(97);
    await_line();
}

struct test_case { const char *name; void (*run)(void); };

/* Runs the case that the command line names; the caller's main returns what this does. */
static __attribute__((unused)) int run_case(int argc, char **argv, const struct test_case *cases)
{
    for (; argc == 2 && cases->name; cases++)
        if (!strcmp(cases->name, argv[1])) {
            say("ready\n");
            await_line();
            cases->run();
            say("done\n");
            return 42;
        }
    fprintf(stderr, "usage: %s CASE\n", argv[0]);
    return 96;
}
