/* Records of the ring buffer → Event objects, many with each call.
 *
 * In: the memory of a ring buffer, and a Decoder for each kind of record, which knows the layout that the C struct of
 * the record was made from (usdtkit.bpf.layout). Out: a list of events, and how many bytes of the ring these were.
 * events.c makes their types.
 */

#include "events.h"

PyObject *cut_text(PyObject *cut_type, PyObject *plain) {
    PyObject *marked = plain ? PyObject_CallOneArg(cut_type, plain) : NULL;
    Py_XDECREF(plain);
    return marked;
}

/* The name of an enum's number, or the number itself if it has none. Steals the reference. */
static PyObject *named_number(PyObject *names, PyObject *number) {
    PyObject *name = number ? PyDict_GetItemWithError(names, number) : NULL;
    if (!name) return number;
    Py_DECREF(number);
    return Py_NewRef(name);
}

static inline PyObject *value_of(Decoder *decoder, const struct field *field, const uint8_t *payload) {
    if (is_text(field->kind)) return text_object(decoder, field->kind, text_at(field, payload));
    if (!is_present(field, payload)) Py_RETURN_NONE;
    uint64_t raw;
    double real;
    memcpy(&raw, payload + field->offset, sizeof raw);
    switch (field->kind) {
    case U64:
        return PyLong_FromUnsignedLongLong(raw);
    case I64:
        if (field->names) return named_number(field->names, PyLong_FromLongLong((int64_t)raw));
        return PyLong_FromLongLong((int64_t)raw);
    case BOOL:
        return PyBool_FromLong(raw != 0);
    case F64:
        memcpy(&real, &raw, sizeof real);
        return PyFloat_FromDouble(real);
    default:
        return PyObject_CallFunction(field->names, "K", (unsigned long long)raw);
    }
}

/* The last number that was made. The next event is likely to come from the same thread, and then shares the object. */
struct last {
    uint32_t number;
    PyObject *object;
};

static inline PyObject *small_number(struct last *last, uint32_t number) {
    if (!last->object || last->number != number) {
        PyObject *object = PyLong_FromUnsignedLong(number);
        if (!object) return NULL;
        Py_XSETREF(last->object, object);
        last->number = number;
    }
    return Py_NewRef(last->object);
}

static inline PyObject *make_event(const struct input *input, const struct event *event, struct last *pid,
                                   struct last *tid) {
    Decoder *decoder = event->decoder;
    Event *made = PyObject_New(Event, decoder->event);
    if (!made) return NULL;
    PyObject **values = made->values;
    struct header header = header_of(event->payload);
    values[TIME] = PyLong_FromUnsignedLongLong(header.time);
    values[PID] = small_number(pid, header.pid);
    values[TID] = small_number(tid, header.tid);
    values[PROBE] = probe_name(input, header.probe);
    int complete = values[TIME] && values[PID] && values[TID] && values[PROBE];
    for (Py_ssize_t i = 0; i < decoder->count; i++) {
        values[HEADER_FIELDS + i] = complete ? value_of(decoder, &decoder->fields[i], event->payload) : NULL;
        complete = values[HEADER_FIELDS + i] != NULL;
    }
    if (!complete) Py_CLEAR(made);
    return (PyObject *)made;
}

PyObject *decode(PyObject *module, PyObject *args) {
    (void)module;
    struct input input = {.at = 0};
    if (!PyArg_ParseTuple(args, "y*KO!O!", &input.data, &input.enough, &PyTuple_Type, &input.decoders, &PyTuple_Type,
                          &input.probes))
        return NULL;
    PyObject *events = check_decoders(input.decoders) ? PyList_New(max_records(&input, EVENT_HEADER)) : NULL;
    struct last pid = {0, NULL}, tid = {0, NULL};
    struct event event;
    Py_ssize_t count = 0;
    int status = 0;
    while (events && (status = next_event(&input, &event)) > 0) {
        PyObject *made = make_event(&input, &event, &pid, &tid);
        if (!made) Py_CLEAR(events);
        else PyList_SET_ITEM(events, count++, made);
    }
    if (status < 0) Py_CLEAR(events);
    if (events) Py_SET_SIZE(events, count);
    Py_XDECREF(pid.object);
    Py_XDECREF(tid.object);
    PyBuffer_Release(&input.data);
    return events ? Py_BuildValue("(NK)", events, input.at) : NULL;
}

/* Whether a field has what its kind needs for making names or objects of its numbers. */
static int is_named_rightly(const struct field *field) {
    if (field->kind == STACK) return field->names && PyCallable_Check(field->names);
    return !field->names || PyDict_Check(field->names);
}

static PyObject *Decoder_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *event_fields, *fields, *truncated, *truncated_bytes, *module = PyType_GetModule(type);
    if (!module || (keywords && PyDict_GET_SIZE(keywords)) ||
        !PyArg_ParseTuple(args, "O!O!OO", &PyTuple_Type, &event_fields, &PyTuple_Type, &fields, &truncated,
                          &truncated_bytes))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "Decoder takes no keywords");
    if (PyTuple_GET_SIZE(event_fields) != HEADER_FIELDS + PyTuple_GET_SIZE(fields))
        return PyErr_Format(PyExc_ValueError, "there must be a name for each field");
    Decoder *self = (Decoder *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->truncated = Py_NewRef(truncated);
    self->truncated_bytes = Py_NewRef(truncated_bytes);
    self->count = PyTuple_GET_SIZE(fields);
    self->size = EVENT_HEADER;
    self->fields = PyMem_Calloc((size_t)self->count + 1, sizeof *self->fields);
    if (!self->fields) PyErr_NoMemory();
    for (Py_ssize_t i = 0; !PyErr_Occurred() && i < self->count; i++) {
        struct field *field = &self->fields[i];
        int kind;
        PyObject *names = Py_None;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(fields, i), "CIIIO", &kind, &field->offset, &field->size,
                              &field->capacity, &names))
            break;
        if (names != Py_None) field->names = Py_NewRef(names);
        field->kind = (char)kind;
        if (kind == 0 || kind > 127 || !strchr("Qq?dsbS", kind) || field->offset > 1 << 20 ||
            field->capacity > 1 << 20 || !is_named_rightly(field))
            PyErr_SetString(PyExc_ValueError, "a field has no known kind, or is too large");
        uint32_t end = field->offset + (is_text(field->kind) ? 4 + field->capacity : field->size == 16 ? 16 : 8);
        if (end > self->size) self->size = end;
    }
    if (!PyErr_Occurred()) self->event = event_type(module, event_fields, 0);
    if (PyErr_Occurred()) Py_CLEAR(self);
    return (PyObject *)self;
}

static int Decoder_traverse(Decoder *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->event);
    Py_VISIT(self->truncated);
    Py_VISIT(self->truncated_bytes);
    for (Py_ssize_t i = 0; self->fields && i < self->count; i++) Py_VISIT(self->fields[i].names);
    return 0;
}

/* What makes stacks belongs to the session, which refers to the decoder. All may be cleared, because nobody asks a
 * decoder that is garbage to decode a record. */
static int Decoder_clear(Decoder *self) {
    for (Py_ssize_t i = 0; self->fields && i < self->count; i++) Py_CLEAR(self->fields[i].names);
    Py_CLEAR(self->truncated);
    Py_CLEAR(self->truncated_bytes);
    return 0;
}

static void Decoder_dealloc(Decoder *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    for (Py_ssize_t i = 0; self->fields && i < self->count; i++) Py_XDECREF(self->fields[i].names);
    for (Py_ssize_t i = 0; i < RECENT_TEXTS; i++) Py_XDECREF(self->recent[i]);
    PyMem_Free(self->fields);
    Py_XDECREF(self->event);
    Py_XDECREF(self->truncated);
    Py_XDECREF(self->truncated_bytes);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Decoder_doc, "Decoder(names, fields, truncated, truncated_bytes)\n\n"
                          "Makes events whose fields have these names. `fields` are their places in a record: (kind,\n"
                          "offset, size, capacity, names). `names` is a dict for the numbers of an enum, and for the\n"
                          "number of a stack what makes an object of it.");

static PyType_Slot Decoder_slots[] = {
    {Py_tp_doc, (void *)Decoder_doc},
    {Py_tp_new, Decoder_new},
    {Py_tp_dealloc, Decoder_dealloc},
    {Py_tp_traverse, Decoder_traverse},
    {Py_tp_clear, Decoder_clear},
    {0, NULL},
};

PyType_Spec Decoder_spec = {
    .name = "usdtkit._events.Decoder",
    .basicsize = sizeof(Decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Decoder_slots,
};

int check_decoders(PyObject *decoders) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(decoders); i++) {
        if (Py_TYPE(PyTuple_GET_ITEM(decoders, i))->tp_dealloc == (destructor)Decoder_dealloc) continue;
        PyErr_SetString(PyExc_TypeError, "decoders must be Decoder objects");
        return 0;
    }
    return 1;
}
