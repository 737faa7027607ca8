/* Declarations → Probe objects.
 *
 * In: a name and a shape, which usdtkit.probes.declaration has checked. Out: a Probe that is not loaded yet. An
 * application declares hundreds of probes while it starts, so the Declarer, which stands for Provider.probe, makes a
 * probe without any Python code when the declaration is plain and its arguments are known. It leaves all others to
 * Provider.probe.
 */

#include "probe.h"

#include <frameobject.h> /* PyFrame_GetBack, before 3.11 */
#include <structmember.h>

/* Reads the types of the arguments from a shape. Python code has checked the shape, but a crash must not depend on
 * it. */
static int read_shape(Probe *self, PyObject *shape) {
    if (!PyTuple_Check(shape) || PyTuple_GET_SIZE(shape) < SHAPE_SIZE ||
        !PyTuple_Check(PyTuple_GET_ITEM(shape, ARGUMENTS)) || !PyTuple_Check(PyTuple_GET_ITEM(shape, CONVERTERS)) ||
        !PyBytes_Check(PyTuple_GET_ITEM(shape, TYPE_NUMBERS)) || !PyUnicode_Check(PyTuple_GET_ITEM(shape, TEXT))) {
        PyErr_SetString(PyExc_TypeError, "a shape is a tuple of arguments, converters, type numbers and a text");
        return -1;
    }
    PyObject *arguments = PyTuple_GET_ITEM(shape, ARGUMENTS), *converters = PyTuple_GET_ITEM(shape, CONVERTERS);
    const uint8_t *numbers = (const uint8_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(shape, TYPE_NUMBERS));
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    if (PyTuple_GET_SIZE(converters) != count || PyBytes_GET_SIZE(PyTuple_GET_ITEM(shape, TYPE_NUMBERS)) != count) {
        PyErr_SetString(PyExc_ValueError, "a shape has one converter and one type number for each argument");
        return -1;
    }
    int operands = 0;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *pair = PyTuple_GET_ITEM(arguments, index), *converter = PyTuple_GET_ITEM(converters, index);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0))) {
            PyErr_SetString(PyExc_TypeError, "arguments must be (name, type) pairs");
            return -1;
        }
        if (numbers[index] >= TYPE_COUNT) {
            PyErr_SetString(PyExc_ValueError, "there is no type with this number");
            return -1;
        }
        const struct type *type = &argument_types[numbers[index]];
        if ((type->kind == ENUM && !PyDict_Check(converter)) || (type->kind == JSON && !PyCallable_Check(converter))) {
            PyErr_SetString(PyExc_TypeError, "an enum needs a dict, a json a callable");
            return -1;
        }
        operands += operands_of(type);
        if (operands > MAX_OPERANDS) {
            PyErr_SetString(PyExc_ValueError, "too many arguments");
            return -1;
        }
        self->types[index] = numbers[index];
    }
    self->count = (uint8_t)count;
    self->shape = Py_NewRef(shape);
    return 0;
}

/* (file, line) of the code that declares the probe: the innermost frame that is not the package's own. */
static PyObject *place_of_caller(PyTypeObject *type) {
    struct state *state = PyType_GetModuleState(type);
    PyFrameObject *frame = (PyFrameObject *)Py_XNewRef(PyEval_GetFrame());
    PyObject *place = NULL;
    while (frame && !place) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *file = code->co_filename, *package = state->package_path;
        Py_ssize_t is_ours = package ? PyUnicode_Tailmatch(file, package, 0, PY_SSIZE_T_MAX, -1) : 0;
        PyFrameObject *back = is_ours > 0 ? PyFrame_GetBack(frame) : NULL;
        if (!back) place = Py_BuildValue("Oi", file, PyFrame_GetLineNumber(frame));
        Py_DECREF(code);
        Py_DECREF(frame);
        frame = back;
        if (!back && !place) return NULL;
    }
    return place ? place : Py_NewRef(Py_None);
}

/* Makes a probe. Steals the reference to `place`, also when it fails. */
static PyObject *make_probe(PyTypeObject *type, PyObject *const *values, int drops, PyObject *place) {
    for (int at = 0; at < 4; at++) {
        if (PyUnicode_Check(values[at])) continue;
        PyErr_SetString(PyExc_TypeError, "provider, name, doc and stability must be str");
        Py_XDECREF(place);
        return NULL;
    }
    Probe *self = place ? (Probe *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        Py_XDECREF(place);
        return NULL;
    }
    self->place = place;
    self->vectorcall = fire;
    self->site = &unloaded;
    self->counts = &self->own;
    self->drops = (uint8_t)drops;
    self->provider = Py_NewRef(values[0]);
    self->name = Py_NewRef(values[1]);
    self->doc = Py_NewRef(values[2]);
    self->stability = Py_NewRef(values[3]);
    self->loader = Py_NewRef(values[5]);
    self->path = Py_NewRef(Py_None);
    if (read_shape(self, values[4]) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

PyObject *probe_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (kwnames || count < 6 || count > 7) {
        PyErr_SetString(PyExc_TypeError,
                        "Probe() takes provider, name, doc, stability, shape, loader and optionally drops");
        return NULL;
    }
    long drops = count > 6 ? PyLong_AsLong(args[6]) : RAISES;
    if (drops < RAISES || drops > DROPS_UNLESS_RECORDED) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "drops is 0, 1 or 2");
        return NULL;
    }
    return make_probe((PyTypeObject *)type, args, (int)drops, place_of_caller((PyTypeObject *)type));
}

PyObject *probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *values[7];
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    for (Py_ssize_t at = 0; at < count && at < 7; at++) values[at] = PyTuple_GET_ITEM(args, at);
    return probe_vectorcall((PyObject *)type, values, (size_t)count, kwargs);
}

/* Declares the probes of one provider. It calls `general`, a function of Python, for each declaration that it does not
 * make itself: one with arguments that are seen for the first time, with unusual options, or with a mistake. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *general;
    PyObject *provider, *loader;
    PyObject *declared; /* a dict: name → probe */
    PyObject *shapes;   /* a dict: (name, type, name, type…) → shape */
    int drops;
    char quick; /* whether a new probe needs nothing but to be declared */
} Declarer;

enum { MAX_NAME = 64, SHORT_DOC = 1024, LONGEST_TYPE = 8 };

/* Whether this is plainly a valid name. Python code decides about all others. */
static int is_plain_name(PyObject *name) {
    if (!PyUnicode_CheckExact(name) || !PyUnicode_IS_READY(name) || !PyUnicode_IS_ASCII(name)) return 0;
    return PyUnicode_GET_LENGTH(name) <= MAX_NAME && PyUnicode_IsIdentifier(name) == 1;
}

/* Whether this is plainly a description. A short one may be the name of a type, and the declaration of an argument. */
static int is_plain_doc(PyObject *doc) {
    return PyUnicode_CheckExact(doc) && PyUnicode_IS_READY(doc) && PyUnicode_IS_ASCII(doc) &&
           PyUnicode_GET_LENGTH(doc) >= LONGEST_TYPE + 1 && PyUnicode_GET_LENGTH(doc) <= SHORT_DOC;
}

/* A new reference to the value of a key, or NULL. */
static PyObject *lookup(PyObject *dict, PyObject *key) {
    PyObject *value;
#if PY_VERSION_HEX >= 0x030d0000
    (void)PyDict_GetItemRef(dict, key, &value);
#else
    value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
    /* The key holds what the caller gave as types, which need not be hashable. */
    if (!value && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Clear();
    return value;
}

/* A new probe; or NULL, without an exception if `general` has to be called. */
static PyObject *declare_quickly(Declarer *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (nargs != 1 || !is_plain_name(args[0])) return NULL;
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0, count = named;
    Py_ssize_t doc_at = -1;
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        if (PyUnicode_CompareWithASCIIString(name, "doc") == 0) {
            if (!is_plain_doc(args[1 + at])) return NULL;
            doc_at = at;
            count--;
        } else if (PyUnicode_CompareWithASCIIString(name, "stability") == 0 ||
                   PyUnicode_CompareWithASCIIString(name, "on_error") == 0) {
            return NULL;
        }
    }
    PyObject *key = PyTuple_New(2 * count), *empty = PyUnicode_New(0, 0), *shape = NULL, *probe = NULL;
    if (!key || !empty) goto done;
    for (Py_ssize_t at = 0, to = 0; at < named; at++) {
        if (at == doc_at) continue;
        PyTuple_SET_ITEM(key, to++, Py_NewRef(PyTuple_GET_ITEM(kwnames, at)));
        PyTuple_SET_ITEM(key, to++, Py_NewRef(args[1 + at]));
    }
    shape = lookup(self->shapes, key);
    if (!shape) goto done;
    struct state *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *values[] = {self->provider, args[0], doc_at < 0 ? empty : args[1 + doc_at], empty, shape, self->loader};
    probe = make_probe(state->probe_type, values, self->drops, place_of_caller(state->probe_type));
    /* Set in one step: two threads that declare the same probe both get that of the first one. `quick` is read only
     * then, because whoever silences or records all probes clears it before going through those that are declared. */
    if (probe && (PyDict_SetDefault(self->declared, args[0], probe) != probe ||
                  !__atomic_load_n(&self->quick, __ATOMIC_SEQ_CST)))
        Py_CLEAR(probe);
done:
    Py_XDECREF(key);
    Py_XDECREF(empty);
    Py_XDECREF(shape);
    return probe;
}

static PyObject *declare(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Declarer *self = (Declarer *)object;
    PyObject *probe = declare_quickly(self, args, PyVectorcall_NARGS(nargsf), kwnames);
    return probe || PyErr_Occurred() ? probe : PyObject_Vectorcall(self->general, args, nargsf, kwnames);
}

static PyObject *declarer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"general", "provider", "loader", "declared", "shapes", "drops", NULL};
    PyObject *general, *provider, *loader, *declared, *shapes;
    int drops;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OUOO!O!i:Declarer", keywords, &general, &provider, &loader,
                                     &PyDict_Type, &declared, &PyDict_Type, &shapes, &drops))
        return NULL;
    if (drops < RAISES || drops > DROPS_UNLESS_RECORDED) {
        PyErr_SetString(PyExc_ValueError, "drops is 0, 1 or 2");
        return NULL;
    }
    Declarer *self = (Declarer *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->vectorcall = declare;
    self->general = Py_NewRef(general);
    self->provider = Py_NewRef(provider);
    self->loader = Py_NewRef(loader);
    self->declared = Py_NewRef(declared);
    self->shapes = Py_NewRef(shapes);
    self->drops = drops;
    self->quick = 1;
    return (PyObject *)self;
}

static int declarer_traverse(PyObject *object, visitproc visit, void *arg) {
    Declarer *self = (Declarer *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->general);
    Py_VISIT(self->loader);
    Py_VISIT(self->declared);
    Py_VISIT(self->shapes);
    return 0;
}

static void declarer_dealloc(PyObject *object) {
    Declarer *self = (Declarer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_DECREF(self->general);
    Py_DECREF(self->provider);
    Py_DECREF(self->loader);
    Py_DECREF(self->declared);
    Py_DECREF(self->shapes);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *declarer_doc(PyObject *object, void *Py_UNUSED(closure)) {
    return PyObject_GetAttrString(((Declarer *)object)->general, "__doc__");
}

static PyGetSetDef declarer_getset[] = {
    {"__doc__", declarer_doc, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef declarer_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Declarer, vectorcall), READONLY, NULL},
    {"__wrapped__", T_OBJECT, offsetof(Declarer, general), READONLY, "the Python function that it stands for"},
    {"quick", T_BOOL, offsetof(Declarer, quick), 0, "whether it may declare a probe without calling that function"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot declarer_slots[] = {
    {Py_tp_new, declarer_new},
    {Py_tp_dealloc, declarer_dealloc},
    {Py_tp_traverse, declarer_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, declarer_members},
    {Py_tp_getset, declarer_getset},
    {0, NULL},
};

PyType_Spec declarer_spec = {
    .name = "usdtkit._probe.Declarer",
    .basicsize = sizeof(Declarer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = declarer_slots,
};
