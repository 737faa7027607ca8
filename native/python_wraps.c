/* What the ready-made probes of libraries replace, also in types that are written in C, and by what.
 *
 * In: from usdtkit.instrument, a type with an attribute, or a function and what is to be called around it. Out: the
 * attribute is set as if the type were written in Python; a function that reports how long the original took; and a
 * method that tries to acquire a lock first, so that it has something to report only if the caller had to wait. These are
 * there only while somebody traces. Until then types are as the interpreter or the library has made them.
 */

#include "python.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <time.h>

/* Assigning to an attribute of a type is all that the flag forbids: the interpreter then updates the slots and caches
 * of the type and of its subclasses as it does for types in Python. Types are marked because other interpreters could
 * share them; those of an extension module in its own interpreter are not shared. */
static PyObject *set_attribute(PyObject *Py_UNUSED(module), PyObject *args) {
    PyTypeObject *type;
    PyObject *name, *value;
    if (!PyArg_ParseTuple(args, "O!UO:set_attribute", &PyType_Type, &type, &name, &value)) return NULL;
    unsigned long immutable = __atomic_fetch_and(&type->tp_flags, ~Py_TPFLAGS_IMMUTABLETYPE, __ATOMIC_SEQ_CST);
    int failed = PyObject_SetAttr((PyObject *)type, name, value);
    __atomic_fetch_or(&type->tp_flags, immutable & Py_TPFLAGS_IMMUTABLETYPE, __ATOMIC_SEQ_CST);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* A function or method that stands in for another one. It has no frame of its own, so that tracebacks and the places of
 * warnings are those of the program. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *original;
    PyObject *report;           /* a function of ours */
    PyObject *acquire, *release; /* methods of a lock's type, or NULL */
} Wrapper;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* What is raised while something has been raised already, as `raise` in a `finally` does it. */
static void chain(PyObject *type, PyObject *value, PyObject *traceback) {
    PyObject *new_type, *new_value, *new_traceback;
    if (!type) return;
    PyErr_Fetch(&new_type, &new_value, &new_traceback); /* an exception cannot be made while another one is set */
    PyErr_NormalizeException(&new_type, &new_value, &new_traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    if (new_value == value) Py_DECREF(value);
    else PyException_SetContext(new_value, value); /* steals the reference */
    PyErr_Restore(new_type, new_value, new_traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
}

/* Calls done(result, name of the exception or "", nanoseconds), and returns the result or raises the exception of the
 * call. What `done` itself raises is the program's: a signal that has come meanwhile. */
static PyObject *tell(PyObject *done, PyObject *result, uint64_t latency) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    const char *name = type ? ((PyTypeObject *)type)->tp_name : "", *dot = strrchr(name, '.');
    PyObject *said = PyObject_CallFunction(done, "OsK", result ? result : Py_None, dot ? dot + 1 : name, latency);
    if (said) {
        Py_DECREF(said);
        PyErr_Restore(type, value, traceback);
        return result;
    }
    chain(type, value, traceback);
    Py_XDECREF(result);
    return NULL;
}

static PyObject *call_measured(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Wrapper *self = (Wrapper *)object;
    size_t count = (size_t)PyVectorcall_NARGS(nargsf); /* the first call must not use the place before the arguments */
    PyObject *done = PyObject_Vectorcall(self->report, args, count, kwnames);
    if (!done) return NULL;
    if (done == Py_None) {
        Py_DECREF(done);
        return PyObject_Vectorcall(self->original, args, count, kwnames);
    }
    uint64_t began = now();
    PyObject *result = PyObject_Vectorcall(self->original, args, count, kwnames);
    result = tell(done, result, now() - began);
    Py_DECREF(done);
    return result;
}

static PyObject *call_one(PyObject *function, PyObject *first, PyObject *second) {
    PyObject *args[] = {first, second};
    return PyObject_Vectorcall(function, args, second ? 2 : 1, NULL);
}

/* Whether this number means to wait without end or so many seconds. The original raises the exception for others. */
static int waits_so_long(PyObject *timeout) {
    double seconds = PyFloat_CheckExact(timeout)  ? PyFloat_AS_DOUBLE(timeout)
                     : PyLong_CheckExact(timeout) ? PyLong_AsDouble(timeout)
                                                  : -2;
    if (PyErr_Occurred()) { /* an integer that is too large */
        PyErr_Clear();
        return 0;
    }
    return seconds == -1 || (seconds >= 0 && seconds < (double)PY_TIMEOUT_MAX / 1e6);
}

/* Whether a call with these arguments, acquire(blocking=True, timeout=-1), may wait. */
static int may_wait(PyObject *const *args, Py_ssize_t count, PyObject *kwnames) {
    PyObject *given[] = {count > 1 ? args[1] : NULL, count > 2 ? args[2] : NULL};
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        int index = PyUnicode_CompareWithASCIIString(name, "blocking") == 0  ? 0
                    : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? 1
                                                                             : -1;
        if (index < 0 || given[index]) return 0;
        given[index] = args[count + at];
    }
    int blocks = !given[0] || given[0] == Py_True || (PyLong_CheckExact(given[0]) && PyObject_IsTrue(given[0]) == 1);
    return count <= 3 && blocks && (!given[1] || waits_so_long(given[1]));
}

/* 1 if the lock was free and is acquired now, 0 if not, -1 with an exception. */
static int try_to_acquire(Wrapper *self, PyObject *lock) {
    PyObject *acquired = call_one(self->acquire, lock, Py_False);
    int result = acquired ? acquired == Py_True : -1;
    Py_XDECREF(acquired);
    return result;
}

/* Calls waited(lock, nanoseconds, acquired). If that raises, a signal has come: the caller has no lock then, as if it had
 * come during the wait. */
static PyObject *tell_of_wait(Wrapper *self, PyObject *lock, PyObject *result, uint64_t latency) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int acquired = result && result != Py_False;
    PyObject *said = PyObject_CallFunction(self->report, "OKO", lock, latency, acquired ? Py_True : Py_False);
    if (said) {
        Py_DECREF(said);
        PyErr_Restore(type, value, traceback);
        return result;
    }
    chain(type, value, traceback);
    Py_XDECREF(result);
    if (!acquired) return NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *released = call_one(self->release, lock, NULL);
    if (!released) PyErr_Clear();
    Py_XDECREF(released);
    PyErr_Restore(type, value, traceback);
    return NULL;
}

static PyObject *call_waiting(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Wrapper *self = (Wrapper *)object;
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    int acquired = -1;
    if (count > 0 && may_wait(args, count, kwnames)) {
        acquired = try_to_acquire(self, args[0]);
        if (acquired > 0) Py_RETURN_TRUE;
        if (acquired < 0) PyErr_Clear(); /* it is no lock; the original says so */
    }
    if (acquired < 0) return PyObject_Vectorcall(self->original, args, nargsf, kwnames);
    uint64_t began = now();
    PyObject *result = PyObject_Vectorcall(self->original, args, (size_t)count, kwnames);
    return tell_of_wait(self, args[0], result, now() - began);
}

static PyObject *new_wrapper(PyObject *module, vectorcallfunc call, PyObject *original, PyObject *report,
                             PyObject *acquire, PyObject *release) {
    PyTypeObject *type = (PyTypeObject *)PyObject_GetAttrString(module, "Wrapper");
    Wrapper *self = type ? (Wrapper *)type->tp_alloc(type, 0) : NULL;
    Py_XDECREF(type);
    if (!self) return NULL;
    self->vectorcall = call;
    self->original = Py_NewRef(original);
    self->report = Py_NewRef(report);
    self->acquire = Py_XNewRef(acquire);
    self->release = Py_XNewRef(release);
    return (PyObject *)self;
}

static PyObject *measured(PyObject *module, PyObject *args) {
    PyObject *original, *begin;
    if (!PyArg_ParseTuple(args, "OO:measured", &original, &begin)) return NULL;
    return new_wrapper(module, call_measured, original, begin, NULL, NULL);
}

static PyObject *waiting(PyObject *module, PyObject *args) {
    PyObject *original, *acquire, *release, *waited;
    if (!PyArg_ParseTuple(args, "OOOO:waiting", &original, &acquire, &release, &waited)) return NULL;
    return new_wrapper(module, call_waiting, original, waited, acquire, release);
}

static PyObject *wrapper_bind(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type)) {
    return object && object != Py_None ? PyMethod_New(self, object) : Py_NewRef(self);
}

/* Its name, its signature, its class and all else are those of the original. */
static PyObject *wrapper_getattr(PyObject *object, PyObject *name) {
    return PyObject_GetAttr(((Wrapper *)object)->original, name);
}

static PyObject *wrapper_repr(PyObject *object) { return PyObject_Repr(((Wrapper *)object)->original); }

static int wrapper_traverse(PyObject *object, visitproc visit, void *arg) {
    Wrapper *self = (Wrapper *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->original);
    Py_VISIT(self->report);
    Py_VISIT(self->acquire);
    Py_VISIT(self->release);
    return 0;
}

static void wrapper_dealloc(PyObject *object) {
    Wrapper *self = (Wrapper *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->original);
    Py_XDECREF(self->report);
    Py_XDECREF(self->acquire);
    Py_XDECREF(self->release);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef wrapper_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Wrapper, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot wrapper_slots[] = {
    {Py_tp_call, PyVectorcall_Call},   {Py_tp_descr_get, wrapper_bind},  {Py_tp_dealloc, wrapper_dealloc},
    {Py_tp_getattro, wrapper_getattr}, {Py_tp_members, wrapper_members}, {Py_tp_traverse, wrapper_traverse},
    {Py_tp_repr, wrapper_repr},        {0, NULL},
};

static PyType_Spec wrapper_spec = {
    .name = "usdtkit._python.Wrapper",
    .basicsize = sizeof(Wrapper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wrapper_slots,
};

int init_wraps(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &wrapper_spec, NULL);
    int result = type ? PyModule_AddObjectRef(module, "Wrapper", type) : -1;
    Py_XDECREF(type);
    return result;
}

PyMethodDef wrap_methods[] = {
    {"set_attribute", set_attribute, METH_VARARGS,
     "set_attribute(type, name, value): as setattr, but also for a type that is written in C"},
    {"measured", measured, METH_VARARGS,
     "measured(function, begin) -> a function that calls begin(…), the function, and what begin has returned"},
    {"waiting", waiting, METH_VARARGS,
     "waiting(method, acquire, release, waited) -> a method that calls waited(lock, ns, acquired) if it had to wait"},
    {NULL, NULL, 0, NULL},
};
