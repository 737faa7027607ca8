/* One stretch of work, for one `with`, `async with` or call: it fires the start and the end of its span.
 *
 * In: the two probes, and the values of the start, from probe_span.c and probe_traced.c. Out: two fires, with the
 * number of the span, that of the span around it, and an id that all spans of one trace share. The span around it is
 * the innermost one that has begun in the same context (contextvars), so each thread and each asyncio task has its own.
 * If the application uses another SDK for traces, usdtkit.probes.spans asks that for its trace.
 *
 * No Python code of ours runs here unless such an SDK is there: a caller near its recursion limit must go on as if
 * nobody traced.
 */

#include "probe.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <sys/random.h>
#endif

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

LiveSpan *new_live(struct state *state, Probe *start, Probe *done, PyObject *const *values, Py_ssize_t count,
                   PyObject *names) {
    LiveSpan *self = (LiveSpan *)state->live_type->tp_alloc(state->live_type, OWN_VALUES + count);
    if (!self) return NULL;
    self->start = (Probe *)Py_NewRef(start);
    self->done = (Probe *)Py_NewRef(done);
    self->names = Py_XNewRef(names);
    for (Py_ssize_t at = 0; at < count; at++) self->values[OWN_VALUES + at] = Py_NewRef(values[at]);
    return self;
}

static void clear_values(LiveSpan *self) {
    for (Py_ssize_t at = 0; at < Py_SIZE(self); at++) Py_CLEAR(self->values[at]);
    Py_CLEAR(self->names);
}

/* The current span of this context, as a new reference, or NULL. */
static LiveSpan *current_live(struct state *state) {
    PyObject *object = NULL;
    if (state->current && PyContextVar_Get(state->current, NULL, &object) < 0) PyErr_Clear();
    if (!object || !Py_IS_TYPE(object, state->live_type)) {
        Py_XDECREF(object);
        return NULL;
    }
    LiveSpan *self = (LiveSpan *)object;
    while (self && self->left) {
        LiveSpan *outer = (LiveSpan *)Py_XNewRef(self->outer);
        Py_DECREF(self);
        self = outer;
    }
    return self;
}

/* If memory is short, the current span stays what it was: a tree that is not right harms nobody. */
static void set_current(struct state *state, LiveSpan *self) {
    PyObject *token = state->current ? PyContextVar_Set(state->current, self ? (PyObject *)self : Py_None) : NULL;
    if (!token) PyErr_Clear();
    Py_XDECREF(token);
}

static void enter(struct state *state, LiveSpan *self) {
    Py_XSETREF(self->outer, current_live(state));
    set_current(state, self);
}

static void leave(struct state *state, LiveSpan *self) {
    LiveSpan *current = current_live(state);
    if (current == self) {
        set_current(state, self->outer);
        Py_CLEAR(self->outer);
    } else {
        self->left = 1; /* a span within it still goes on, or it was entered in another context */
    }
    Py_XDECREF(current);
}

/* A new trace id. It is random, as https://www.w3.org/TR/trace-context/#trace-id demands. */
static PyObject *new_trace_id(uint64_t number) {
    uint64_t random[2] = {now(), number};
#ifdef __linux__
    int saved_errno = errno; /* where no random bytes are to be had, the clock and the number must do */
    if (getrandom(random, sizeof random, GRND_NONBLOCK) < 0) errno = saved_errno;
#endif
    char text[33];
    PyOS_snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)random[0], (unsigned long long)random[1]);
    return PyUnicode_FromString(text);
}

/* The trace and the span of another SDK, as a tuple, or None. That SDK has imported its own module if it has a span. */
static PyObject *ask_foreign(struct state *state) {
    PyObject *name = state->foreign ? PyUnicode_FromString("opentelemetry.trace") : NULL;
    PyObject *module = name ? PyImport_GetModule(name) : NULL, *answer = NULL;
    Py_XDECREF(name);
    if (module) answer = PyObject_CallNoArgs(state->foreign);
    Py_XDECREF(module);
    if (answer && PyTuple_Check(answer) && PyTuple_GET_SIZE(answer) == 2) return answer;
    if (PyErr_Occurred() && clear_resource_error() < 0) return NULL;
    Py_XDECREF(answer);
    return Py_NewRef(Py_None);
}

static int find_place(struct state *state, LiveSpan *self) {
    PyObject *foreign = ask_foreign(state), *number = NULL, *parent = NULL, *trace_id = NULL;
    if (!foreign) return -1;
    enter(state, self);
    LiveSpan *outer = self->outer;
    self->number = next_span_number();
    number = PyLong_FromUnsignedLongLong(self->number);
    if (foreign != Py_None) {
        trace_id = Py_NewRef(PyTuple_GET_ITEM(foreign, 0));
        parent = outer ? NULL : Py_NewRef(PyTuple_GET_ITEM(foreign, 1));
    } else {
        trace_id = outer ? Py_NewRef(outer->trace_id) : new_trace_id(self->number);
    }
    if (!parent) parent = PyLong_FromUnsignedLongLong(outer ? outer->number : 0);
    Py_DECREF(foreign);
    self->values[NUMBER] = number;
    self->values[PARENT] = parent;
    self->values[TRACE_ID] = trace_id;
    self->trace_id = Py_XNewRef(trace_id);
    if (number && parent && trace_id) return 0;
    leave(state, self);
    return -1;
}

int begin_live(struct state *state, LiveSpan *self) {
    if (self->trace_id) return 0; /* it has begun before */
    PyObject *fired = NULL;
    int failed = find_place(state, self);
    if (failed) {
        failed = clear_resource_error();
    } else {
        Py_ssize_t named = self->names ? PyTuple_GET_SIZE(self->names) : 0;
        fired = fire((PyObject *)self->start, self->values, (size_t)(Py_SIZE(self) - named), self->names);
        if (fired) self->began = now();
        else failed = -1, leave(state, self);
    }
    Py_XDECREF(fired);
    clear_values(self);
    return failed;
}

/* The name of a type, found without any code of the program's: a metaclass might compute it. */
static PyObject *type_name(PyObject *kind) {
    if (!kind || !PyType_Check(kind)) return PyUnicode_New(0, 0);
    PyTypeObject *type = (PyTypeObject *)kind;
    if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return Py_NewRef(((PyHeapTypeObject *)type)->ht_name);
    const char *dot = strrchr(type->tp_name, '.');
    return PyUnicode_FromString(dot ? dot + 1 : type->tp_name);
}

int end_live(struct state *state, LiveSpan *self, PyObject *kind) {
    if (!self->began) return 0; /* it has not begun, which an ExitStack allows: then neither end fires */
    uint64_t latency = now() - self->began;
    self->began = 0;
    leave(state, self);
    PyObject *values[] = {PyLong_FromUnsignedLongLong(self->number), PyLong_FromUnsignedLongLong(latency),
                          type_name(kind)};
    PyObject *fired = NULL;
    if (values[0] && values[1] && values[2]) fired = fire((PyObject *)self->done, values, 3, NULL);
    int failed = fired ? 0 : clear_resource_error();
    Py_XDECREF(fired);
    for (int at = 0; at < 3; at++) Py_XDECREF(values[at]);
    return failed;
}

static PyObject *live_enter(PyObject *self, PyObject *Py_UNUSED(none)) {
    if (((LiveSpan *)self)->start && begin_live(PyType_GetModuleState(Py_TYPE(self)), (LiveSpan *)self) < 0) return NULL;
    return Py_NewRef(self);
}

static PyObject *live_exit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "__exit__() takes 3 arguments but %zd were given", count);
        return NULL;
    }
    if (!((LiveSpan *)self)->began) Py_RETURN_NONE;
    PyObject *kind = args[0] == Py_None ? NULL : args[0];
    if (end_live(PyType_GetModuleState(Py_TYPE(self)), (LiveSpan *)self, kind) < 0) return NULL;
    Py_RETURN_NONE;
}

/* What is awaited of `async with`: done at once, with a result. */
typedef struct {
    PyObject_HEAD
    PyObject *result;
} Awaited;

static PyObject *awaited(PyObject *live, PyObject *result) {
    struct state *state = PyType_GetModuleState(Py_TYPE(live));
    Awaited *self = result ? PyObject_New(Awaited, state->awaited_type) : NULL;
    if (self) self->result = result;
    else Py_XDECREF(result);
    return (PyObject *)self;
}

static PyObject *awaited_next(PyObject *self) {
    PyErr_SetObject(PyExc_StopIteration, ((Awaited *)self)->result);
    return NULL;
}

static void awaited_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(((Awaited *)self)->result);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *live_aenter(PyObject *self, PyObject *none) { return awaited(self, live_enter(self, none)); }

static PyObject *live_aexit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    return awaited(self, live_exit(self, args, count));
}

/* A generator's span is current only while the generator runs: the code that uses the generator is not within it. While
 * it is paused, `outer` keeps what was current within it, unless that was the span itself. */
static PyObject *live_pause(PyObject *object, PyObject *Py_UNUSED(none)) {
    LiveSpan *self = (LiveSpan *)object;
    if (!self->began) Py_RETURN_NONE;
    struct state *state = PyType_GetModuleState(Py_TYPE(object));
    LiveSpan *within = current_live(state);
    set_current(state, self->outer);
    if (within == self) Py_CLEAR(within);
    Py_XSETREF(self->outer, within);
    Py_RETURN_NONE;
}

static PyObject *live_resume(PyObject *object, PyObject *Py_UNUSED(none)) {
    LiveSpan *self = (LiveSpan *)object;
    if (!self->began) Py_RETURN_NONE;
    struct state *state = PyType_GetModuleState(Py_TYPE(object));
    LiveSpan *outer = current_live(state);
    set_current(state, self->outer ? self->outer : self);
    Py_XSETREF(self->outer, outer);
    Py_RETURN_NONE;
}

static int live_traverse(PyObject *object, visitproc visit, void *arg) {
    LiveSpan *self = (LiveSpan *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->start);
    Py_VISIT(self->done);
    Py_VISIT(self->outer);
    for (Py_ssize_t at = 0; at < Py_SIZE(self); at++) Py_VISIT(self->values[at]);
    return 0;
}

static int live_clear(PyObject *object) {
    LiveSpan *self = (LiveSpan *)object;
    Py_CLEAR(self->outer);
    clear_values(self);
    return 0;
}

static void live_dealloc(PyObject *object) {
    LiveSpan *self = (LiveSpan *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)live_clear(object);
    Py_XDECREF(self->start);
    Py_XDECREF(self->done);
    Py_XDECREF(self->trace_id);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef live_methods[] = {
    {"__enter__", live_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))live_exit, METH_FASTCALL, NULL},
    {"__aenter__", live_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))live_aexit, METH_FASTCALL, NULL},
    {"pause", live_pause, METH_NOARGS, "pause(): what begins now is not within this stretch of work"},
    {"resume", live_resume, METH_NOARGS, "resume(): what begins now is within it again"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot live_slots[] = {
    {Py_tp_doc, "A stretch of work, for `with` or `async with`. Made by Provider.span()."},
    {Py_tp_dealloc, live_dealloc},
    {Py_tp_traverse, live_traverse},
    {Py_tp_clear, live_clear},
    {Py_tp_methods, live_methods},
    {0, NULL},
};

PyType_Spec live_spec = {
    .name = "usdtkit._probe.LiveSpan",
    .basicsize = sizeof(LiveSpan),
    .itemsize = sizeof(PyObject *),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = live_slots,
};

static PyType_Slot awaited_slots[] = {
    {Py_tp_dealloc, awaited_dealloc},
    {Py_am_await, PyObject_SelfIter},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, awaited_next},
    {0, NULL},
};

PyType_Spec awaited_spec = {
    .name = "usdtkit._probe.Awaited",
    .basicsize = sizeof(Awaited),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaited_slots,
};
