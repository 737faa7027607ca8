/* usdtkit._python: CPython's events → the probes of the provider `python`, and the thread that sees tracers come and go.
 *
 * In: the addresses of the sites, from usdtkit.instrument.python. Out: while a tracer is attached to a probe, the
 * interpreter's hooks call the functions here, which call the probe's stub with pointers into the interpreter's own
 * strings. While there is none, no hook is set: the watcher compares one byte of each site 20 times a second, without
 * the GIL, and calls back into Python when one has changed.
 *
 * All state is of the process, for the main interpreter. What callbacks read is written before they are registered.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>

#include <dlfcn.h>
#include <errno.h>
#include <fnmatch.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if PY_VERSION_HEX >= 0x030c0000
#define MONITORING 1
#define REQUEST_EXTRA PyUnstable_Eval_RequestCodeExtraIndex
#define GET_EXTRA PyUnstable_Code_GetExtra
#define SET_EXTRA PyUnstable_Code_SetExtra
#else
#define MONITORING 0
#define REQUEST_EXTRA _PyEval_RequestCodeExtraIndex
#define GET_EXTRA _PyCode_GetExtra
#define SET_EXTRA _PyCode_SetExtra
#if PY_VERSION_HEX >= 0x030b0000
#include <opcode.h>
#endif
#endif

#define LOOK_EVERY_NS 50000000
#define MAX_PATTERNS 32
#define WATCHER_STACK (1 << 20)

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
static const char *const names[] = {PROBES(NAME)};

typedef void stub6(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

/* A byte of code in memory, and what its file has there: they differ while a tracer is attached. Files differ in that
 * byte, as there is more than one nop. */
struct watched {
    const volatile uint8_t *byte;
    uint8_t pristine;
};

/* A probe that the interpreter fires itself has no stub of ours; one that is not published has neither. */
static struct {
    struct watched site;
    stub6 *stub;
} sites[COUNT];

/* Sites of other providers, which fire for themselves; their numbers go on after COUNT. */
#define BITS 64
static struct watched others[BITS - COUNT];
static int other_count;

/* This thread runs what belongs to the switching: no event of it is the program's. */
static __thread int ours __attribute__((tls_model("initial-exec")));

static inline int is_traced(const struct watched *site) {
    const volatile uint8_t *byte = __atomic_load_n(&site->byte, __ATOMIC_ACQUIRE);
    return byte && *byte != site->pristine;
}

/* The byte comes last: the watcher's thread looks at what has one. */
static void set_watched(struct watched *site, const void *byte, uint8_t pristine) {
    site->pristine = pristine;
    __atomic_store_n(&site->byte, (const volatile uint8_t *)byte, __ATOMIC_RELEASE);
}

static inline int armed(enum probe probe) { return is_traced(&sites[probe].site); }

/* What a probe does not use of the registers holds nothing of ours. */
static inline void fire(enum probe probe, const void *a, const void *b, int64_t c, const void *d) {
    if (sites[probe].stub) sites[probe].stub((uintptr_t)a, (uintptr_t)b, (uint64_t)c, (uintptr_t)d, 0, 0);
}

/* Without a copy: the UTF-8 of an ASCII string is the string, that of others is kept by it. */
static const char *utf8(PyObject *text) {
    const char *bytes = text && PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (bytes) return bytes;
    PyErr_Clear();
    return "<not UTF-8>";
}

/* Filters: code whose file matches one of `only` (when there are any) and none of `skip` */

static char *only[MAX_PATTERNS + 1], *skip[MAX_PATTERNS + 1];
static int filtered;

static int any_matches(char *const *patterns, const char *file) {
    for (; *patterns; patterns++)
        if (fnmatch(*patterns, file, 0) == 0) return 1;
    return 0;
}

static int decide(PyCodeObject *code) {
    const char *file = utf8(code->co_filename);
    return (!*only || any_matches(only, file)) && !any_matches(skip, file);
}

static int wanted(PyCodeObject *code) {
    if (!filtered) return 1;
#ifdef Py_GIL_DISABLED
    return decide(code); /* the room for what others know of a code object is not made for several threads */
#else
    enum { UNKNOWN, NO, YES };
    static Py_ssize_t room = -1;
    void *known = NULL;
    if (room < 0) room = REQUEST_EXTRA(NULL);
    if (room < 0 || GET_EXTRA((PyObject *)code, room, &known) < 0) {
        PyErr_Clear();
        return decide(code);
    }
    if ((intptr_t)known == UNKNOWN) {
        known = (void *)(intptr_t)(decide(code) ? YES : NO);
        if (SET_EXTRA((PyObject *)code, room, known) < 0) PyErr_Clear();
    }
    return (intptr_t)known == YES;
#endif
}

static int take_patterns(PyObject *given, char **patterns) {
    Py_ssize_t count = PyTuple_GET_SIZE(given);
    if (count > MAX_PATTERNS) {
        PyErr_Format(PyExc_ValueError, "at most %d patterns", MAX_PATTERNS);
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *pattern = PyTuple_GET_ITEM(given, at);
        const char *text = PyUnicode_Check(pattern) ? PyUnicode_AsUTF8(pattern) : NULL;
        if (!text) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a pattern must be a str");
            return -1;
        }
        if (!(patterns[at] = strdup(text))) {
            PyErr_NoMemory();
            return -1;
        }
        filtered = 1;
    }
    return 0;
}

static PyObject *filter(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *included, *excluded;
    if (!PyArg_ParseTuple(args, "O!O!:filter", &PyTuple_Type, &included, &PyTuple_Type, &excluded)) return NULL;
    if (filtered) {
        PyErr_SetString(PyExc_ValueError, "the filters are set");
        return NULL;
    }
    if (take_patterns(included, only) < 0 || take_patterns(excluded, skip) < 0) return NULL;
    Py_RETURN_NONE;
}

/* What is fired of a place in Python code */

static inline void fire_place(enum probe probe, PyCodeObject *code, int line) {
    fire(probe, utf8(code->co_filename), utf8(code->co_name), line, NULL);
}

static inline enum probe kind_of(PyCodeObject *code, enum probe generator, enum probe coroutine) {
    return code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE) ? coroutine : generator;
}

static void entered(PyCodeObject *code, int line, int resumed) {
    if (armed(FUNCTION_ENTRY)) fire_place(FUNCTION_ENTRY, code, line);
    enum probe kind = kind_of(code, GENERATOR_RESUME, COROUTINE_RESUME);
    if (resumed && armed(kind)) fire_place(kind, code, line);
}

static void left(PyCodeObject *code, int line, int yielded) {
    enum probe kind = kind_of(code, GENERATOR_YIELD, COROUTINE_YIELD);
    if (yielded && armed(kind)) fire_place(kind, code, line);
    if (armed(FUNCTION_RETURN)) fire_place(FUNCTION_RETURN, code, line);
}

/* The type of an exception comes first, so that the place has the same three arguments as everywhere. */
static void fire_exception(enum probe probe, const char *type, PyCodeObject *code, int line) {
    fire(probe, type, utf8(code->co_filename), (intptr_t)utf8(code->co_name), (const void *)(intptr_t)line);
}

/* Name of what is called, and of the module or type that it belongs to: of strings that live as long as it does. */
static const char *name_of(PyObject *callable, const char **owner) {
    if (PyCFunction_Check(callable)) {
        PyObject *self = PyCFunction_GET_SELF(callable);
        if (self && PyType_Check(self)) *owner = ((PyTypeObject *)self)->tp_name;
        else if (self && !PyModule_Check(self)) *owner = Py_TYPE(self)->tp_name;
        else if (((PyCFunctionObject *)callable)->m_module) *owner = utf8(((PyCFunctionObject *)callable)->m_module);
        return ((PyCFunctionObject *)callable)->m_ml->ml_name;
    }
    if (Py_IS_TYPE(callable, &PyMethodDescr_Type) || Py_IS_TYPE(callable, &PyClassMethodDescr_Type)) {
        *owner = ((PyMethodDescrObject *)callable)->d_common.d_type->tp_name;
        return ((PyMethodDescrObject *)callable)->d_method->ml_name;
    }
    if (Py_IS_TYPE(callable, &PyWrapperDescr_Type)) {
        *owner = ((PyWrapperDescrObject *)callable)->d_common.d_type->tp_name;
        return ((PyWrapperDescrObject *)callable)->d_base->name;
    }
    if (PyType_Check(callable)) return ((PyTypeObject *)callable)->tp_name;
    return Py_TYPE(callable)->tp_name;
}

static void fire_cfunction(enum probe probe, PyObject *callable, PyCodeObject *code, int line) {
    const char *owner = "", *name = name_of(callable, &owner);
    fire(probe, utf8(code->co_filename), name, line, owner);
}

/* Whether an exception has come here from another frame. */
static int earlier_frame(PyObject *traceback) {
    return traceback && PyTraceBack_Check(traceback) && ((PyTracebackObject *)traceback)->tb_next;
}

#if MONITORING
/* Callbacks of sys.monitoring: (code, offset, …). None goes on, DISABLE has this place in this code never call again. */

static PyObject *disable; /* sys.monitoring.DISABLE */

#define CALLBACK(name) static PyObject *on_##name(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
/* `excluded` is what to return for code that the filters leave out: DISABLE is for local events only. */
#define TAKE_CODE(least, excluded)                                                                                     \
    if (count < (least) || !PyCode_Check(args[0])) {                                                                   \
        PyErr_SetString(PyExc_TypeError, "called by sys.monitoring only");                                             \
        return NULL;                                                                                                   \
    }                                                                                                                  \
    if (ours) Py_RETURN_NONE;                                                                                          \
    PyCodeObject *code = (PyCodeObject *)args[0];                                                                      \
    if (!wanted(code)) return Py_NewRef(excluded)

static inline int line_at(PyCodeObject *code, PyObject *offset) {
    return PyCode_Addr2Line(code, (int)PyLong_AsLong(offset));
}

/* sys.monitoring tells of methods of Python's own too. */
static int is_cfunction(PyObject *callable) { return !PyFunction_Check(callable) && !PyMethod_Check(callable); }

CALLBACK(py_start) {
    TAKE_CODE(2, disable);
    entered(code, code->co_firstlineno, 0);
    Py_RETURN_NONE;
}

CALLBACK(py_resume) {
    TAKE_CODE(2, disable);
    entered(code, line_at(code, args[1]), 1);
    Py_RETURN_NONE;
}

CALLBACK(py_throw) {
    TAKE_CODE(2, Py_None);
    entered(code, line_at(code, args[1]), 1);
    Py_RETURN_NONE;
}

CALLBACK(py_return) {
    TAKE_CODE(2, disable);
    left(code, line_at(code, args[1]), 0);
    Py_RETURN_NONE;
}

CALLBACK(py_yield) {
    TAKE_CODE(2, disable);
    left(code, line_at(code, args[1]), 1);
    Py_RETURN_NONE;
}

CALLBACK(py_unwind) {
    TAKE_CODE(3, Py_None);
    int line = line_at(code, args[1]);
    if (armed(EXCEPTION_UNWIND)) fire_exception(EXCEPTION_UNWIND, Py_TYPE(args[2])->tp_name, code, line);
    left(code, line, 0);
    Py_RETURN_NONE;
}

/* It comes again in each frame that the exception leads through; where it was raised it has one traceback. */
CALLBACK(raise) {
    TAKE_CODE(3, Py_None);
    if (!armed(EXCEPTION_RAISE)) Py_RETURN_NONE;
    PyObject *traceback = PyException_GetTraceback(args[2]);
    if (!earlier_frame(traceback))
        fire_exception(EXCEPTION_RAISE, Py_TYPE(args[2])->tp_name, code, line_at(code, args[1]));
    Py_XDECREF(traceback);
    Py_RETURN_NONE;
}

CALLBACK(exception_handled) {
    TAKE_CODE(3, Py_None);
    if (armed(EXCEPTION_HANDLED))
        fire_exception(EXCEPTION_HANDLED, Py_TYPE(args[2])->tp_name, code, line_at(code, args[1]));
    Py_RETURN_NONE;
}

CALLBACK(line) {
    TAKE_CODE(2, disable);
    if (armed(LINE)) fire_place(LINE, code, (int)PyLong_AsLong(args[1]));
    Py_RETURN_NONE;
}

CALLBACK(call) {
    TAKE_CODE(3, disable);
    if (armed(CFUNCTION_CALL) && is_cfunction(args[2]))
        fire_cfunction(CFUNCTION_CALL, args[2], code, line_at(code, args[1]));
    Py_RETURN_NONE;
}

CALLBACK(c_return) {
    TAKE_CODE(3, Py_None);
    if (armed(CFUNCTION_RETURN) && is_cfunction(args[2])) fire_cfunction(CFUNCTION_RETURN, args[2], code, line_at(code, args[1]));
    Py_RETURN_NONE;
}

CALLBACK(c_raise) {
    TAKE_CODE(3, Py_None);
    if (armed(CFUNCTION_RAISE) && is_cfunction(args[2])) fire_cfunction(CFUNCTION_RAISE, args[2], code, line_at(code, args[1]));
    Py_RETURN_NONE;
}

#define HOOK_METHODS                                                                                                   \
    ON(py_start), ON(py_resume), ON(py_throw), ON(py_return), ON(py_yield), ON(py_unwind), ON(raise),                  \
        ON(exception_handled), ON(line), ON(call), ON(c_return), ON(c_raise),
#define ON(name) {#name, (PyCFunction)(void (*)(void))on_##name, METH_FASTCALL, "a callback of sys.monitoring"}

static int hook_thread(PyThreadState *Py_UNUSED(thread)) { return 0; }

#else
/* Before sys.monitoring: the profile and the trace function of each thread. */

static int profiling, tracing;
/* The type of the exception that the trace hook saw last: the profile hook, which is told of the end, is not told it. */
static __thread const char *in_flight __attribute__((tls_model("initial-exec"))) = "";

static int is_resumed(PyFrameObject *frame, PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030b0000
    int at = PyFrame_GetLasti(frame);
    if (at < 0) return 0;
    /* The operand of RESUME, by whatever name the specialised instruction goes. */
    return (_Py_OPARG(((_Py_CODEUNIT *)code->co_code_adaptive)[at / (int)sizeof(_Py_CODEUNIT)]) & 3) != 0;
#else
    (void)code;
    return frame->f_lasti >= 0;
#endif
}

static int is_suspended(PyFrameObject *frame, PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030b0000
    int at = PyFrame_GetLasti(frame);
    if (at < 0 || !(code->co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR))) return 0;
    return _Py_OPCODE(((_Py_CODEUNIT *)code->co_code_adaptive)[at / (int)sizeof(_Py_CODEUNIT)]) == YIELD_VALUE;
#else
    (void)code;
    return frame->f_state == FRAME_SUSPENDED;
#endif
}

static int profile(PyObject *Py_UNUSED(nothing), PyFrameObject *frame, int what, PyObject *arg) {
    if (ours) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    if (wanted(code)) {
        switch (what) {
        case PyTrace_CALL: {
            int resumed = is_resumed(frame, code);
            entered(code, resumed ? PyFrame_GetLineNumber(frame) : code->co_firstlineno, resumed);
            break;
        }
        case PyTrace_RETURN: {
            int line = PyFrame_GetLineNumber(frame);
            if (!arg && armed(EXCEPTION_UNWIND)) fire_exception(EXCEPTION_UNWIND, in_flight, code, line);
            left(code, line, arg && is_suspended(frame, code));
            break;
        }
        case PyTrace_C_CALL:
            if (armed(CFUNCTION_CALL)) fire_cfunction(CFUNCTION_CALL, arg, code, PyFrame_GetLineNumber(frame));
            break;
        case PyTrace_C_RETURN:
            if (armed(CFUNCTION_RETURN)) fire_cfunction(CFUNCTION_RETURN, arg, code, PyFrame_GetLineNumber(frame));
            break;
        case PyTrace_C_EXCEPTION:
            if (armed(CFUNCTION_RAISE)) fire_cfunction(CFUNCTION_RAISE, arg, code, PyFrame_GetLineNumber(frame));
            break;
        }
    }
    Py_DECREF(code);
    return 0;
}

static int trace(PyObject *Py_UNUSED(nothing), PyFrameObject *frame, int what, PyObject *arg) {
    if (ours || (what != PyTrace_LINE && what != PyTrace_EXCEPTION)) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    if (wanted(code)) {
        int line = PyFrame_GetLineNumber(frame);
        if (what == PyTrace_LINE) {
            if (armed(LINE)) fire_place(LINE, code, line);
        } else if (PyTuple_Check(arg) && PyTuple_GET_SIZE(arg) == 3 && PyType_Check(PyTuple_GET_ITEM(arg, 0))) {
            in_flight = ((PyTypeObject *)PyTuple_GET_ITEM(arg, 0))->tp_name;
            if (armed(EXCEPTION_RAISE) && !earlier_frame(PyTuple_GET_ITEM(arg, 2)))
                fire_exception(EXCEPTION_RAISE, in_flight, code, line);
        }
    }
    Py_DECREF(code);
    return 0;
}

/* Set or take away our hooks; another profiler's or debugger's stays. */
static int hook_thread(PyThreadState *thread) {
    int result = 0;
    if (thread->c_profilefunc == profile ? !profiling : profiling && !thread->c_profilefunc)
        result = _PyEval_SetProfile(thread, profiling ? profile : NULL, NULL);
    if (result == 0 && (thread->c_tracefunc == trace ? !tracing : tracing && !thread->c_tracefunc))
        result = _PyEval_SetTrace(thread, tracing ? trace : NULL, NULL);
    return result;
}

static PyObject *hook(PyObject *Py_UNUSED(module), PyObject *args) {
    if (!PyArg_ParseTuple(args, "pp:hook", &profiling, &tracing)) return NULL;
    PyThreadState *own = PyThreadState_Get();
    for (PyThreadState *each = PyInterpreterState_ThreadHead(own->interp); each; each = PyThreadState_Next(each))
        if (!(ours && each == own) && hook_thread(each) < 0) return NULL;
    Py_RETURN_NONE;
}

#define HOOK_METHODS {"hook", hook, METH_VARARGS, "hook(profile, trace): set or take away the hooks of all threads"},
#endif

/* Stand-ins: C functions that the switch puts in the place of the interpreter's own, which they hold and call. */

static PyObject *find_and_load(PyObject *original, PyObject *const *args, Py_ssize_t count) {
    int new = 0;
    if (count && PyUnicode_Check(args[0]) && (armed(IMPORT_START) || armed(IMPORT_DONE))) {
        int known = PyDict_Contains(PyImport_GetModuleDict(), args[0]);
        if (known < 0) PyErr_Clear(); /* the original will say what is wrong */
        new = known == 0;
    }
    if (new && armed(IMPORT_START)) fire(IMPORT_START, utf8(args[0]), NULL, 0, NULL);
    PyObject *result = PyObject_Vectorcall(original, args, (size_t)count, NULL);
    if (new && armed(IMPORT_DONE)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        fire(IMPORT_DONE, utf8(args[0]), (void *)(uintptr_t)(result != NULL), 0, NULL);
        PyErr_Restore(type, value, traceback);
    }
    return result;
}

/* A name as bytes for a tracer: those of a file's name as they were before it was decoded, other lone surrogates escaped. A
 * new reference. */
static PyObject *encoded(PyObject *text) {
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    if (!bytes) PyErr_Clear();
    return bytes ? bytes : PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
}

/* A threading.Thread starts a method of its own, others start anything. What has no name goes by its type's. */
static void fire_thread(enum probe probe, PyObject *function) {
    if (!armed(probe)) return;
    PyObject *self = PyMethod_Check(function) ? PyMethod_GET_SELF(function) : NULL;
    PyObject *name = self ? PyObject_GetAttrString(self, "_name") : NULL;
    if (!name) {
        PyErr_Clear();
        name = PyObject_GetAttrString(function, "__name__");
    }
    PyErr_Clear();
    PyObject *bytes = name && PyUnicode_Check(name) ? encoded(name) : NULL;
    PyErr_Clear();
    const char *text = bytes ? PyBytes_AS_STRING(bytes) : Py_TYPE(self ? self : function)->tp_name;
    fire(probe, text, (void *)(uintptr_t)PyThread_get_thread_native_id(), 0, NULL);
    Py_XDECREF(name);
    Py_XDECREF(bytes);
}

/* What the interpreter says of an exception that leaves a thread's function: it would name our stand-in. */
static void say_unraisable(PyObject *function) {
#if PY_VERSION_HEX >= 0x030d0000
    PyErr_FormatUnraisable("Exception ignored in thread started by %R", function);
#else
    _PyErr_WriteUnraisableMsg("in thread started by", function);
#endif
}

static PyObject *run_thread(PyObject *function, PyObject *args, PyObject *keywords) {
    /* An audit hook may forbid it. The thread runs in any case, and is not seen. */
    if (hook_thread(PyThreadState_Get()) < 0) PyErr_WriteUnraisable(function);
    fire_thread(THREAD_START, function);
    PyObject *result = PyObject_Call(function, args, keywords);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    fire_thread(THREAD_STOP, function);
    PyErr_Restore(type, value, traceback);
    if (!result && !PyErr_ExceptionMatches(PyExc_SystemExit)) {
        say_unraisable(function);
        Py_RETURN_NONE;
    }
    return result;
}

static PyMethodDef run_thread_method = {"run_thread", (PyCFunction)(void (*)(void))run_thread,
                                        METH_VARARGS | METH_KEYWORDS, "what a thread of the program begins with"};

/* As start_new_thread(function, args, kwargs) and start_joinable_thread(function, handle=, daemon=). */
static PyObject *start_thread(PyObject *original, PyObject *args, PyObject *keywords) {
    if (PyTuple_GET_SIZE(args) < 1 || !PyCallable_Check(PyTuple_GET_ITEM(args, 0)))
        return PyObject_Call(original, args, keywords); /* it says what is wrong */
    PyObject *run = PyCFunction_New(&run_thread_method, PyTuple_GET_ITEM(args, 0));
    PyObject *others = PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args));
    PyObject *first = run ? PyTuple_Pack(1, run) : NULL, *all = NULL, *result = NULL;
    if (first && others && (all = PySequence_Concat(first, others))) result = PyObject_Call(original, all, keywords);
    Py_XDECREF(run);
    Py_XDECREF(others);
    Py_XDECREF(first);
    Py_XDECREF(all);
    return result;
}

static PyMethodDef stand_ins[] = {
    {"find_and_load", (PyCFunction)(void (*)(void))find_and_load, METH_FASTCALL, "importlib's own, with probes"},
    {"start_thread", (PyCFunction)(void (*)(void))start_thread, METH_VARARGS | METH_KEYWORDS,
     "_thread's own, with probes"},
};

static PyObject *stand_in(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name;
    PyObject *original;
    if (!PyArg_ParseTuple(args, "sO:stand_in", &name, &original)) return NULL;
    for (size_t at = 0; at < sizeof stand_ins / sizeof *stand_ins; at++)
        if (strcmp(name, stand_ins[at].ml_name) == 0) return PyCFunction_New(&stand_ins[at], original);
    PyErr_Format(PyExc_ValueError, "there is no stand-in %s", name);
    return NULL;
}

/* A callback of the garbage collector: ("start" or "stop", {"generation": …, "collected": …}). */
static PyObject *collection(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "called by gc only");
        return NULL;
    }
    int starts = PyUnicode_CompareWithASCIIString(args[0], "start") == 0;
    enum probe probe = starts ? GC_START : GC_DONE;
    PyObject *number = PyDict_GetItemString(args[1], starts ? "generation" : "collected");
    if (number && armed(probe)) fire(probe, (void *)(intptr_t)PyLong_AsLong(number), NULL, 0, NULL);
    PyErr_Clear();
    Py_RETURN_NONE;
}

static int audited(const char *event, PyObject *args, void *Py_UNUSED(data)) {
    if (!ours && armed(AUDIT)) fire(AUDIT, event, args, 0, NULL);
    return 0;
}

/* Such a hook cannot be taken away: from the first tracer on it costs each audited event a comparison. */
static PyObject *audit(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    static int added;
    if (!added && PySys_AddAuditHook(audited, NULL) < 0) return NULL;
    added = 1;
    Py_RETURN_NONE;
}

static PyObject *objects(PyObject *Py_UNUSED(module), PyObject *args);

#if PY_VERSION_HEX >= 0x030d0000
static int object_event(PyObject *object, PyRefTracerEvent event, void *Py_UNUSED(data)) {
    enum probe probe = event == PyRefTracer_CREATE ? OBJECT_NEW : OBJECT_DELETE;
    if (!ours && armed(probe)) fire(probe, Py_TYPE(object)->tp_name, object, Py_TYPE(object)->tp_basicsize, NULL);
    return 0;
}

static PyObject *objects(PyObject *Py_UNUSED(module), PyObject *args) {
    int wanted_now;
    void *data;
    if (!PyArg_ParseTuple(args, "p:objects", &wanted_now)) return NULL;
    PyRefTracer now = PyRefTracer_GetTracer(&data);
    /* tracemalloc uses the same hook: who was there first keeps it. */
    if ((now == object_event || !now) && PyRefTracer_SetTracer(wanted_now ? object_event : NULL, NULL) < 0) return NULL;
    Py_RETURN_NONE;
}
#else
static PyObject *objects(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args)) { Py_RETURN_NONE; }
#endif

/* The watcher */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int running, stopping, again;
    uint64_t applied; /* what the hooks are set for; only the watcher writes it */
    PyObject *switcher;
} watcher = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t look(void) {
    uint64_t now = 0;
    for (int probe = 0; probe < COUNT; probe++) now |= (uint64_t)armed(probe) << probe;
    int count = __atomic_load_n(&other_count, __ATOMIC_ACQUIRE);
    for (int other = 0; other < count; other++) now |= (uint64_t)is_traced(&others[other]) << (COUNT + other);
    return now;
}

/* By the GIL rather than by a pending call: only the main thread makes those, and it may wait for another thread. */
static void switch_hooks(uint64_t now) {
    PyGILState_STATE state = PyGILState_Ensure();
    ours = 1;
    PyObject *result = PyObject_CallFunction(watcher.switcher, "K", now);
    if (!result) PyErr_WriteUnraisable(watcher.switcher);
    Py_XDECREF(result);
    ours = 0;
    __atomic_store_n(&watcher.applied, now, __ATOMIC_RELAXED);
    PyGILState_Release(state);
}

static void *watch(void *Py_UNUSED(nothing)) {
    pthread_mutex_lock(&watcher.lock);
    while (!watcher.stopping) {
        uint64_t now = look();
        if (now != watcher.applied || __atomic_exchange_n(&watcher.again, 0, __ATOMIC_RELAXED)) {
            pthread_mutex_unlock(&watcher.lock);
            switch_hooks(now);
            pthread_mutex_lock(&watcher.lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_EVERY_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&watcher.wake, &watcher.lock, &until);
    }
    pthread_mutex_unlock(&watcher.lock);
    return NULL;
}

/* No signal of the program's may end up in a thread that it does not know. */
static int create(void) {
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    int failed = pthread_attr_init(&attributes);
    if (failed) return failed;
    pthread_attr_setstacksize(&attributes, WATCHER_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&watcher.thread, &attributes, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed) pthread_setname_np(watcher.thread, "usdtkit");
    return failed;
}

static int start_watching(void) {
    pthread_mutex_lock(&watcher.lock);
    int failed = 0;
    if (!watcher.running) {
        watcher.stopping = 0;
        failed = create();
        watcher.running = !failed;
    }
    pthread_mutex_unlock(&watcher.lock);
    if (!failed) return 0;
    errno = failed;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static void new_condition(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watcher.wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static PyObject *start(PyObject *Py_UNUSED(module), PyObject *switcher) {
    if (watcher.switcher) {
        PyErr_SetString(PyExc_ValueError, "it is started once");
        return NULL;
    }
    watcher.switcher = Py_NewRef(switcher);
    new_condition();
    if (start_watching() < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    pthread_mutex_lock(&watcher.lock);
    int running = watcher.running;
    watcher.running = 0;
    watcher.stopping = 1;
    pthread_cond_signal(&watcher.wake);
    pthread_mutex_unlock(&watcher.lock);
    if (running) {
        Py_BEGIN_ALLOW_THREADS /* it may be waiting for the GIL */
        pthread_join(watcher.thread, NULL);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *applied(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&watcher.applied, __ATOMIC_RELAXED));
}

static PyObject *again(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    __atomic_store_n(&watcher.again, 1, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

/* fork() and the watcher.
 *
 * It stops before a fork, because Python counts the threads of the process then, and warns when there is one more. In
 * the parent it goes on only when the call of fork has returned, for the same reason.
 */
static int go_on_watching(void *Py_UNUSED(nothing)) {
    /* No thread to be had: the program goes on, and those who come to trace it are told why they see nothing. */
    if (start_watching() < 0) PyErr_WriteUnraisable(watcher.switcher);
    return 0;
}

static PyObject *after_fork_in_parent(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    /* Pending calls are made by the main thread, which may be waiting for the one that has forked. */
    int later = syscall(SYS_gettid) == getpid() && Py_AddPendingCall(go_on_watching, NULL) == 0;
    if (!later) go_on_watching(NULL);
    Py_RETURN_NONE;
}

static PyObject *after_fork_in_child(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    /* Whatever other threads of the parent were doing with these, here there are none. */
    watcher.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    new_condition();
    watcher.running = 0;
    go_on_watching(NULL);
    Py_RETURN_NONE;
}

/* Sites */

static int number_of(const char *name) {
    for (int number = 0; number < COUNT; number++)
        if (strcmp(names[number], name) == 0) return number;
    PyErr_Format(PyExc_ValueError, "there is no probe %s", name);
    return -1;
}

static void *find_site(PyObject *path, const char *symbol) {
    void *library = dlopen(PyBytes_AS_STRING(path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void *site = library ? dlsym(library, symbol) : NULL;
    if (!site) {
        const char *reason = dlerror();
        PyErr_Format(PyExc_OSError, "the site %s cannot be found: %s", symbol, reason ? reason : "it has no address");
    }
    Py_DECREF(path);
    return site;
}

static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name, *symbol;
    PyObject *path;
    unsigned char pristine;
    if (!PyArg_ParseTuple(args, "sO&sb:bind", &name, PyUnicode_FSConverter, &path, &symbol, &pristine)) return NULL;
    void *site = find_site(path, symbol);
    int number = site ? number_of(name) : -1;
    if (number < 0) return NULL;
    sites[number].stub = (stub6 *)(uintptr_t)site;
    set_watched(&sites[number].site, site, pristine);
    Py_RETURN_NONE;
}

static PyObject *watch_site(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *symbol;
    PyObject *path;
    unsigned char pristine;
    if (!PyArg_ParseTuple(args, "O&sb:watch", PyUnicode_FSConverter, &path, &symbol, &pristine)) return NULL;
    void *site = find_site(path, symbol);
    if (!site) return NULL;
    if (other_count == BITS - COUNT) {
        PyErr_SetString(PyExc_ValueError, "too many probes are watched");
        return NULL;
    }
    set_watched(&others[other_count], site, pristine);
    __atomic_store_n(&other_count, other_count + 1, __ATOMIC_RELEASE);
    return PyLong_FromLong(COUNT + other_count - 1);
}

/* Where the interpreter's code is: in the program, or in a library. */
static struct link_map *find_interpreter(void) {
    struct link_map *map;
    Dl_info info;
    void *code = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
    if (code && dladdr1(code, &info, (void **)&map, RTLD_DL_LINKMAP)) return map;
    PyErr_SetString(PyExc_OSError, "the interpreter's own file cannot be found");
    return NULL;
}

static PyObject *look_at(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name;
    Py_ssize_t address;
    unsigned char pristine;
    if (!PyArg_ParseTuple(args, "snb:look_at", &name, &address, &pristine)) return NULL;
    int number = number_of(name);
    struct link_map *map = number < 0 ? NULL : find_interpreter();
    if (!map) return NULL;
    set_watched(&sites[number].site, (const void *)(map->l_addr + (uintptr_t)address), pristine);
    Py_RETURN_NONE;
}

static PyObject *interpreter(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    struct link_map *map = find_interpreter();
    if (!map) return NULL;
    return PyUnicode_DecodeFSDefault(*map->l_name ? map->l_name : "/proc/self/exe"); /* the program itself has no name */
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS, "bind(name, path, symbol, pristine): the site of a probe in a provider file"},
    {"look_at", look_at, METH_VARARGS, "look_at(name, address, pristine): a site of the interpreter's file, which fires by itself once a hook is set"},
    {"watch", watch_site, METH_VARARGS, "watch(path, symbol, pristine) -> the bit of another probe from here on"},
    {"interpreter", interpreter, METH_NOARGS, "interpreter() -> path of the file that the interpreter's code is in"},
    {"filter", filter, METH_VARARGS, "filter(only, skip): globs of the files whose code is seen; once"},
    {"start", start, METH_O, "start(switch): call switch(bits of the probes that are traced) at each change"},
    {"applied", applied, METH_NOARGS, "applied() -> bits of the probes that the hooks are set for"},
    {"again", again, METH_NOARGS, "again(): call switch at the next look, whether or not something has changed"},
    {"stop", stop, METH_NOARGS, "stop(): no more changes"},
    {"after_fork_in_parent", after_fork_in_parent, METH_NOARGS, "undo stop() once the call of fork has returned"},
    {"after_fork_in_child", after_fork_in_child, METH_NOARGS, "undo stop()"},
    {"stand_in", stand_in, METH_VARARGS, "stand_in(name, original) -> what fires around the original"},
    {"collection", (PyCFunction)(void (*)(void))collection, METH_FASTCALL, "a callback of gc"},
    {"audit", audit, METH_NOARGS, "audit(): have audited events fire, for good"},
    {"objects", objects, METH_VARARGS, "objects(wanted): have objects fire, where the interpreter can (3.13)"},
    HOOK_METHODS{NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    PyObject *all = PyTuple_New(COUNT);
    for (int number = 0; all && number < COUNT; number++) {
        PyObject *name = PyUnicode_FromString(names[number]);
        if (!name) Py_CLEAR(all);
        else PyTuple_SET_ITEM(all, number, name);
    }
    if (!all) return -1;
    int result = PyModule_AddObjectRef(module, "PROBES", all);
    Py_DECREF(all);
#if MONITORING
    PyObject *monitoring = PySys_GetObject("monitoring");
    if (result == 0 && (!monitoring || !(disable = PyObject_GetAttrString(monitoring, "DISABLE")))) result = -1;
#endif
    return result;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "usdtkit._python",
    .m_doc = "CPython's events as probes.",
    .m_methods = methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__python(void) { return PyModuleDef_Init(&module_definition); }
