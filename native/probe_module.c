/* The module usdtkit._probe: its functions, and the state that its two types share.
 *
 * In: calls from usdtkit.probes.provider, which decides what is silent, loaded or recorded. Out: the `site` of each
 * probe, set so that probe.c needs to compare no more than one byte.
 */

#include "probe.h"

#include <unistd.h>

Probe *as_probe(PyObject *module, PyObject *object) {
    struct state *state = PyModule_GetState(module);
    if (Py_IS_TYPE(object, state->probe_type)) return (Probe *)object;
    PyErr_Format(PyExc_TypeError, "expected a Probe, not %.100s", Py_TYPE(object)->tp_name);
    return NULL;
}

static PyObject *set_silenced(PyObject *module, PyObject *object, uint8_t silenced) {
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    self->silenced = silenced;
    if (!self->recorder) set_site(self, unrecorded_site(self));
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *silence(PyObject *module, PyObject *probe) { return set_silenced(module, probe, 1); }
static PyObject *unsilence(PyObject *module, PyObject *probe) { return set_silenced(module, probe, 0); }

static PyObject *set_recorder(PyObject *module, PyObject *args) {
    PyObject *object, *recorder, *previous;
    if (!PyArg_ParseTuple(args, "OO:set_recorder", &object, &recorder)) return NULL;
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    previous = self->recorder;
    self->recorder = Py_IsNone(recorder) ? NULL : Py_NewRef(recorder);
    set_site(self, self->recorder ? &recording : unrecorded_site(self));
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(previous);
    Py_RETURN_NONE;
}

/* For usdtkit._python, which fires probes by itself. */
static PyObject *counters(PyObject *module, PyObject *object) {
    Probe *self = as_probe(module, object);
    return self ? PyLong_FromVoidPtr(self->counts) : NULL;
}

static PyObject *tell_hooks(PyObject *module, PyObject *args) {
    PyObject *object;
    int are_set;
    if (!PyArg_ParseTuple(args, "Op:tell_hooks", &object, &are_set)) return NULL;
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    __atomic_store_n(&self->counts->hooks, are_set ? HOOKS_SET : HOOKS_NOT_SET, __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

static PyObject *on_drop(PyObject *module, PyObject *args) {
    struct state *state = PyModule_GetState(module);
    PyObject *report_drop, *package_path;
    if (!PyArg_ParseTuple(args, "OU:on_drop", &report_drop, &package_path)) return NULL;
    Py_XSETREF(state->report_drop, Py_NewRef(report_drop));
    Py_XSETREF(state->package_path, Py_NewRef(package_path));
    Py_RETURN_NONE;
}

/* All threads and interpreters of a process share one count. A forked child goes on with its own copy and another
 * pid. */
uint64_t next_span_number(void) {
    static uint32_t count;
    uint32_t number = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
    return (uint64_t)getpid() << 32 | number;
}

static PyObject *span_number(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyLong_FromUnsignedLongLong(next_span_number());
}

static PyObject *on_span(PyObject *module, PyObject *foreign) {
    Py_XSETREF(((struct state *)PyModule_GetState(module))->foreign, Py_NewRef(foreign));
    Py_RETURN_NONE;
}

static PyObject *columns(PyObject *module, PyObject *probes) {
    if (!PyTuple_Check(probes)) {
        PyErr_SetString(PyExc_TypeError, "probes must be a tuple");
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(probes);
    PyObject *result = PyTuple_New(4);
    for (int column = 0; result && column < 4; column++) {
        PyObject *items = PyTuple_New(count);
        if (!items) Py_CLEAR(result);
        else PyTuple_SET_ITEM(result, column, items);
    }
    for (Py_ssize_t at = 0; result && at < count; at++) {
        Probe *probe = as_probe(module, PyTuple_GET_ITEM(probes, at));
        if (!probe) {
            Py_DECREF(result);
            return NULL;
        }
        PyObject *items[] = {probe->name, probe->doc, probe->stability, shape_item(probe, TEXT)};
        for (int column = 0; column < 4; column++)
            PyTuple_SET_ITEM(PyTuple_GET_ITEM(result, column), at, Py_NewRef(items[column]));
    }
    return result;
}

static PyMethodDef methods[] = {
    {"span_number", span_number, METH_NOARGS, "span_number() -> a number that no other span has now"},
    {"on_span", on_span, METH_O,
     "on_span(foreign): foreign() returns the trace id and the span id of another SDK's span, or None"},
    {"columns", columns, METH_O, "columns(probes) -> tuples of their names, docs, stabilities and canonical arguments"},
    {"load", load, METH_VARARGS,
     "load(path, probes, pristine, offset, stride, renewed=0): map a library for good and bind probes to its stubs"},
    {"report", report, METH_O, "report(text) -> whether there was room for it in what other processes can read"},
    {"tell_hooks", tell_hooks, METH_VARARGS, "tell_hooks(probe, are_set): say to other processes whether hooks are set"},
    {"counters", counters, METH_O, "counters(probe) -> the address of two numbers of 64 bits: fired and dropped"},
    {"silence", silence, METH_O, "silence(probe): it is not enabled any more, even if somebody traces it"},
    {"unsilence", unsilence, METH_O, "unsilence(probe): undo silence"},
    {"set_recorder", set_recorder, METH_VARARGS,
     "set_recorder(probe, callable or None): call recorder(probe, values) at each fire"},
    {"on_drop", on_drop, METH_VARARGS,
     "on_drop(report_drop, package_path): for each dropped call, report_drop(probe, exception) returns the exception "
     "to raise or None; code in files whose names begin with package_path declares probes for others"},
    {"optimises", optimises, METH_NOARGS,
     "optimises() -> whether the kernel replaces a traced five-byte nop by a call"},
    {NULL, NULL, 0, NULL},
};

/* The names of the types in the order of their numbers, to be compared with the table in Python. */
static PyObject *type_names(void) {
    PyObject *names = PyTuple_New(TYPE_COUNT);
    for (int number = 0; names && number < TYPE_COUNT; number++) {
        PyObject *name = PyUnicode_FromString(argument_types[number].name);
        if (name) PyTuple_SET_ITEM(names, number, name);
        else Py_CLEAR(names);
    }
    return names;
}

/* The types that Python code makes objects of, and those that only C code does. */
static int add_types(PyObject *module, struct state *state) {
    const struct {
        PyType_Spec *spec;
        PyTypeObject **type;
        int is_public;
    } types[] = {
        {&probe_spec, &state->probe_type, 1},   {&declarer_spec, &state->declarer_type, 1},
        {&live_spec, &state->live_type, 1},     {&awaited_spec, &state->awaited_type, 0},
        {&span_spec, &state->span_type, 1},     {&span_by_name_spec, &state->span_by_name_type, 1},
        {&traced_spec, &state->traced_type, 1},
    };
    for (size_t at = 0; at < sizeof types / sizeof *types; at++) {
        *types[at].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[at].spec, NULL);
        if (!*types[at].type || (types[at].is_public && PyModule_AddType(module, *types[at].type) < 0)) return -1;
    }
    state->probe_type->tp_vectorcall = probe_vectorcall;
    return 0;
}

static int module_exec(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    if (add_types(module, state) < 0) return -1;
    state->current = PyContextVar_New("usdtkit_span", NULL);
    state->untraced = state->current ? state->live_type->tp_alloc(state->live_type, 0) : NULL;
    if (!state->untraced || PyModule_AddObjectRef(module, "UNTRACED", state->untraced) < 0) return -1;
    PyObject *names = type_names();
    int result = names ? PyModule_AddObjectRef(module, "TYPES", names) : -1;
    Py_XDECREF(names);
    return result;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->probe_type);
    Py_VISIT(state->declarer_type);
    Py_VISIT(state->live_type);
    Py_VISIT(state->awaited_type);
    Py_VISIT(state->span_type);
    Py_VISIT(state->span_by_name_type);
    Py_VISIT(state->traced_type);
    Py_VISIT(state->report_drop);
    Py_VISIT(state->untraced);
    Py_VISIT(state->current);
    Py_VISIT(state->foreign);
    return 0;
}

static int module_clear(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->probe_type);
    Py_CLEAR(state->declarer_type);
    Py_CLEAR(state->live_type);
    Py_CLEAR(state->awaited_type);
    Py_CLEAR(state->span_type);
    Py_CLEAR(state->span_by_name_type);
    Py_CLEAR(state->traced_type);
    Py_CLEAR(state->report_drop);
    Py_CLEAR(state->package_path);
    Py_CLEAR(state->untraced);
    Py_CLEAR(state->current);
    Py_CLEAR(state->foreign);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

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
