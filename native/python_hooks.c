/* What Python code does → fires: functions, lines, exceptions, generators, coroutines, calls of C functions.
 *
 * In: callbacks of sys.monitoring from CPython 3.12 on, before that the profile and trace function of each thread. They
 * are set only while a probe that needs them is traced: python_watcher.c sees that, and usdtkit.instrument.python sets
 * them. Out: calls of the stubs, with pointers into the interpreter's own strings.
 */

#include "python.h"

#include <fnmatch.h>
#include <frameobject.h>
#include <string.h>

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

#define MAX_PATTERNS 32

/* Filters: code is included if its file matches one of `only`, if there are any, and none of `skip`. */

static char *only[MAX_PATTERNS + 1], *skip[MAX_PATTERNS + 1];
static int filtered;

static int any_matches(char *const *patterns, const char *file) {
    for (; *patterns; patterns++)
        if (fnmatch(*patterns, file, 0) == 0) return 1;
    return 0;
}

static int matches_filters(PyCodeObject *code) {
    const char *file = utf8(code->co_filename);
    return (!*only || any_matches(only, file)) && !any_matches(skip, file);
}

/* The same, kept with the code object after the first time. */
static int is_included(PyCodeObject *code) {
    if (!filtered) return 1;
#ifdef Py_GIL_DISABLED
    return matches_filters(code); /* the extra data of a code object are not safe to set from several threads */
#else
    enum { UNKNOWN, NO, YES };
    static Py_ssize_t slot = -1;
    void *known = NULL;
    if (slot < 0) slot = REQUEST_EXTRA(NULL);
    if (slot < 0 || GET_EXTRA((PyObject *)code, slot, &known) < 0) {
        PyErr_Clear();
        return matches_filters(code);
    }
    if ((intptr_t)known == UNKNOWN) {
        known = (void *)(intptr_t)(matches_filters(code) ? YES : NO);
        if (SET_EXTRA((PyObject *)code, slot, known) < 0) PyErr_Clear();
    }
    return (intptr_t)known == YES;
#endif
}

static int copy_patterns(PyObject *texts, char **patterns) {
    Py_ssize_t count = PyTuple_GET_SIZE(texts);
    if (count > MAX_PATTERNS) {
        PyErr_Format(PyExc_ValueError, "at most %d patterns", MAX_PATTERNS);
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *pattern = PyTuple_GET_ITEM(texts, at);
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

#define FILTER_DOC "filter(only, skip): globs of the files whose code is included, and of those that are excluded; once"

static PyObject *filter(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *included, *excluded;
    if (!PyArg_ParseTuple(args, "O!O!:filter", &PyTuple_Type, &included, &PyTuple_Type, &excluded)) return NULL;
    if (filtered) {
        PyErr_SetString(PyExc_ValueError, "the filters are set already");
        return NULL;
    }
    if (copy_patterns(included, only) < 0 || copy_patterns(excluded, skip) < 0) return NULL;
    Py_RETURN_NONE;
}

/* Fires with the place in the code: file, function, line. */
static inline void fire_place(enum probe probe, PyCodeObject *code, int line) {
    fire(probe, utf8(code->co_filename), utf8(code->co_name), line, NULL);
}

/* Async generators count as coroutines. */
static inline enum probe of_kind(PyCodeObject *code, enum probe generator, enum probe coroutine) {
    return code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE) ? coroutine : generator;
}

static void frame_entered(PyCodeObject *code, int line, int resumed) {
    if (armed(FUNCTION_ENTRY)) fire_place(FUNCTION_ENTRY, code, line);
    enum probe probe = of_kind(code, GENERATOR_RESUME, COROUTINE_RESUME);
    if (resumed && armed(probe)) fire_place(probe, code, line);
}

static void frame_left(PyCodeObject *code, int line, int yielded) {
    enum probe probe = of_kind(code, GENERATOR_YIELD, COROUTINE_YIELD);
    if (yielded && armed(probe)) fire_place(probe, code, line);
    if (armed(FUNCTION_RETURN)) fire_place(FUNCTION_RETURN, code, line);
}

/* The type of the exception comes first; file, function and line follow it in the same order as everywhere. */
static void fire_exception(enum probe probe, const char *type, PyCodeObject *code, int line) {
    fire(probe, type, utf8(code->co_filename), (intptr_t)utf8(code->co_name), (const void *)(intptr_t)line);
}

/* The name of a callable, and of the module or type that it belongs to. Both live as long as the callable. */
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

/* Whether the exception was raised in another frame and has come to this one. */
static int from_inner_frame(PyObject *traceback) {
    return traceback && PyTraceBack_Check(traceback) && ((PyTracebackObject *)traceback)->tb_next;
}

#if MONITORING
/* Callbacks of sys.monitoring, with the arguments (code, offset, …). One that returns DISABLE is not called again for
 * this place in the code. */

static PyObject *disable; /* sys.monitoring.DISABLE */

#define CALLBACK(name) static PyObject *on_##name(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
/* Begins a callback. It returns `excluded` for code that the filters exclude; DISABLE is allowed for local events
 * only. */
#define TAKE_CODE(minimum, excluded)                                                                                   \
    if (count < (minimum) || !PyCode_Check(args[0])) {                                                                 \
        PyErr_SetString(PyExc_TypeError, "this is a callback of sys.monitoring");                                      \
        return NULL;                                                                                                   \
    }                                                                                                                  \
    if (setting_hooks) Py_RETURN_NONE;                                                                                 \
    PyCodeObject *code = (PyCodeObject *)args[0];                                                                      \
    if (!is_included(code)) return Py_NewRef(excluded)

static inline int line_at(PyCodeObject *code, PyObject *offset) {
    return PyCode_Addr2Line(code, (int)PyLong_AsLong(offset));
}

/* CALL is also reported for functions and methods that are written in Python. */
static int is_cfunction(PyObject *callable) { return !PyFunction_Check(callable) && !PyMethod_Check(callable); }

CALLBACK(py_start) {
    TAKE_CODE(2, disable);
    frame_entered(code, code->co_firstlineno, 0);
    Py_RETURN_NONE;
}

CALLBACK(py_resume) {
    TAKE_CODE(2, disable);
    frame_entered(code, line_at(code, args[1]), 1);
    Py_RETURN_NONE;
}

CALLBACK(py_throw) {
    TAKE_CODE(2, Py_None);
    frame_entered(code, line_at(code, args[1]), 1);
    Py_RETURN_NONE;
}

CALLBACK(py_return) {
    TAKE_CODE(2, disable);
    frame_left(code, line_at(code, args[1]), 0);
    Py_RETURN_NONE;
}

CALLBACK(py_yield) {
    TAKE_CODE(2, disable);
    frame_left(code, line_at(code, args[1]), 1);
    Py_RETURN_NONE;
}

CALLBACK(py_unwind) {
    TAKE_CODE(3, Py_None);
    int line = line_at(code, args[1]);
    if (armed(EXCEPTION_UNWIND)) fire_exception(EXCEPTION_UNWIND, Py_TYPE(args[2])->tp_name, code, line);
    frame_left(code, line, 0);
    Py_RETURN_NONE;
}

/* RAISE is reported again in each frame that the exception goes through. Where it was raised, its traceback has one
 * entry. */
CALLBACK(raise) {
    TAKE_CODE(3, Py_None);
    if (!armed(EXCEPTION_RAISE)) Py_RETURN_NONE;
    PyObject *traceback = PyException_GetTraceback(args[2]);
    if (!from_inner_frame(traceback))
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
    if (armed(CFUNCTION_RETURN) && is_cfunction(args[2]))
        fire_cfunction(CFUNCTION_RETURN, args[2], code, line_at(code, args[1]));
    Py_RETURN_NONE;
}

CALLBACK(c_raise) {
    TAKE_CODE(3, Py_None);
    if (armed(CFUNCTION_RAISE) && is_cfunction(args[2]))
        fire_cfunction(CFUNCTION_RAISE, args[2], code, line_at(code, args[1]));
    Py_RETURN_NONE;
}

int hook_thread(PyThreadState *Py_UNUSED(thread)) { return 0; }

int init_hooks(void) {
    PyObject *monitoring = PySys_GetObject("monitoring");
    if (!monitoring) {
        PyErr_SetString(PyExc_RuntimeError, "there is no sys.monitoring");
        return -1;
    }
    disable = PyObject_GetAttrString(monitoring, "DISABLE");
    return disable ? 0 : -1;
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))on_##name, METH_FASTCALL, "a callback of sys.monitoring"}
PyMethodDef hook_methods[] = {
    {"filter", filter, METH_VARARGS, FILTER_DOC},
    METHOD(py_start),
    METHOD(py_resume),
    METHOD(py_throw),
    METHOD(py_return),
    METHOD(py_yield),
    METHOD(py_unwind),
    METHOD(raise),
    METHOD(exception_handled),
    METHOD(line),
    METHOD(call),
    METHOD(c_return),
    METHOD(c_raise),
    {NULL, NULL, 0, NULL},
};

#else
/* Before sys.monitoring: the profile and the trace function of each thread. */

static int profiling, tracing;
/* The type of the exception that the trace function saw last. The profile function, which sees the frame end, is not
 * told of the exception. */
static __thread const char *in_flight __attribute__((tls_model("initial-exec"))) = "";

static int is_resumed(PyFrameObject *frame, PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030b0000
    int at = PyFrame_GetLasti(frame);
    if (at < 0) return 0;
    /* The operand of RESUME, or of the instruction that it was specialised to. */
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
    if (setting_hooks) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    if (is_included(code)) {
        switch (what) {
        case PyTrace_CALL: {
            int resumed = is_resumed(frame, code);
            frame_entered(code, resumed ? PyFrame_GetLineNumber(frame) : code->co_firstlineno, resumed);
            break;
        }
        case PyTrace_RETURN: {
            int line = PyFrame_GetLineNumber(frame);
            if (!arg && armed(EXCEPTION_UNWIND)) fire_exception(EXCEPTION_UNWIND, in_flight, code, line);
            frame_left(code, line, arg && is_suspended(frame, code));
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
    if (setting_hooks || (what != PyTrace_LINE && what != PyTrace_EXCEPTION)) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    if (is_included(code)) {
        int line = PyFrame_GetLineNumber(frame);
        if (what == PyTrace_LINE) {
            if (armed(LINE)) fire_place(LINE, code, line);
        } else if (PyTuple_Check(arg) && PyTuple_GET_SIZE(arg) == 3 && PyType_Check(PyTuple_GET_ITEM(arg, 0))) {
            in_flight = ((PyTypeObject *)PyTuple_GET_ITEM(arg, 0))->tp_name;
            if (armed(EXCEPTION_RAISE) && !from_inner_frame(PyTuple_GET_ITEM(arg, 2)))
                fire_exception(EXCEPTION_RAISE, in_flight, code, line);
        }
    }
    Py_DECREF(code);
    return 0;
}

/* Another profiler's or debugger's function stays. */
int hook_thread(PyThreadState *thread) {
    int result = 0;
    if (thread->c_profilefunc == profile ? !profiling : profiling && !thread->c_profilefunc)
        result = _PyEval_SetProfile(thread, profiling ? profile : NULL, NULL);
    if (result == 0 && (thread->c_tracefunc == trace ? !tracing : tracing && !thread->c_tracefunc))
        result = _PyEval_SetTrace(thread, tracing ? trace : NULL, NULL);
    return result;
}

static PyObject *hook(PyObject *Py_UNUSED(module), PyObject *args) {
    if (!PyArg_ParseTuple(args, "pp:hook", &profiling, &tracing)) return NULL;
    PyThreadState *this = PyThreadState_Get(), *thread = PyInterpreterState_ThreadHead(this->interp);
    for (; thread; thread = PyThreadState_Next(thread))
        if (!(setting_hooks && thread == this) && hook_thread(thread) < 0) return NULL;
    Py_RETURN_NONE;
}

int init_hooks(void) { return 0; }

PyMethodDef hook_methods[] = {
    {"filter", filter, METH_VARARGS, FILTER_DOC},
    {"hook", hook, METH_VARARGS, "hook(profile, trace): set or remove the hooks of all threads"},
    {NULL, NULL, 0, NULL},
};

#endif
