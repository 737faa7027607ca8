/* Types of events, and the module usdtkit._events.
 *
 * In: the names of an event's fields. Out: a type with a member for each of its values, which the interpreter reads
 * without a call; events_decode.c makes its objects from the records of a ring buffer, `make` those of anything else.
 * Types and events are made once and never change. usdtkit.bpf.layout decodes the same records in Python, and the tests
 * compare both.
 *
 * The garbage collector knows only the events that `make` was given other values than numbers and texts for. Those that
 * are decoded from records refer to nothing that leads back to them, and with the collector each would cost twice as
 * much.
 */

#include "events.h"

#include <structmember.h>

enum { MAX_FIELDS = 4096 };

static inline Py_ssize_t value_count(PyTypeObject *type) {
    return (type->tp_basicsize - (Py_ssize_t)offsetof(Event, values)) / (Py_ssize_t)sizeof(PyObject *);
}

static void Event_dealloc(Event *self) {
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0, count = value_count(type); i < count; i++) Py_XDECREF(self->values[i]);
    PyObject_Free(self);
    Py_DECREF(type);
}

static void CollectedEvent_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, CollectedEvent_dealloc) /* events may be nested deeply */
    for (Py_ssize_t i = 0, count = value_count(type); i < count; i++) Py_XDECREF(((Event *)self)->values[i]);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* There is no tp_clear, because an event does not change. The object that was changed to close a cycle is cleared. */
static int CollectedEvent_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0, count = value_count(Py_TYPE(self)); i < count; i++) Py_VISIT(((Event *)self)->values[i]);
    return 0;
}

static int is_event_type(PyTypeObject *type) {
    return type->tp_dealloc == (destructor)Event_dealloc || type->tp_dealloc == CollectedEvent_dealloc;
}

/* Whether a value may refer to other objects, and so back to the event. */
static int may_refer(PyObject *value) { return PyObject_IS_GC(value) || is_event_type(Py_TYPE(value)); }

static PyObject *as_tuple(PyObject *event) {
    Py_ssize_t count = value_count(Py_TYPE(event));
    PyObject *values = PyTuple_New(count);
    for (Py_ssize_t i = 0; values && i < count; i++)
        PyTuple_SET_ITEM(values, i, Py_NewRef(((Event *)event)->values[i]));
    return values;
}

static Py_ssize_t Event_length(PyObject *self) { return value_count(Py_TYPE(self)); }

static PyObject *Event_subscript(PyObject *self, PyObject *index) {
    PyObject *values = as_tuple(self), *item = values ? PyObject_GetItem(values, index) : NULL;
    Py_XDECREF(values);
    return item;
}

static PyObject *Event_iter(PyObject *self) {
    PyObject *values = as_tuple(self), *iterator = values ? PyObject_GetIter(values) : NULL;
    Py_XDECREF(values);
    return iterator;
}

static Py_hash_t Event_hash(PyObject *self) {
    PyObject *values = as_tuple(self);
    Py_hash_t hash = values ? PyObject_Hash(values) : -1;
    Py_XDECREF(values);
    return hash;
}

static PyObject *Event_compare(PyObject *self, PyObject *other, int operation) {
    if (!PyTuple_Check(other) && !is_event_type(Py_TYPE(other))) Py_RETURN_NOTIMPLEMENTED;
    PyObject *left = as_tuple(self), *right = PyTuple_Check(other) ? Py_NewRef(other) : as_tuple(other);
    PyObject *result = left && right ? PyObject_RichCompare(left, right, operation) : NULL;
    Py_XDECREF(left);
    Py_XDECREF(right);
    return result;
}

/* A new reference to the names that an event's type was made with. */
static PyObject *fields_of(PyObject *event) {
    PyObject *fields = PyObject_GetAttrString((PyObject *)Py_TYPE(event), "_fields");
    if (!fields || (PyTuple_Check(fields) && PyTuple_GET_SIZE(fields) == value_count(Py_TYPE(event)))) return fields;
    Py_DECREF(fields);
    return PyErr_Format(PyExc_TypeError, "not an event whose type was made here");
}

static PyObject *Event_asdict(PyObject *self, PyObject *nothing) {
    (void)nothing;
    PyObject *fields = fields_of(self), *dict = fields ? PyDict_New() : NULL;
    for (Py_ssize_t i = 0; dict && i < value_count(Py_TYPE(self)); i++)
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(fields, i), ((Event *)self)->values[i]) < 0) Py_CLEAR(dict);
    Py_XDECREF(fields);
    return dict;
}

static PyObject *Event_repr(PyObject *self) {
    PyObject *dict = Event_asdict(self, NULL), *text = dict ? PyUnicode_FromFormat("<Event %R>", dict) : NULL;
    Py_XDECREF(dict);
    return text;
}

static PyObject *Event_reduce(PyObject *self, PyObject *nothing) {
    (void)nothing;
    PyObject *module = PyImport_ImportModule("usdtkit._events");
    PyObject *make = module ? PyObject_GetAttrString(module, "make") : NULL;
    PyObject *fields = make ? fields_of(self) : NULL, *values = fields ? as_tuple(self) : NULL;
    PyObject *result = values ? Py_BuildValue("O(OO)", make, fields, values) : NULL;
    Py_XDECREF(values);
    Py_XDECREF(fields);
    Py_XDECREF(make);
    Py_XDECREF(module);
    return result;
}

PyDoc_STRVAR(Event_doc, "One event, with an attribute for each of its fields in the order of `_fields`.\n\n"
                        "It also reads as a tuple of them, and never changes.");

static PyMethodDef Event_methods[] = {
    {"_asdict", Event_asdict, METH_NOARGS, "_asdict() -> dict\n\nThe fields by name."},
    {"__reduce__", Event_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Event_slots[] = {
    {Py_tp_doc, (void *)Event_doc},       {Py_tp_dealloc, Event_dealloc},
    {Py_tp_methods, Event_methods},       {Py_tp_iter, Event_iter},
    {Py_mp_length, Event_length},         {Py_mp_subscript, Event_subscript},
    {Py_tp_richcompare, Event_compare},   {Py_tp_hash, Event_hash},
    {Py_tp_repr, Event_repr},             {0, NULL},
};

static PyType_Spec Event_spec = {
    .name = "usdtkit.trace.Event",
    .basicsize = offsetof(Event, values),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Event_slots,
};

static PyObject *new_event_type(PyObject *base, PyObject *fields, int collected) {
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    PyMemberDef *members = PyMem_Calloc((size_t)count + 1, sizeof *members); /* the type copies them */
    if (!members) return PyErr_NoMemory();
    PyObject *type = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        /* The type keeps the names, in `_fields`. */
        members[i].name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(fields, i));
        if (!members[i].name) goto done;
        members[i].type = T_OBJECT_EX;
        members[i].flags = READONLY;
        members[i].offset = (Py_ssize_t)(offsetof(Event, values) + (size_t)i * sizeof(PyObject *));
    }
    PyType_Slot slots[] = {
        {Py_tp_members, members},
        {Py_tp_dealloc, collected ? (void *)CollectedEvent_dealloc : (void *)Event_dealloc},
        {collected ? Py_tp_traverse : 0, CollectedEvent_traverse},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = Event_spec.name,
        .basicsize = (int)(offsetof(Event, values) + (size_t)count * sizeof(PyObject *)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | (collected ? Py_TPFLAGS_HAVE_GC : 0),
        .slots = slots,
    };
    type = PyType_FromSpecWithBases(&spec, base);
    if (type && (PyObject_SetAttrString(type, "_fields", fields) < 0 ||
                 PyObject_SetAttrString(type, "__match_args__", fields) < 0))
        Py_CLEAR(type);
    if (type) { /* not earlier, because an immutable type takes no attributes */
        ((PyTypeObject *)type)->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
        PyType_Modified((PyTypeObject *)type);
    }
done:
    PyMem_Free(members);
    return type;
}

PyTypeObject *event_type(PyObject *module, PyObject *fields, int collected) {
    struct state *state = PyModule_GetState(module);
    PyObject *types = collected ? state->collected_types : state->types;
    PyObject *type = PyDict_GetItemWithError(types, fields);
    if (type) return (PyTypeObject *)Py_NewRef(type);
    if (PyErr_Occurred()) return NULL;
    if (PyTuple_GET_SIZE(fields) > MAX_FIELDS) return (PyTypeObject *)PyErr_Format(PyExc_ValueError, "too many fields");
    type = new_event_type(state->event, fields, collected);
    if (type && PyDict_SetItem(types, fields, type) < 0) Py_CLEAR(type);
    return (PyTypeObject *)type;
}

PyDoc_STRVAR(make_doc, "make(fields, values) -> Event\n\nAn event with these fields and values; both are tuples.");

static PyObject *make(PyObject *module, PyObject *args) {
    PyObject *fields, *values;
    if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &fields, &PyTuple_Type, &values)) return NULL;
    if (PyTuple_GET_SIZE(fields) != PyTuple_GET_SIZE(values))
        return PyErr_Format(PyExc_ValueError, "there must be as many values as fields");
    int collected = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values); i++) collected |= may_refer(PyTuple_GET_ITEM(values, i));
    PyTypeObject *type = event_type(module, fields, collected);
    Event *event = !type ? NULL : collected ? PyObject_GC_New(Event, type) : PyObject_New(Event, type);
    for (Py_ssize_t i = 0; event && i < PyTuple_GET_SIZE(values); i++)
        event->values[i] = Py_NewRef(PyTuple_GET_ITEM(values, i));
    if (event && collected) PyObject_GC_Track(event);
    Py_XDECREF(type);
    return (PyObject *)event;
}

PyDoc_STRVAR(decode_doc,
             "decode(data, enough, decoders, probes) -> (list, taken)\n\n"
             "The events in the memory of a ring buffer, and how many bytes were read: whole records, until these are\n"
             "`enough` bytes. `decoders` are ordered by the kind of a record, the names in `probes` by number. Raises\n"
             "ValueError if the data holds anything else.");

PyDoc_STRVAR(columns_doc,
             "columns(data, enough, decoders, probes, groups) -> (list, taken)\n\n"
             "As decode, with a tuple of columns for each group of kinds; `groups[kind]` is the number of a group.\n"
             "time_ns, pid, tid and numbers are bytearrays of 8-byte items, probe is a list, texts are Texts. A group\n"
             "without records has None.");

static int module_exec(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    state->event = PyType_FromModuleAndSpec(module, &Event_spec, NULL);
    state->types = PyDict_New();
    state->collected_types = PyDict_New();
    state->texts = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Texts_spec, NULL);
    PyObject *decoder = PyType_FromModuleAndSpec(module, &Decoder_spec, NULL);
    int failed = !state->event || !state->types || !state->collected_types || !state->texts || !decoder ||
                 PyModule_AddObjectRef(module, "Event", state->event) ||
                 PyModule_AddObjectRef(module, "Texts", (PyObject *)state->texts) ||
                 PyModule_AddObjectRef(module, "Decoder", decoder);
    Py_XDECREF(decoder);
    return failed ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->event);
    Py_VISIT(state->types);
    Py_VISIT(state->collected_types);
    Py_VISIT(state->texts);
    return 0;
}

static int module_clear(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->event);
    Py_CLEAR(state->types);
    Py_CLEAR(state->collected_types);
    Py_CLEAR(state->texts);
    return 0;
}

static PyMethodDef methods[] = {
    {"make", make, METH_VARARGS, make_doc},
    {"decode", decode, METH_VARARGS, decode_doc},
    {"columns", columns, METH_VARARGS, columns_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "usdtkit._events",
    .m_doc = "Records of the ring buffer as Python objects.",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__events(void) { return PyModuleDef_Init(&definition); }