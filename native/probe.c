/* usdtkit._probe: the callable that fires a probe, and the mapping of the file that carries its site.
 *
 * In: a library made by usdtkit.probes.image, and the probes that stand in it. Out: while nobody traces, a call is one
 * comparison of a byte; while somebody does, the arguments become integers and the stub is called as a C function,
 * whose first instruction is the site that the kernel has put a breakpoint on.
 *
 * What a call reads is written once, before `site` is published, and never freed: libraries stay mapped. So a probe may
 * be fired from any thread, a forked child, a signal handler and late in the interpreter's shutdown.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

#define MAX_OPERANDS 12
#define REGISTERS 6

typedef void stub6(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
typedef void stub12(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                    uint64_t, uint64_t);

enum kind { UNSIGNED, SIGNED, BOOL, FLOAT, STRING, BYTES };

struct type {
    const char *name;
    enum kind kind;
    int bits;
};

static const struct type types[] = {
    {"u8", UNSIGNED, 8}, {"u16", UNSIGNED, 16}, {"u32", UNSIGNED, 32}, {"u64", UNSIGNED, 64},
    {"i8", SIGNED, 8},   {"i16", SIGNED, 16},   {"i32", SIGNED, 32},   {"i64", SIGNED, 64},
    {"bool", BOOL, 8},   {"f64", FLOAT, 64},    {"str", STRING, 64},   {"bytes", BYTES, 64},
};

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    /* The first byte of the stub, or of one of the two constants below. */
    const volatile uint8_t *site;
    uint8_t pristine;
    uint8_t count;
    uint8_t operands;
    const struct type *types[MAX_OPERANDS];
    PyObject *provider, *name, *doc;
    PyObject *arguments; /* a tuple of (name, type) */
    PyObject *loader;
    PyObject *path;
} Probe;

/* Differs from `pristine` (0 until then), so that the first use of a probe leaves the fast path. */
static const uint8_t unloaded = 1;
/* Equals it: a probe that has no site anywhere. */
static const uint8_t silent = 0;

static inline const volatile uint8_t *site_of(Probe *self) { return __atomic_load_n(&self->site, __ATOMIC_ACQUIRE); }

static inline int armed(Probe *self) {
    uint8_t now = *site_of(self); /* before `pristine`: what is published together is read in order */
    return now != self->pristine;
}

/* Load a probe that is not loaded. 1: there is a tracer, 0: there is none, -1: an exception. */
static int load_and_look(Probe *self) {
    if (site_of(self) == &unloaded) {
        PyObject *loader = self->loader;
        if (!loader) return 0; /* the garbage collector has taken the provider to pieces */
        Py_INCREF(loader);
        PyObject *result = PyObject_CallNoArgs(loader);
        Py_DECREF(loader);
        if (!result) return -1;
        Py_DECREF(result);
        if (site_of(self) == &unloaded) return 0; /* fired from within its own loading */
    }
    return armed(self);
}

/* What one call holds until the stub has returned. */
struct operands {
    uint64_t values[MAX_OPERANDS];
    int count;
    Py_buffer buffers[MAX_OPERANDS / 2];
    int buffer_count;
    PyObject *owned[MAX_OPERANDS];
    int owned_count;
};

static void release(struct operands *operands) {
    while (operands->buffer_count) PyBuffer_Release(&operands->buffers[--operands->buffer_count]);
    while (operands->owned_count) Py_DECREF(operands->owned[--operands->owned_count]);
}

static PyObject *argument_name(Probe *self, int index) {
    return PyTuple_GET_ITEM(PyTuple_GET_ITEM(self->arguments, index), 0);
}

static int wrong_type(Probe *self, int index, PyObject *value) {
    PyErr_Format(PyExc_TypeError, "%U:%U() argument '%U' must be %s, not %.100s", self->provider, self->name,
                 argument_name(self, index), self->types[index]->name, Py_TYPE(value)->tp_name);
    return -1;
}

/* Replace an error of a conversion by one that names the probe and the argument; others pass. */
static int conversion_failed(Probe *self, int index, PyObject *value) {
    if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_BufferError)) {
        PyErr_Clear();
        return wrong_type(self, index, value);
    }
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%U:%U() argument '%U' is out of range for %s", self->provider, self->name,
                     argument_name(self, index), self->types[index]->name);
    }
    return -1;
}

static int convert_integer(Probe *self, int index, PyObject *value, uint64_t *operand) {
    const struct type *type = self->types[index];
    PyObject *number = PyNumber_Index(value);
    if (!number) return conversion_failed(self, index, value);
    int fits;
    if (type->kind == UNSIGNED) {
        *operand = PyLong_AsUnsignedLongLong(number);
        fits = type->bits == 64 || *operand >> type->bits == 0;
    } else {
        int64_t wide = PyLong_AsLongLong(number);
        int64_t limit = type->bits == 64 ? INT64_MAX : (INT64_C(1) << (type->bits - 1)) - 1;
        *operand = (uint64_t)wide;
        fits = wide <= limit && wide >= -limit - 1;
    }
    Py_DECREF(number);
    if (!PyErr_Occurred()) {
        if (fits) return 0;
        PyErr_SetNone(PyExc_OverflowError);
    }
    return conversion_failed(self, index, value);
}

static int convert_string(Probe *self, int index, PyObject *value, struct operands *operands) {
    if (!PyUnicode_Check(value)) return wrong_type(self, index, value);
    const char *text = PyUnicode_AsUTF8AndSize(value, NULL);
    if (!text) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return -1;
        /* Lone surrogates: bytes of a file name as os.fsdecode gives them become bytes again, others escapes. */
        PyErr_Clear();
        PyObject *bytes = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
        if (!bytes) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return -1;
            PyErr_Clear();
            bytes = PyUnicode_AsEncodedString(value, "utf-8", "backslashreplace");
            if (!bytes) return -1;
        }
        operands->owned[operands->owned_count++] = bytes;
        text = PyBytes_AS_STRING(bytes);
    }
    operands->values[operands->count++] = (uint64_t)(uintptr_t)text;
    return 0;
}

static int convert(Probe *self, int index, PyObject *value, struct operands *operands) {
    switch (self->types[index]->kind) {
    case UNSIGNED:
    case SIGNED:
        return convert_integer(self, index, value, &operands->values[operands->count++]);
    case BOOL:
        if (!PyBool_Check(value)) return wrong_type(self, index, value);
        operands->values[operands->count++] = value == Py_True;
        return 0;
    case FLOAT: {
        double number = PyFloat_AsDouble(value);
        if (number == -1.0 && PyErr_Occurred()) return conversion_failed(self, index, value);
        memcpy(&operands->values[operands->count++], &number, sizeof number);
        return 0;
    }
    case STRING:
        return convert_string(self, index, value, operands);
    case BYTES: {
        Py_buffer *buffer = &operands->buffers[operands->buffer_count];
        if (PyObject_GetBuffer(value, buffer, PyBUF_SIMPLE) < 0) return conversion_failed(self, index, value);
        operands->buffer_count++;
        operands->values[operands->count++] = (uint64_t)(uintptr_t)buffer->buf;
        operands->values[operands->count++] = (uint64_t)buffer->len;
        return 0;
    }
    }
    Py_UNREACHABLE();
}

/* Bring the values of a call into the order of the declaration; borrowed references. */
static int arrange(Probe *self, PyObject *const *given, Py_ssize_t positional, PyObject *names,
                   PyObject *values[MAX_OPERANDS]) {
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (positional > self->count) {
        PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments but %zd were given", self->provider, self->name,
                     self->count, positional + named);
        return -1;
    }
    for (int index = 0; index < self->count; index++) values[index] = index < positional ? given[index] : NULL;
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(names, at);
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
        values[index] = given[positional + at];
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

static void call_stub(Probe *self, const uint64_t *v) {
    uintptr_t stub = (uintptr_t)self->site;
    if (self->operands <= REGISTERS)
        ((stub6 *)stub)(v[0], v[1], v[2], v[3], v[4], v[5]);
    else
        ((stub12 *)stub)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11]);
}

static PyObject *fire_armed(Probe *self, PyObject *const *given, size_t positional, PyObject *names) {
    int looked_at = load_and_look(self);
    if (looked_at < 0) return NULL;
    if (!looked_at) Py_RETURN_NONE;

    PyObject *values[MAX_OPERANDS];
    if (arrange(self, given, PyVectorcall_NARGS(positional), names, values) < 0) return NULL;
    struct operands operands;
    operands.count = operands.buffer_count = operands.owned_count = 0;
    memset(operands.values, 0, sizeof operands.values);
    for (int index = 0; index < self->count; index++) {
        if (convert(self, index, values[index], &operands) < 0) {
            release(&operands);
            return NULL;
        }
    }
    call_stub(self, operands.values);
    release(&operands);
    Py_RETURN_NONE;
}

static PyObject *fire(PyObject *object, PyObject *const *given, size_t positional, PyObject *names) {
    Probe *self = (Probe *)object;
    if (__builtin_expect(!armed(self), 1)) Py_RETURN_NONE;
    return fire_armed(self, given, positional, names);
}

static PyObject *get_enabled(PyObject *object, void *Py_UNUSED(closure)) {
    Probe *self = (Probe *)object;
    if (!armed(self)) Py_RETURN_FALSE;
    int looked_at = load_and_look(self);
    return looked_at < 0 ? NULL : PyBool_FromLong(looked_at);
}

/* Fill in the types of the arguments from a tuple of (name, type), which Python code has checked: not taken for granted. */
static int read_arguments(Probe *self) {
    Py_ssize_t count = PyTuple_GET_SIZE(self->arguments);
    int operands = 0;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *pair = PyTuple_GET_ITEM(self->arguments, index);
        const struct type *type = NULL;
        if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 && PyUnicode_Check(PyTuple_GET_ITEM(pair, 0)) &&
            PyUnicode_Check(PyTuple_GET_ITEM(pair, 1)))
            for (size_t at = 0; at < sizeof types / sizeof *types; at++)
                if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(pair, 1), types[at].name) == 0) type = &types[at];
        if (!type) {
            PyErr_SetString(PyExc_TypeError, "arguments must be (name, type) pairs");
            return -1;
        }
        operands += type->kind == BYTES ? 2 : 1;
        if (operands > MAX_OPERANDS) {
            PyErr_SetString(PyExc_ValueError, "too many arguments");
            return -1;
        }
        self->types[index] = type;
    }
    self->count = (uint8_t)count;
    self->operands = (uint8_t)operands;
    return 0;
}

static PyObject *probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"provider", "name", "doc", "arguments", "loader", NULL};
    PyObject *provider, *name, *doc, *arguments, *loader;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UUUO!O:Probe", keywords, &provider, &name, &doc, &PyTuple_Type,
                                     &arguments, &loader))
        return NULL;
    Probe *self = (Probe *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->vectorcall = fire;
    self->site = &unloaded;
    self->provider = Py_NewRef(provider);
    self->name = Py_NewRef(name);
    self->doc = Py_NewRef(doc);
    self->arguments = Py_NewRef(arguments);
    self->loader = Py_NewRef(loader);
    self->path = Py_NewRef(Py_None);
    if (read_arguments(self) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static int probe_traverse(PyObject *object, visitproc visit, void *arg) {
    Probe *self = (Probe *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->arguments);
    Py_VISIT(self->loader);
    return 0;
}

/* Only the loader can be part of a cycle; what a call reads stays until the last reference goes. */
static int probe_clear(PyObject *object) {
    Py_CLEAR(((Probe *)object)->loader);
    return 0;
}

static void probe_dealloc(PyObject *object) {
    Probe *self = (Probe *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->provider);
    Py_XDECREF(self->name);
    Py_XDECREF(self->doc);
    Py_XDECREF(self->arguments);
    Py_XDECREF(self->loader);
    Py_XDECREF(self->path);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *probe_repr(PyObject *object) {
    Probe *self = (Probe *)object;
    PyObject *parts = PyList_New(0), *separator = NULL, *joined = NULL, *text = NULL;
    if (!parts) return NULL;
    for (int index = 0; index < self->count; index++) {
        PyObject *part = PyUnicode_FromFormat("%U: %s", argument_name(self, index), self->types[index]->name);
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
    {"arguments", T_OBJECT, offsetof(Probe, arguments), READONLY, "(name, type) of each argument, in order"},
    {"path", T_OBJECT, offsetof(Probe, path), READONLY, "the file that carries the probe; None before it is loaded"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef probe_getset[] = {
    {"enabled", get_enabled, NULL, "whether a tracer is attached to this probe now", NULL},
    {NULL, NULL, NULL, NULL, NULL},
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
    {Py_tp_getset, probe_getset},
    {0, NULL},
};

static PyType_Spec probe_spec = {
    .name = "usdtkit._probe.Probe",
    .basicsize = sizeof(Probe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = probe_slots,
};

struct state {
    PyTypeObject *probe_type;
};

static Probe *as_probe(PyObject *module, PyObject *object) {
    struct state *state = PyModule_GetState(module);
    if (Py_IS_TYPE(object, state->probe_type)) return (Probe *)object;
    PyErr_Format(PyExc_TypeError, "expected a Probe, not %.100s", Py_TYPE(object)->tp_name);
    return NULL;
}

/* Publish a site, once: everything else that a call reads is in place before. */
static void bind(Probe *self, const volatile uint8_t *site, uint8_t pristine, PyObject *path) {
    if (site_of(self) != &unloaded) return;
    PyObject *before = self->path;
    self->path = Py_NewRef(path);
    self->pristine = pristine;
    __atomic_store_n(&self->site, site, __ATOMIC_RELEASE);
    Py_DECREF(before);
}

static int library_error(void) {
    const char *reason = dlerror();
    PyErr_SetString(PyExc_OSError, reason ? reason : "the dynamic linker gives no reason");
    return -1;
}

/* Look every symbol up before any probe is bound. */
static int find_sites(PyObject *module, void *library, PyObject *probes, void **sites) {
    PyObject *symbol, *object;
    Py_ssize_t position = 0, at = 0;
    while (PyDict_Next(probes, &position, &symbol, &object)) {
        const char *text = PyUnicode_AsUTF8AndSize(symbol, NULL);
        if (!text || !as_probe(module, object)) return -1;
        sites[at] = dlsym(library, text);
        if (!sites[at++]) return library_error();
    }
    return 0;
}

static PyObject *load(PyObject *module, PyObject *args) {
    PyObject *path, *encoded, *probes, *result = NULL;
    unsigned char pristine;
    if (!PyArg_ParseTuple(args, "UO!b:load", &path, &PyDict_Type, &probes, &pristine)) return NULL;
    if (!PyUnicode_FSConverter(path, &encoded)) return NULL;
    void *library;
    Py_BEGIN_ALLOW_THREADS
    library = dlopen(PyBytes_AS_STRING(encoded), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    Py_END_ALLOW_THREADS
    Py_DECREF(encoded);
    if (!library) {
        library_error();
        return NULL;
    }
    void **sites = PyMem_Calloc((size_t)PyDict_GET_SIZE(probes) + 1, sizeof *sites);
    if (!sites) return PyErr_NoMemory();
    if (find_sites(module, library, probes, sites) == 0) {
        PyObject *symbol, *object;
        Py_ssize_t position = 0, at = 0;
        while (PyDict_Next(probes, &position, &symbol, &object)) bind((Probe *)object, sites[at++], pristine, path);
        result = Py_NewRef(Py_None);
    }
    PyMem_Free(sites);
    return result;
}

static PyObject *silence(PyObject *module, PyObject *object) {
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    bind(self, &silent, silent, Py_None);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"load", load, METH_VARARGS, "load(path, probes, pristine): map a library for good and bind {symbol: probe}"},
    {"silence", silence, METH_O, "silence(probe): bind a probe that is not bound to nothing"},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    state->probe_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &probe_spec, NULL);
    if (!state->probe_type) return -1;
    return PyModule_AddType(module, state->probe_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->probe_type);
    return 0;
}

static int module_clear(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->probe_type);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "usdtkit._probe",
    .m_doc = "The callable behind usdtkit.Probe.",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__probe(void) { return PyModuleDef_Init(&module_definition); }
