/* What the files of usdtkit._python share: the probes by number, their sites, and how one is fired.
 *
 *   python.c           where the sites are; the module
 *   python_watcher.c   a thread that sees tracers come and go, and has the hooks set for what is traced
 *   python_hooks.c     functions, lines, exceptions and calls of C functions → fires, by the interpreter's hooks
 *   python_events.c    imports, threads, collections, audited events and objects → fires, by callbacks and stand-ins
 *   python_wraps.c     functions of libraries, also in types that are written in C → stand-ins that measure them
 *
 * All names here are hidden, so that a call from one file to another is a direct one, without a procedure linkage
 * table.
 */

#ifndef USDTKIT_PYTHON_H
#define USDTKIT_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#pragma GCC visibility push(hidden)

#define PROBES(each)                                                                                                  \
    each(FUNCTION_ENTRY, "function__entry") each(FUNCTION_RETURN, "function__return") each(LINE, "line")              \
    each(GC_START, "gc__start") each(GC_DONE, "gc__done")                                                             \
    each(IMPORT_START, "import__find__load__start") each(IMPORT_DONE, "import__find__load__done")                     \
    each(AUDIT, "audit")                                                                                              \
    each(EXCEPTION_RAISE, "exception__raise") each(EXCEPTION_UNWIND, "exception__unwind")                             \
    each(EXCEPTION_HANDLED, "exception__handled")                                                                     \
    each(GENERATOR_RESUME, "generator__resume") each(GENERATOR_YIELD, "generator__yield")                             \
    each(COROUTINE_RESUME, "coroutine__resume") each(COROUTINE_YIELD, "coroutine__yield")                             \
    each(CFUNCTION_CALL, "cfunction__call") each(CFUNCTION_RETURN, "cfunction__return")                               \
    each(CFUNCTION_RAISE, "cfunction__raise")                                                                         \
    each(THREAD_START, "thread__start") each(THREAD_STOP, "thread__stop")                                             \
    each(OBJECT_NEW, "object__new") each(OBJECT_DELETE, "object__delete")

#define NUMBER(number, name) number,
#define NAME(number, name) name,
enum probe { PROBES(NUMBER) COUNT };

typedef void stub6(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

/* The first byte of a site in memory, and what it is in the file. The two differ while a tracer is attached. The byte
 * in the file depends on the nop that the file was built with. */
struct site {
    const volatile uint8_t *byte; /* NULL until it is known */
    uint8_t pristine;
};

/* The probes of the provider `python`. A probe that the interpreter fires itself has a site and no stub, and one that
 * is not published has neither. `fired` is the counter of usdtkit._probe for it, which is there before the stub is. */
struct language_probe {
    struct site site;
    stub6 *stub;
    uint64_t *fired;
};
extern struct language_probe language_probes[COUNT];

/* The sites of other providers, which fire by themselves. They are numbered from COUNT on: one bit each in what is
 * traced. */
enum { MAX_PROBES = 64 };
extern struct site other_sites[MAX_PROBES - COUNT];
extern int other_site_count;

/* Whether this thread is just setting hooks. What it does then is not reported as an event of the program. */
extern __thread int setting_hooks __attribute__((tls_model("initial-exec")));

static inline int is_traced(const struct site *site) {
    const volatile uint8_t *byte = __atomic_load_n(&site->byte, __ATOMIC_ACQUIRE);
    return byte && *byte != site->pristine;
}

static inline int armed(enum probe probe) { return is_traced(&language_probes[probe].site); }

/* All six registers are set, because those that a probe does not use must not leak pointers of ours. */
static inline void fire(enum probe probe, const void *a, const void *b, int64_t c, const void *d) {
    stub6 *stub = language_probes[probe].stub;
    if (!stub) return;
    __atomic_fetch_add(language_probes[probe].fired, 1, __ATOMIC_RELAXED);
    stub((uintptr_t)a, (uintptr_t)b, (uint64_t)c, (uintptr_t)d, 0, 0);
}

/* The UTF-8 of a text without a copy: that of an ASCII string is the string itself, others keep theirs. */
static inline const char *utf8(PyObject *text) {
    const char *bytes = text && PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (bytes) return bytes;
    PyErr_Clear();
    return "<not UTF-8>";
}

/* Methods of the module that one of its files has; each table ends with an empty entry. */
extern PyMethodDef watcher_methods[], hook_methods[], event_methods[], wrap_methods[];

/* python_hooks.c */

/* Sets or removes the hooks of a thread before CPython 3.12, and does nothing from 3.12 on. */
int hook_thread(PyThreadState *thread);
/* Prepares the callbacks of sys.monitoring. Returns 0, or -1 with an exception. */
int init_hooks(void);

/* python_wraps.c */

/* Adds the type of the stand-ins. Returns 0, or -1 with an exception. */
int init_wraps(PyObject *module);

#pragma GCC visibility pop

#endif
