/* Exceptions that pass through functions. See case.h. */
#include "case.h"
#include <exception>
#include <memory>
#include <search.h>
#include <signal.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static long destroyed;
struct Guard {
    ~Guard() { __atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED); }
};

COUNTED(inner);
COUNTED(middle);
TRACED long inner(long n)
{
    ENTER(inner);
    if (n == 1)
        pause_inside();
    if (n % 2)
        throw std::runtime_error("odd " + std::to_string(n));
    KEEP(n);
    LEAVE(inner);
    return n;
}

TRACED long middle(long n)
{
    ENTER(middle);
    long result = inner(n) + 1;
    KEEP(result);
    LEAVE(middle);
    return result;
}

static void run_caught_above()
{
    for (long n = 0; n < 4; n++)
        try {
            say("%ld\n", middle(n));
        } catch (const std::exception &error) {
            say("caught %s\n", error.what());
        }
    TELL(middle);
    TELL(inner);
}

static void run_through()
{
    long whole = 0, left = 0;
    for (long n = 0; n < 100; n++)
        try {
            whole += middle(n) == n + 1;
        } catch (const std::runtime_error &) {
            left++;
        }
    say("whole %ld, left %ld\n", whole, left);
    TELL(middle);
    TELL(inner);
}

/* What catches and throws again, with destructors on the way. */
COUNTED(deepest);
COUNTED(again);
COUNTED(outermost);
TRACED long deepest(long n)
{
    ENTER(deepest);
    Guard guard;
    pause_inside();
    if (n % 4 == 1)
        throw std::runtime_error("one");
    if (n % 4 == 3)
        throw n;
    LEAVE(deepest);
    return n;
}

TRACED long again(long n)
{
    ENTER(again);
    Guard guard;
    long result;
    try {
        result = deepest(n);
    } catch (const std::runtime_error &) {
        throw;
    } catch (long thrown) {
        result = -thrown;
    }
    KEEP(result);
    LEAVE(again);
    return result;
}

TRACED long outermost(long n)
{
    ENTER(outermost);
    Guard guard;
    long result;
    try {
        result = again(n);
    } catch (const std::runtime_error &error) {
        if (n % 8 == 5)
            std::throw_with_nested(std::logic_error("outer"));
        result = -100;
    }
    KEEP(result);
    LEAVE(outermost);
    return result;
}

static void run_rethrow()
{
    long sum = 0, nested = 0;
    for (long n = 0; n < 48; n++)
        try {
            sum += outermost(n);
        } catch (const std::logic_error &error) {
            try {
                std::rethrow_if_nested(error);
            } catch (const std::runtime_error &) {
                nested++;
            }
        }
    say("sum %ld, nested %ld, destroyed %ld\n", sum, nested, destroyed);
    TELL(deepest);
    TELL(again);
    TELL(outermost);
}

/* Further down than the 64 pending returns that the kernel keeps of a thread. */
COUNTED(down);
TRACED long down(long levels)
{
    ENTER(down);
    Guard guard;
    long result = 0;
    if (levels > 0)
        result = down(levels - 1) + 1;
    else {
        pause_inside();
        throw 7L;
    }
    KEEP(result);
    LEAVE(down);
    return result;
}

static void run_deep()
{
    long caught = 0;
    for (int n = 0; n < 31; n++)
        try {
            down(199);
        } catch (long thrown) {
            caught += thrown == 7;
        }
    say("caught %ld, destroyed %ld\n", caught, destroyed);
    TELL(down);
}

/* Functions of the C library that call back, and are left from there. */
COUNTED(compare);
TRACED int compare(const void *a, const void *b)
{
    ENTER(compare);
    if (*(const int *)a == -1 || *(const int *)b == -1)
        throw std::runtime_error("no number");
    int result = *(const int *)a - *(const int *)b;
    pause_inside();
    LEAVE(compare);
    return result;
}

static void run_sort()
{
    int whole = 0, left = 0;
    for (int n = 0; n < 20; n++) {
        int numbers[16];
        for (int i = 0; i < 16; i++)
            numbers[i] = n % 2 && i == 11 ? -1 : i * 7 % 16;
        try {
            qsort(numbers, 16, sizeof *numbers, compare);
            whole++;
        } catch (const std::runtime_error &) {
            left++;
        }
    }
    say("whole %d, left %d\n", whole, left);
    TELL(compare);
    say("calls c:qsort 20 10\n");
}

static void run_through_c()
{
    int numbers[16], found = 0, left = 0;
    void *root = NULL;
    for (int i = 0; i < 16; i++) {
        numbers[i] = i;
        tsearch(&numbers[i], &root, compare);
    }
    for (int n = 0; n < 20; n++) {
        int key = n % 2 ? -1 : n % 16;
        size_t number = 16;
        try {
            found += tfind(&key, &root, compare) != NULL;
        } catch (const std::runtime_error &) {
            left++;
        }
        try {
            found += lfind(&key, numbers, &number, sizeof *numbers, compare) != NULL;
        } catch (const std::runtime_error &) {
            left++;
        }
    }
    say("found %d, left %d\n", found, left);
    TELL(compare);
    say("calls c:tsearch 16 16\ncalls c:tfind 20 10\ncalls c:lfind 20 10\n");
}

/* Constructors and destructors of what was half made. */
struct Part {
    static long made, destroyed;
    __attribute__((noinline)) explicit Part(long n)
    {
        if (n % 7 == 6)
            throw std::runtime_error("part");
        made++;
    }
    __attribute__((noinline)) ~Part() { destroyed++; }
};
long Part::made, Part::destroyed;

struct Whole {
    std::unique_ptr<Part> first;
    Part second, third;
    __attribute__((noinline)) explicit Whole(long n) try : first(new Part(n)), second(n + 1), third(n + 2) {
        KEEP(n);
    } catch (const std::runtime_error &) {
        say(n < 14 ? "unmade %ld\n" : "", n);
    }
    /* What it throws does not leave it. */
    __attribute__((noinline)) ~Whole()
    {
        try {
            middle(1);
        } catch (const std::runtime_error &) {
            second.destroyed += 0;
        }
    }
};

COUNTED(makes);
TRACED long makes(long n)
{
    ENTER(makes);
    Whole whole(n);
    std::vector<Part> parts;
    parts.emplace_back(n + 3);
    LEAVE(makes);
    return n;
}

static void run_constructors()
{
    long made = 0, left = 0;
    for (long n = 0; n < 70; n++)
        try {
            made += makes(n) == n;
        } catch (const std::runtime_error &) {
            left++;
        }
    say("made %ld, left %ld; parts %ld, destroyed %ld\n", made, left, Part::made, Part::destroyed);
    TELL(makes);
    TELL(middle);
    TELL(inner);
    say("traces _ZN4Part*\ntraces _ZN5Whole*\n");
}

/* Nobody catches it: the end is abort, after a message. */
static void run_uncaught()
{
    say("traces middle\ntraces inner\n");
    middle(1);
}

static void leave_terminated()
{
    say("terminated\n");
    _exit(15);
}

COUNTED(promises);
TRACED long promises(long n) noexcept
{
    ENTER(promises);
    TELL(promises);
    long result = middle(n);
    LEAVE(promises);
    return result;
}

static void run_noexcept()
{
    std::set_terminate(leave_terminated);
    promises(1);
}

/* A thread catches what another has thrown. */
static void run_exception_ptr()
{
    long caught = 0;
    for (int n = 0; n < 31; n++) {
        std::exception_ptr thrown;
        std::thread thread([&] {
            try {
                middle(1);
            } catch (...) {
                thrown = std::current_exception();
            }
        });
        thread.join();
        try {
            std::rethrow_exception(thrown);
        } catch (const std::runtime_error &error) {
            caught += std::string(error.what()) == "odd 1";
        }
    }
    say("caught %ld\n", caught);
    TELL(middle);
    TELL(inner);
}

/* A signal that becomes an exception, which -fnon-call-exceptions allows: it leaves the handler and its frame. */
static void throw_from_signal(int)
{
    throw std::runtime_error("signal");
}

COUNTED(faults);
TRACED long faults(long n)
{
    ENTER(faults);
    volatile long *where = n % 2 ? (volatile long *)8 : &n;
    __asm__ volatile("" : "+r"(where));
    if (n == 2)
        pause_inside();
    long result = *where;
    LEAVE(faults);
    return result;
}

/* The same of a function that calls nothing. */
TRACED long reads(const volatile long *where)
{
    return *where;
}

static void run_signal()
{
    long whole = 0, left = 0, number = 3;
    struct sigaction action = {};
    action.sa_handler = throw_from_signal;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, NULL);
    for (long n = 0; n < 97; n++)
        try {
            whole += faults(n) == n;
        } catch (const std::runtime_error &) {
            left++;
        }
    for (long n = 0; n < 97; n++)
        try {
            whole += reads(n % 2 ? (const long *)8 : &number) == 3;
        } catch (const std::runtime_error &) {
            left++;
        }
    say("whole %ld, left %ld\n", whole, left);
    TELL(faults);
    say("calls reads 97 49\n");
}

static void run_threads()
{
    std::vector<std::thread> threads;
    long caught[8] = {}, sum = 0;
    for (auto &count : caught)
        threads.emplace_back([&count] {
            for (long n = 2; n < 499; n++)
                try {
                    middle(n);
                } catch (const std::runtime_error &) {
                    count++;
                }
        });
    try {
        middle(1);
    } catch (const std::runtime_error &) {
        sum++;
    }
    for (auto &thread : threads)
        thread.join();
    for (long count : caught)
        sum += count;
    say("caught %ld\n", sum);
    TELL(middle);
    TELL(inner);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"caught_above", run_caught_above}, {"through", run_through}, {"rethrow", run_rethrow}, {"deep", run_deep},
        {"sort", run_sort}, {"through_c", run_through_c}, {"constructors", run_constructors}, {"uncaught", run_uncaught},
        {"noexcept", run_noexcept}, {"exception_ptr", run_exception_ptr}, {"signal", run_signal}, {"threads", run_threads},
        {NULL, NULL},
    };
    return run_case(argc, argv, cases);
}
