/* A function with a span around each call: what Provider.traced makes of it.
 *
 * In: a function, its span, and for a coroutine or generator function a wrapper of the same kind, from
 * usdtkit.probes.traced. Out: a callable that passes for the function: it has the same attributes, becomes a method, is
 * pickled by its name, and isinstance() and inspect take it for a function. While nobody traces, a call compares two
 * bytes and calls the function.
 */

#include "probe.h"

#include <pthread.h>
#include <structmember.h>

#if PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030c0000 && defined(__linux__)
/* CPython 3.11 calls Python functions from Python functions without using the C stack, but not through us, and does not
 * count how deep the C stack is, as later versions do. A program that has raised its recursion limit would crash, so a
 * call near the end of the stack raises RecursionError. */
enum { STACK_RESERVE = 256 << 10 };

/* The address below which the stack of this thread is short; 0 if that is not known. */
static __thread uintptr_t stack_limit __attribute__((tls_model("initial-exec"))) = UINTPTR_MAX;

static void find_stack_limit(void) {
    pthread_attr_t attributes;
    void *end;
    size_t size;
    stack_limit = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
    if (pthread_attr_getstack(&attributes, &end, &size) == 0)
        stack_limit = (uintptr_t)end + (size / 4 < STACK_RESERVE ? size / 4 : STACK_RESERVE);
    (void)pthread_attr_destroy(&attributes);
}

static int stack_is_short(void) {
    char here;
    uintptr_t at = (uintptr_t)&here;
    if (__builtin_expect(at >= stack_limit, 1)) return 0;
    if (stack_limit == UINTPTR_MAX) find_stack_limit();
    if (at >= stack_limit || stack_limit - at > STACK_RESERVE) return 0; /* or this is a stack of the program's own */
    PyErr_SetString(PyExc_RecursionError, "the stack of this thread is used up by calls of traced functions");
    return 1;
}
#else
static inline int stack_is_short(void) { return 0; }
#endif

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *function;
    Span *span;
    PyObject *values;  /* values(args, kwargs) -> a tuple of the span's values; NULL if it has none */
    PyObject *wrapper; /* called in place of the function while somebody traces, if the call is not all of the work */
    PyObject *attributes, *references;
} Traced;

/* The span's values, read out of the function's arguments. NULL without an exception if they cannot be had: the function
 * does not take these arguments, and raises that itself; or stack or memory is short. */
static PyObject *values_of(Traced *self, PyObject *const *args, Py_ssize_t count, PyObject *kwnames) {
    if (!self->values) return PyTuple_New(0);
    PyObject *values = NULL, *positional = PyTuple_New(count), *named = PyDict_New();
    int failed = !positional || !named;
    for (Py_ssize_t at = 0; !failed && at < count; at++) PyTuple_SET_ITEM(positional, at, Py_NewRef(args[at]));
    for (Py_ssize_t at = 0; !failed && kwnames && at < PyTuple_GET_SIZE(kwnames); at++)
        failed = PyDict_SetItem(named, PyTuple_GET_ITEM(kwnames, at), args[count + at]) < 0;
    if (!failed) values = PyObject_CallFunctionObjArgs(self->values, positional, named, NULL);
    Py_XDECREF(positional);
    Py_XDECREF(named);
    if (values && PyTuple_Check(values)) return values;
    Py_XDECREF(values);
    if (PyErr_Occurred() && (PyErr_ExceptionMatches(PyExc_TypeError) || clear_resource_error() == 0)) PyErr_Clear();
    return NULL;
}

/* Ends the work, which an exception may leave. If the end raises another one, that has the first as its context, as in
 * `finally`. Steals the reference to the result. */
static PyObject *end_with(struct state *state, LiveSpan *live, PyObject *result) {
    PyObject *type = NULL, *error = NULL, *traceback = NULL, *another, *context, *trace;
    if (!result) {
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback) PyException_SetTraceback(error, traceback);
    }
    if (end_live(state, live, type) < 0) {
        Py_CLEAR(result);
        PyErr_Fetch(&another, &context, &trace);
        PyErr_NormalizeException(&another, &context, &trace);
        PyException_SetContext(context, Py_XNewRef(error));
        PyErr_Restore(another, context, trace);
    } else if (type) {
        PyErr_Restore(Py_NewRef(type), Py_XNewRef(error), Py_XNewRef(traceback));
    }
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return result;
}

/* Calls the wrapper of a coroutine or generator function. It runs later, but a call with wrong arguments must raise now:
 * the function is tried with them, and what it returns is closed before it has run. */
static PyObject *call_wrapper(Traced *self, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    PyObject *tried = PyObject_Vectorcall(self->function, args, nargsf, kwnames), *closed = NULL;
    if (!tried) return NULL;
    if (PyGen_CheckExact(tried) || PyCoro_CheckExact(tried)) closed = PyObject_CallMethod(tried, "close", NULL);
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(closed);
    Py_DECREF(tried);
    return PyObject_Vectorcall(self->wrapper, args, nargsf, kwnames);
}

static PyObject *call_traced(Traced *self, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    struct state *state = PyType_GetModuleState(Py_TYPE(self));
    int traced = is_traced(self->span);
    if (traced < 0) return NULL;
    if (traced && self->wrapper) return call_wrapper(self, args, nargsf, kwnames);
    LiveSpan *live = NULL;
    PyObject *values = traced ? values_of(self, args, PyVectorcall_NARGS(nargsf), kwnames) : NULL;
    if (values) {
        Probe *start = self->span->start, *done = self->span->done;
        live = new_live(state, start, done, PySequence_Fast_ITEMS(values), PyTuple_GET_SIZE(values), NULL);
        if (!live) PyErr_Clear(); /* memory is short */
        Py_DECREF(values);
    }
    if (PyErr_Occurred() || (live && begin_live(state, live) < 0)) {
        Py_XDECREF(live);
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(self->function, args, nargsf, kwnames);
    if (live) result = end_with(state, live, result);
    Py_XDECREF(live);
    return result;
}

static PyObject *traced_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Traced *self = (Traced *)object;
    if (stack_is_short()) return NULL;
    if (__builtin_expect(!plainly_untraced(self->span), 0)) return call_traced(self, args, nargsf, kwnames);
    return ((PyFunctionObject *)self->function)->vectorcall(self->function, args, nargsf, kwnames);
}

static PyObject *traced_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"function", "span", "values", "wrapper", NULL};
    struct state *state = PyType_GetModuleState(type);
    PyObject *function, *span, *values, *wrapper;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!OO:Traced", keywords, &PyFunction_Type, &function,
                                     state->span_type, &span, &values, &wrapper))
        return NULL;
    Traced *self = (Traced *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->vectorcall = traced_call;
    self->function = Py_NewRef(function);
    self->span = (Span *)Py_NewRef(span);
    self->values = values == Py_None ? NULL : Py_NewRef(values);
    self->wrapper = wrapper == Py_None ? NULL : Py_NewRef(wrapper);
    return (PyObject *)self;
}

static PyObject *traced_get(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(owner)) {
    return instance && instance != Py_None ? PyMethod_New(self, instance) : Py_NewRef(self);
}

static PyObject *traced_repr(PyObject *self) { return PyObject_Repr(((Traced *)self)->function); }

/* For pickle and copy: the name that the module has it under. */
static PyObject *traced_reduce(PyObject *self, PyObject *Py_UNUSED(none)) {
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyObject *traced_class(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure)) {
    return Py_NewRef((PyObject *)&PyFunction_Type);
}

static PyObject *of_function(PyObject *self, void *name) {
    return PyObject_GetAttrString(((Traced *)self)->function, name);
}

static int traced_traverse(PyObject *object, visitproc visit, void *arg) {
    Traced *self = (Traced *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->function);
    Py_VISIT(self->span);
    Py_VISIT(self->values);
    Py_VISIT(self->wrapper);
    Py_VISIT(self->attributes);
    return 0;
}

/* The function stays until the object is freed, because a call reads it; its own cycles the collector finds there. */
static int traced_clear(PyObject *object) {
    Traced *self = (Traced *)object;
    Py_CLEAR(self->attributes);
    return 0;
}

static void traced_dealloc(PyObject *object) {
    Traced *self = (Traced *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->references) PyObject_ClearWeakRefs(object);
    Py_XDECREF(self->attributes);
    Py_XDECREF(self->function);
    Py_XDECREF(self->span);
    Py_XDECREF(self->values);
    Py_XDECREF(self->wrapper);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyGetSetDef traced_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"__class__", traced_class, NULL, NULL, NULL},
    {"__code__", of_function, NULL, NULL, "__code__"},
    {"__defaults__", of_function, NULL, NULL, "__defaults__"},
    {"__kwdefaults__", of_function, NULL, NULL, "__kwdefaults__"},
    {"__closure__", of_function, NULL, NULL, "__closure__"},
    {"__globals__", of_function, NULL, NULL, "__globals__"},
    {"__builtins__", of_function, NULL, NULL, "__builtins__"},
#if PY_VERSION_HEX >= 0x030e0000
    /* Until then functools.update_wrapper sets it. Now it sets __annotate__, from which a function makes this. */
    {"__annotations__", of_function, NULL, NULL, "__annotations__"},
#endif
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef traced_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Traced, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Traced, attributes), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Traced, references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef traced_methods[] = {
    {"__reduce__", traced_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot traced_slots[] = {
    {Py_tp_new, traced_new},
    {Py_tp_dealloc, traced_dealloc},
    {Py_tp_traverse, traced_traverse},
    {Py_tp_clear, traced_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, traced_get},
    {Py_tp_repr, traced_repr},
    {Py_tp_members, traced_members},
    {Py_tp_methods, traced_methods},
    {Py_tp_getset, traced_getset},
    {0, NULL},
};

PyType_Spec traced_spec = {
    .name = "usdtkit._probe.Traced",
    .basicsize = sizeof(Traced),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = traced_slots,
};
