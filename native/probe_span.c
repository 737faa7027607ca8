/* Declared spans: what Provider.define_span returns, and what stands for Provider.span.
 *
 * In: the values of a call. Out: a LiveSpan for `with`. While nobody traces either end of a span, all calls return the
 * same one, which does nothing. probe_live.c has the others.
 */

#include "probe.h"

#include <structmember.h>

static PyObject *span_traced(Span *self, PyObject *const *args, Py_ssize_t count, PyObject *kwnames) {
    struct state *state = PyType_GetModuleState(Py_TYPE(self));
    int traced = is_traced(self);
    if (traced < 0) return NULL;
    if (traced) {
        Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
        LiveSpan *live = new_live(state, self->start, self->done, args, count + named, kwnames);
        if (live) return (PyObject *)live;
        PyErr_Clear(); /* memory is short */
    }
    return Py_NewRef(self->untraced);
}

static PyObject *span_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Span *self = (Span *)object;
    if (__builtin_expect(!plainly_untraced(self), 0))
        return span_traced(self, args, PyVectorcall_NARGS(nargsf), kwnames);
    return Py_NewRef(self->untraced);
}

static PyObject *span_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"name", "start", "done", NULL};
    struct state *state = PyType_GetModuleState(type);
    PyObject *name, *start, *done;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UO!O!:Span", keywords, &name, state->probe_type, &start,
                                     state->probe_type, &done))
        return NULL;
    Span *self = (Span *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->vectorcall = span_call;
    self->name = Py_NewRef(name);
    self->start = (Probe *)Py_NewRef(start);
    self->done = (Probe *)Py_NewRef(done);
    self->untraced = Py_NewRef(state->untraced);
    return (PyObject *)self;
}

static PyObject *span_enabled(PyObject *self, void *Py_UNUSED(closure)) {
    int traced = is_traced((Span *)self);
    return traced < 0 ? NULL : PyBool_FromLong(traced);
}

static PyObject *span_repr(PyObject *self) {
    return PyUnicode_FromFormat("<Span %U:%U>", ((Span *)self)->start->provider, ((Span *)self)->name);
}

static int span_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Span *)self)->start);
    Py_VISIT(((Span *)self)->done);
    Py_VISIT(((Span *)self)->untraced);
    return 0;
}

static void span_dealloc(PyObject *object) {
    Span *self = (Span *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_DECREF(self->name);
    Py_DECREF(self->start);
    Py_DECREF(self->done);
    Py_DECREF(self->untraced);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef span_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Span, vectorcall), READONLY, NULL},
    {"name", T_OBJECT, offsetof(Span, name), READONLY, "name of the span"},
    {"start", T_OBJECT, offsetof(Span, start), READONLY, "the probe that fires at its begin"},
    {"done", T_OBJECT, offsetof(Span, done), READONLY, "the probe that fires at its end"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef span_getset[] = {
    {"enabled", span_enabled, NULL, "whether a tracer is attached to its start or its end", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef span_methods[] = {
    /* For type checkers (_probe.pyi) the type is generic over the parameters of a call. */
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot span_slots[] = {
    {Py_tp_doc, "A declared span. Called with its values it returns a LiveSpan. Made by Provider.define_span()."},
    {Py_tp_new, span_new},
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_traverse, span_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, span_repr},
    {Py_tp_members, span_members},
    {Py_tp_methods, span_methods},
    {Py_tp_getset, span_getset},
    {0, NULL},
};

PyType_Spec span_spec = {
    .name = "usdtkit._probe.Span",
    .basicsize = sizeof(Span),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = span_slots,
};

/* Calls the span that has been declared under the name that is the first value. It calls `general`, which is
 * Provider.span, for a name that it does not know and for a call with a mistake. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *general;
    PyObject *spans; /* a dict: name → Span */
} SpanByName;

static PyObject *by_name(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    SpanByName *self = (SpanByName *)object;
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    struct state *state = PyType_GetModuleState(Py_TYPE(object));
    PyObject *span = NULL;
    if (count == 1 && PyUnicode_CheckExact(args[0])) {
#if PY_VERSION_HEX >= 0x030d0000
        (void)PyDict_GetItemRef(self->spans, args[0], &span);
#else
        span = Py_XNewRef(PyDict_GetItemWithError(self->spans, args[0]));
#endif
    }
    if (!span || !Py_IS_TYPE(span, state->span_type)) {
        Py_XDECREF(span);
        return PyErr_Occurred() ? NULL : PyObject_Vectorcall(self->general, args, nargsf, kwnames);
    }
    PyObject *live = span_call(span, args + 1, 0, kwnames);
    Py_DECREF(span);
    return live;
}

static PyObject *by_name_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"general", "spans", NULL};
    PyObject *general, *spans;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!:SpanByName", keywords, &general, &PyDict_Type, &spans))
        return NULL;
    SpanByName *self = (SpanByName *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->vectorcall = by_name;
    self->general = Py_NewRef(general);
    self->spans = Py_NewRef(spans);
    return (PyObject *)self;
}

static int by_name_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((SpanByName *)self)->general);
    Py_VISIT(((SpanByName *)self)->spans);
    return 0;
}

static void by_name_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(((SpanByName *)self)->general);
    Py_DECREF(((SpanByName *)self)->spans);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *by_name_doc(PyObject *self, void *Py_UNUSED(closure)) {
    return PyObject_GetAttrString(((SpanByName *)self)->general, "__doc__");
}

static PyGetSetDef by_name_getset[] = {
    {"__doc__", by_name_doc, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef by_name_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(SpanByName, vectorcall), READONLY, NULL},
    {"__wrapped__", T_OBJECT, offsetof(SpanByName, general), READONLY, "the Python function that it stands for"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot by_name_slots[] = {
    {Py_tp_new, by_name_new},
    {Py_tp_dealloc, by_name_dealloc},
    {Py_tp_traverse, by_name_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, by_name_members},
    {Py_tp_getset, by_name_getset},
    {0, NULL},
};

PyType_Spec span_by_name_spec = {
    .name = "usdtkit._probe.SpanByName",
    .basicsize = sizeof(SpanByName),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = by_name_slots,
};
