/* The callable that fires a probe: usdtkit._probe.Probe.
 *
 * In: the values of a call. Out: while nobody traces the probe, a call compares one byte and returns. While somebody
 * does, probe_values.c converts the values to integers, and the stub is called as a C function; its first instruction
 * is the site, where the kernel has put a breakpoint. Before it: probe_declare.c makes the object, probe_load.c binds
 * it to a stub.
 *
 * A call reads `site` once and calls only what it has read, and libraries stay mapped. So a probe may be fired from any
 * thread, while another thread unloads it, in a forked child, in a signal handler and late in the interpreter's
 * shutdown.
 */

#include "probe.h"

#include <structmember.h>

#include <string.h>

const volatile uint8_t unloaded = 1;
const volatile uint8_t recording = 0xff;

/* From a stub to the second site in its slot. A call that cannot be fired runs this site in place of the first one, so
 * that whoever traces the probe can count such calls (usdtkit.elf.stubs has the same offsets). */
#ifdef __x86_64__
#define REJECTED 14
#else
#define REJECTED 8
#endif

typedef void stub12(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                    uint64_t, uint64_t);

int clear_resource_error(void) {
    if (!PyErr_ExceptionMatches(PyExc_RecursionError) && !PyErr_ExceptionMatches(PyExc_MemoryError)) return -1;
    PyErr_Clear();
    return 0;
}

/* Loads the probe if that has not been done. Returns 1 if somebody traces or records it, 0 if not, -1 with an
 * exception. */
static int load_and_check(Probe *self, const volatile uint8_t **site) {
    if (*site == &unloaded) {
        PyObject *loader;
        Py_BEGIN_CRITICAL_SECTION(self);
        loader = Py_XNewRef(self->loader);
        Py_END_CRITICAL_SECTION();
        if (!loader) return 0; /* the garbage collector has cleared the provider */
        PyObject *result = PyObject_CallNoArgs(loader);
        Py_DECREF(loader);
        if (!result) return clear_resource_error();
        Py_DECREF(result);
        *site = site_of(self);
        if (*site == &unloaded) return 0; /* this call is made while the probe is being loaded */
    }
    if (*site == &self->pristine) return 0; /* it is silenced, or another thread is binding it */
    return armed(self, *site);
}

/* Puts the values of a call into the order of the declaration, as borrowed references. */
static int arrange(Probe *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *values[MAX_OPERANDS]) {
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs > self->count) {
        PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments but %zd were given", self->provider, self->name,
                     self->count, nargs + named);
        return -1;
    }
    for (int index = 0; index < self->count; index++) values[index] = index < nargs ? args[index] : NULL;
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        int index = 0;
        while (index < self->count && PyUnicode_Compare(name, argument_name(self, index)) != 0) index++;
        if (index == self->count) {
            PyErr_Format(PyExc_TypeError, "%U:%U() has no argument '%U'", self->provider, self->name, name);
            return -1;
        }
        if (values[index]) {
            PyErr_Format(PyExc_TypeError, "%U:%U() got two values for argument '%U'", self->provider, self->name, name);
            return -1;
        }
        values[index] = args[nargs + at];
    }
    for (int index = 0; index < self->count; index++) {
        if (!values[index]) {
            PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments, '%U' is missing", self->provider, self->name,
                         self->count, argument_name(self, index));
            return -1;
        }
    }
    return 0;
}

static void call_stub(const volatile uint8_t *site, const uint64_t *v) {
    ((stub12 *)(uintptr_t)site)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11]);
}

static void call_counted_stub(Probe *self, const volatile uint8_t *site, const uint64_t *operands) {
    __atomic_fetch_add(&self->counts->fired, 1, __ATOMIC_RELAXED);
    call_stub(site, operands);
}

/* Calls the recorder with the values as a tracer would read them, and fires the stub too if somebody also traces it. */
static int record(Probe *self, const uint64_t *operands) {
    PyObject *recorder;
    const volatile uint8_t *stub;
    Py_BEGIN_CRITICAL_SECTION(self);
    recorder = Py_XNewRef(self->recorder);
    stub = self->silenced ? NULL : self->stub;
    Py_END_CRITICAL_SECTION();
    if (stub && armed(self, stub)) call_counted_stub(self, stub, operands);
    if (!recorder) return 0; /* another thread has ended the recording meanwhile */
    PyObject *values = PyTuple_New(self->count), *result = NULL;
    int operand = 0;
    for (int index = 0; values && index < self->count; index++) {
        PyObject *value = traced_value(self, index, operands + operand);
        if (!value) Py_CLEAR(values);
        else PyTuple_SET_ITEM(values, index, value);
        operand += operands_of(type_of(self, index));
    }
    if (values) result = PyObject_CallFunctionObjArgs(recorder, (PyObject *)self, values, NULL);
    Py_XDECREF(values);
    Py_DECREF(recorder);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Handles a call whose values cannot be fired; the exception that is set says why. Returns -1 if the call raises it.
 * Otherwise the call is counted here and by the tracer, the application's log gets a line the first time, and 0 is
 * returned.
 *
 * An exception that interrupts the program itself is always raised. That is KeyboardInterrupt, and what a signal
 * handler has raised while the values were converted: `report_drop`, a Python function, returns such an exception. */
static int reject(Probe *self, const volatile uint8_t *site) {
    if (self->drops == RAISES || (self->drops == DROPS_UNLESS_RECORDED && site == &recording)) return -1;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return -1;
    PyObject *type, *reason, *traceback;
    PyErr_Fetch(&type, &reason, &traceback);
    PyErr_NormalizeException(&type, &reason, &traceback);
    if (traceback) PyException_SetTraceback(reason, traceback);
    __atomic_fetch_add(&self->counts->dropped, 1, __ATOMIC_RELAXED);
    const volatile uint8_t *stub = site == &recording ? (self->silenced ? NULL : self->stub) : site;
    if (stub) {
        static const uint64_t zeros[MAX_OPERANDS];
        call_stub(stub + REJECTED, zeros);
    }
    PyObject *report_drop = state_of(self)->report_drop;
    PyObject *raised = report_drop ? PyObject_CallFunctionObjArgs(report_drop, (PyObject *)self, reason, NULL)
                                   : Py_NewRef(Py_None);
    int result = 0;
    if (!raised) {
        result = clear_resource_error();
    } else if (PyExceptionInstance_Check(raised)) {
        __atomic_fetch_sub(&self->counts->dropped, 1, __ATOMIC_RELAXED);
        /* Restored with its own traceback, because to raise it anew would change its context. */
        PyErr_Restore(Py_NewRef(Py_TYPE(raised)), Py_NewRef(raised), PyException_GetTraceback(raised));
        result = -1;
    }
    Py_XDECREF(raised);
    Py_XDECREF(type);
    Py_XDECREF(reason);
    Py_XDECREF(traceback);
    return result;
}

static int fire_values(Probe *self, const volatile uint8_t *site, PyObject *const *values) {
    struct operands operands;
    int result = 0;
    if (convert_values(self, values, &operands) < 0) result = reject(self, site);
    else if (site == &recording) result = record(self, operands.values);
    else call_counted_stub(self, site, operands.values);
    /* Not before `reject`: an exception may refer to a value that only `operands` still owns. */
    release_operands(&operands);
    return result;
}

static PyObject *fire_armed(Probe *self, const volatile uint8_t *site, PyObject *const *args, size_t nargsf,
                            PyObject *kwnames) {
    int traced = load_and_check(self, &site);
    if (traced < 0) return NULL;
    if (!traced) Py_RETURN_NONE;

    /* Most calls pass all values by position. */
    if (PyVectorcall_NARGS(nargsf) == self->count && !kwnames) {
        if (fire_values(self, site, args) < 0) return NULL;
        Py_RETURN_NONE;
    }
    PyObject *values[MAX_OPERANDS];
    if (arrange(self, args, PyVectorcall_NARGS(nargsf), kwnames, values) < 0) {
        if (reject(self, site) < 0) return NULL;
    } else if (fire_values(self, site, values) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *fire(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Probe *self = (Probe *)object;
    const volatile uint8_t *site = site_of(self);
    if (__builtin_expect(!armed(self, site), 1)) Py_RETURN_NONE;
    return fire_armed(self, site, args, nargsf, kwnames);
}

static PyObject *lazy_armed(Probe *self, const volatile uint8_t *site, PyObject *function) {
    int traced = load_and_check(self, &site);
    if (traced < 0) return NULL;
    if (!traced) Py_RETURN_NONE;
    int failed = 1;
    PyObject *values = PyObject_CallNoArgs(function);
    if (values && !PyTuple_Check(values))
        PyErr_Format(PyExc_TypeError, "%U:%U.lazy() takes a function that returns a tuple of values, not %.100s",
                     self->provider, self->name, Py_TYPE(values)->tp_name);
    else if (values && PyTuple_GET_SIZE(values) != self->count)
        PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments but %zd were given", self->provider, self->name,
                     self->count, PyTuple_GET_SIZE(values));
    else if (values)
        failed = 0;
    int result = failed ? reject(self, site) : fire_values(self, site, PySequence_Fast_ITEMS(values));
    Py_XDECREF(values);
    if (result < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *lazy(PyObject *object, PyObject *function) {
    Probe *self = (Probe *)object;
    const volatile uint8_t *site = site_of(self);
    if (__builtin_expect(!armed(self, site), 1)) Py_RETURN_NONE;
    return lazy_armed(self, site, function);
}

int is_enabled(Probe *self) {
    const volatile uint8_t *site = site_of(self);
    return armed(self, site) ? load_and_check(self, &site) : 0;
}

static PyObject *get_enabled(PyObject *object, void *Py_UNUSED(closure)) {
    int traced = is_enabled((Probe *)object);
    return traced < 0 ? NULL : PyBool_FromLong(traced);
}

static PyObject *get_fired(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&((Probe *)object)->counts->fired, __ATOMIC_RELAXED));
}

static PyObject *get_dropped(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&((Probe *)object)->counts->dropped, __ATOMIC_RELAXED));
}

static PyObject *get_arguments(PyObject *object, void *Py_UNUSED(closure)) {
    return Py_NewRef(shape_item((Probe *)object, ARGUMENTS));
}

static PyObject *get_path(PyObject *object, void *Py_UNUSED(closure)) {
    PyObject *path;
    Py_BEGIN_CRITICAL_SECTION(object);
    path = Py_NewRef(((Probe *)object)->path);
    Py_END_CRITICAL_SECTION();
    return path;
}

static int probe_traverse(PyObject *object, visitproc visit, void *arg) {
    Probe *self = (Probe *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->shape);
    Py_VISIT(self->loader);
    Py_VISIT(self->recorder);
    Py_VISIT(self->place);
    return 0;
}

/* Only the loader and the recorder can be part of a cycle. All else that a call reads stays until the object is
 * freed. */
static int probe_clear(PyObject *object) {
    Probe *self = (Probe *)object;
    Py_CLEAR(self->loader);
    Py_CLEAR(self->recorder);
    return 0;
}

static void probe_dealloc(PyObject *object) {
    Probe *self = (Probe *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->provider);
    Py_XDECREF(self->name);
    Py_XDECREF(self->doc);
    Py_XDECREF(self->stability);
    Py_XDECREF(self->shape);
    Py_XDECREF(self->loader);
    Py_XDECREF(self->recorder);
    Py_XDECREF(self->path);
    Py_XDECREF(self->place);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *probe_repr(PyObject *object) {
    Probe *self = (Probe *)object;
    PyObject *parts = PyList_New(0), *separator = NULL, *joined = NULL, *text = NULL;
    if (!parts) return NULL;
    for (int index = 0; index < self->count; index++) {
        PyObject *part = PyUnicode_FromFormat("%U: %s", argument_name(self, index), type_of(self, index)->name);
        int failed = !part || PyList_Append(parts, part) < 0;
        Py_XDECREF(part);
        if (failed) goto done;
    }
    separator = PyUnicode_FromString(", ");
    joined = separator ? PyUnicode_Join(separator, parts) : NULL;
    if (joined) text = PyUnicode_FromFormat("<Probe %U:%U(%U)>", self->provider, self->name, joined);
done:
    Py_DECREF(parts);
    Py_XDECREF(separator);
    Py_XDECREF(joined);
    return text;
}

static PyMemberDef probe_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Probe, vectorcall), READONLY, NULL},
    {"provider", T_OBJECT, offsetof(Probe, provider), READONLY, "name of the provider"},
    {"name", T_OBJECT, offsetof(Probe, name), READONLY, "name of the probe"},
    {"doc", T_OBJECT, offsetof(Probe, doc), READONLY, "what the probe means"},
    {"stability", T_OBJECT, offsetof(Probe, stability), READONLY, "how likely the probe is to change, as declared"},
    {"shape", T_OBJECT, offsetof(Probe, shape), READONLY, "its arguments as they were declared"},
    {"place", T_OBJECT, offsetof(Probe, place), READONLY, "(file, line) of its declaration"},
    {"pristine", T_UBYTE, offsetof(Probe, pristine), READONLY, "the first byte of its site while nobody traces it"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef probe_getset[] = {
    {"enabled", get_enabled, NULL, "whether a tracer is attached to this probe now", NULL},
    {"fired", get_fired, NULL, "number of calls that this process has fired while somebody traced the probe", NULL},
    {"dropped", get_dropped, NULL, "number of calls that could not be fired while somebody traced the probe", NULL},
    {"arguments", get_arguments, NULL, "(name, type) of each argument, in order", NULL},
    {"path", get_path, NULL, "the file that carries the probe; None before it is loaded", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef probe_methods[] = {
    {"lazy", lazy, METH_O,
     "lazy(function): fire with the tuple that function() returns; it is called only while the probe is traced"},
    /* For type checkers (_probe.pyi) the type is generic over the parameters of a call. */
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(probe_doc, "A typed probe; calling it fires it. Made by Provider.probe().");

static PyType_Slot probe_slots[] = {
    {Py_tp_doc, (void *)probe_doc},
    {Py_tp_new, probe_new},
    {Py_tp_dealloc, probe_dealloc},
    {Py_tp_traverse, probe_traverse},
    {Py_tp_clear, probe_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, probe_repr},
    {Py_tp_members, probe_members},
    {Py_tp_methods, probe_methods},
    {Py_tp_getset, probe_getset},
    {0, NULL},
};

PyType_Spec probe_spec = {
    .name = "usdtkit._probe.Probe",
    .basicsize = sizeof(Probe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = probe_slots,
};
