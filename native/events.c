/* usdtkit._events: records of the ring buffer → Python objects, many a call.
 *
 * In: the memory of a ring buffer, and a Decoder for each kind of event, made from the layout that made the record's C
 * struct. Out: a list of events, or columns, and how many bytes of the ring they were. usdtkit.bpf.layout decodes the
 * same records in Python; the tests hold the two against each other.
 *
 * An event's type has a member for each of its values, which the interpreter reads without a call. Types and events are
 * made once and never change. The garbage collector knows only of events that `make` was given anything but numbers and
 * texts for. Those of records hold nothing that leads back to them, and with the collector each would cost twice as much.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "records.h"

enum { TIME, PID, TID, PROBE, HEADER_FIELDS }; /* the first fields of every event */
enum { EVENT_HEADER = 24, MOST_FIELDS = 4096, GROUPS = 256 };
enum mark { WHOLE = 0, CUT = 1, UNREADABLE = 2 }; /* what became of a text */
enum kind { U64 = 'Q', I64 = 'q', BOOL = '?', F64 = 'd', STR = 's', BYTES = 'b', STACK = 'S' };
/* Texts that come again and again (a thread's name, a host, a statement) are one object: the last ones, by a hash. */
enum { KNOWN_TEXTS = 256, LONGEST_KNOWN = 64 };

typedef struct {
    PyObject_HEAD
    PyObject *values[];
} Event;

struct field {
    char kind;
    uint32_t offset; /* of the value; of a text, of its length, with its data behind */
    uint32_t size;   /* what was asked for of a text */
    uint32_t room;   /* what its data has in the record */
    PyObject *names; /* of an enum: a dict, number → name; or NULL */
};

typedef struct {
    PyObject_HEAD
    PyTypeObject *event;
    PyObject *truncated, *truncated_bytes, *stack;
    uint32_t size; /* of the record */
    Py_ssize_t count;
    struct field *fields;
    PyObject *known[KNOWN_TEXTS];
} Decoder;

/* What decode and columns were given, and how far they are. */
struct input {
    Py_buffer data;
    uint64_t at, enough;
    PyObject *decoders, *probes;
};

struct header {
    uint32_t kind, probe;
    uint64_t time;
    uint32_t pid, tid;
};

struct event {
    const uint8_t *payload;
    Decoder *decoder;
};

static inline struct header header_of(const uint8_t *payload) {
    struct header header;
    memcpy(&header, payload, sizeof header);
    return header;
}

/* The next event, until there is enough. 0 where there is none, -1 with an exception. */
static inline int next_event(struct input *input, struct event *event) {
    if (input->at >= input->enough) return 0;
    struct usdtkit_record record;
    int more = usdtkit_next_record(input->data.buf, (uint64_t)input->data.len, &input->at, &record);
    if (more == 0) return 0;
    if (more > 0 && record.length >= EVENT_HEADER) {
        event->payload = record.payload;
        uint32_t kind = header_of(record.payload).kind;
        if (kind < (uint64_t)PyTuple_GET_SIZE(input->decoders)) {
            event->decoder = (Decoder *)PyTuple_GET_ITEM(input->decoders, kind);
            if (record.length >= event->decoder->size) return 1;
        }
    }
    PyErr_SetString(PyExc_ValueError, more < 0 ? "a record is cut off" : "a record of no known kind");
    return -1;
}

/* How many records of `size` bytes or more there can be. */
static Py_ssize_t most_records(const struct input *input, uint32_t size) {
    uint64_t bytes = (uint64_t)input->data.len < input->enough ? (uint64_t)input->data.len : input->enough;
    return (Py_ssize_t)(bytes / (USDTKIT_RECORD_HEADER + size)) + 1;
}

static inline PyObject *probe_name(const struct input *input, uint32_t probe) {
    if (probe < (uint64_t)PyTuple_GET_SIZE(input->probes)) return Py_NewRef(PyTuple_GET_ITEM(input->probes, probe));
    PyErr_SetString(PyExc_ValueError, "a record of no known probe");
    return NULL;
}

/* Values */

static inline int is_text(char kind) { return kind == STR || kind == BYTES; }

static inline size_t slot_of(const char *data, size_t length) {
    uint64_t hash = length, word = 0;
    if (length < 8) {
        memcpy(&word, data, length);
        hash ^= word;
    } else { /* whole words, the last of which may overlap the one before: no copy of a varying size */
        for (size_t at = 0; at + 8 < length; at += 8) {
            memcpy(&word, data + at, 8);
            hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
        }
        memcpy(&word, data + length - 8, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
    }
    return ((hash ^ hash >> 32) * 0xC2B2AE3D27D4EB4FU) >> 56;
}

static inline PyObject *plain_text(Decoder *decoder, const char *data, size_t length) {
    if (length > LONGEST_KNOWN) return PyUnicode_DecodeUTF8(data, (Py_ssize_t)length, "surrogateescape");
    PyObject **known = &decoder->known[slot_of(data, length)];
    if (*known && PyUnicode_GET_LENGTH(*known) == (Py_ssize_t)length && !memcmp(PyUnicode_DATA(*known), data, length))
        return Py_NewRef(*known);
    PyObject *text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)length, "surrogateescape");
    if (text && PyUnicode_IS_ASCII(text)) Py_XSETREF(*known, Py_NewRef(text)); /* its bytes are those of the record */
    return text;
}

/* `plain`, marked as the beginning of something longer. */
static PyObject *cut_text(PyObject *cut_type, PyObject *plain) {
    PyObject *marked = plain ? PyObject_CallOneArg(cut_type, plain) : NULL;
    Py_XDECREF(plain);
    return marked;
}

/* What a record has of a text, which is never more than its field has room for. */
struct text {
    const char *data;
    size_t length;
    enum mark mark;
};

static inline struct text text_at(const struct field *field, const uint8_t *payload) {
    int32_t length;
    memcpy(&length, payload + field->offset, sizeof length);
    if (length < 0) return (struct text){"", 0, UNREADABLE}; /* an errno: the pointer led nowhere */
    struct text text = {.data = (const char *)payload + field->offset + 4};
    text.length = (size_t)length < field->room ? (size_t)length : field->room;
    if (field->kind == STR) text.length = strnlen(text.data, text.length);
    text.mark = (field->kind == STR ? text.length : (size_t)length) > field->size ? CUT : WHOLE;
    if (text.length > field->size) text.length = field->size;
    return text;
}

static inline PyObject *text_object(Decoder *decoder, int kind, struct text text) {
    if (text.mark == UNREADABLE) Py_RETURN_NONE;
    if (kind == STR) {
        PyObject *plain = plain_text(decoder, text.data, text.length);
        return text.mark == CUT ? cut_text(decoder->truncated, plain) : plain;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.length);
    return text.mark == CUT ? cut_text(decoder->truncated_bytes, bytes) : bytes;
}

static PyObject *named_number(PyObject *names, PyObject *number) {
    PyObject *name = number ? PyDict_GetItemWithError(names, number) : NULL;
    if (!name) return number;
    Py_DECREF(number);
    return Py_NewRef(name);
}

static inline PyObject *value_of(Decoder *decoder, const struct field *field, const uint8_t *payload) {
    if (is_text(field->kind)) return text_object(decoder, field->kind, text_at(field, payload));
    uint64_t raw;
    double real;
    memcpy(&raw, payload + field->offset, sizeof raw);
    switch (field->kind) {
    case U64:
        return PyLong_FromUnsignedLongLong(raw);
    case I64:
        return field->names ? named_number(field->names, PyLong_FromLongLong((int64_t)raw)) : PyLong_FromLongLong((int64_t)raw);
    case BOOL:
        return PyBool_FromLong(raw != 0);
    case F64:
        memcpy(&real, &raw, sizeof real);
        return PyFloat_FromDouble(real);
    default:
        return PyObject_CallFunction(decoder->stack, "K", (unsigned long long)raw);
    }
}

/* Events */

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
    Py_TRASHCAN_BEGIN(self, CollectedEvent_dealloc) /* an event may hold an event that holds an event … */
    for (Py_ssize_t i = 0, count = value_count(type); i < count; i++) Py_XDECREF(((Event *)self)->values[i]);
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* There is no tp_clear, as an event does not change: what closes a cycle does, and is cleared. */
static int CollectedEvent_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0, count = value_count(Py_TYPE(self)); i < count; i++) Py_VISIT(((Event *)self)->values[i]);
    return 0;
}

static int is_event_type(PyTypeObject *type) {
    return type->tp_dealloc == (destructor)Event_dealloc || type->tp_dealloc == CollectedEvent_dealloc;
}

/* Whether a value may lead to others, and back. */
static int leads_on(PyObject *value) { return PyObject_IS_GC(value) || is_event_type(Py_TYPE(value)); }

static PyObject *as_tuple(PyObject *event) {
    Py_ssize_t count = value_count(Py_TYPE(event));
    PyObject *values = PyTuple_New(count);
    for (Py_ssize_t i = 0; values && i < count; i++) PyTuple_SET_ITEM(values, i, Py_NewRef(((Event *)event)->values[i]));
    return values;
}

static Py_ssize_t Event_length(PyObject *self) { return value_count(Py_TYPE(self)); }

static PyObject *Event_subscript(PyObject *self, PyObject *index) {
    PyObject *values = as_tuple(self), *found = values ? PyObject_GetItem(values, index) : NULL;
    Py_XDECREF(values);
    return found;
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

/* The names that an event's type was made with; a new reference. */
static PyObject *fields_of(PyObject *event) {
    PyObject *fields = PyObject_GetAttrString((PyObject *)Py_TYPE(event), "_fields");
    if (!fields || (PyTuple_Check(fields) && PyTuple_GET_SIZE(fields) == value_count(Py_TYPE(event)))) return fields;
    Py_DECREF(fields);
    return PyErr_Format(PyExc_TypeError, "not an event of a type of ours");
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

PyDoc_STRVAR(Event_doc, "One event: an attribute for each of its fields, in the order of `_fields`. It also reads as a tuple of\n"
                        "them, and never changes.");

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

struct state {
    PyObject *event; /* the base of all types of events */
    PyObject *types, *collected_types; /* dicts, names of fields → type */
    PyTypeObject *texts;
};

static PyObject *new_event_type(PyObject *base, PyObject *fields, int collected) {
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    PyMemberDef *members = PyMem_Calloc((size_t)count + 1, sizeof *members); /* the type makes a copy */
    if (!members) return PyErr_NoMemory();
    PyObject *type = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        members[i].name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(fields, i)); /* lives as long as `_fields` */
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
    if (type && (PyObject_SetAttrString(type, "_fields", fields) || PyObject_SetAttrString(type, "__match_args__", fields)))
        Py_CLEAR(type);
    if (type) { /* only now, for a type that is immutable takes no attributes */
        ((PyTypeObject *)type)->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
        PyType_Modified((PyTypeObject *)type);
    }
done:
    PyMem_Free(members);
    return type;
}

/* The type of events with these fields; a reference of its own. */
static PyTypeObject *event_type(PyObject *module, PyObject *fields, int collected) {
    struct state *state = PyModule_GetState(module);
    PyObject *types = collected ? state->collected_types : state->types;
    PyObject *type = PyDict_GetItemWithError(types, fields);
    if (type) return (PyTypeObject *)Py_NewRef(type);
    if (PyErr_Occurred()) return NULL;
    if (PyTuple_GET_SIZE(fields) > MOST_FIELDS) return (PyTypeObject *)PyErr_Format(PyExc_ValueError, "too many fields");
    type = new_event_type(state->event, fields, collected);
    if (type && PyDict_SetItem(types, fields, type) < 0) Py_CLEAR(type);
    return (PyTypeObject *)type;
}

PyDoc_STRVAR(make_doc, "make(fields, values) -> Event\n\nAn event with these names of fields and their values, both tuples.");

static PyObject *make(PyObject *module, PyObject *args) {
    PyObject *fields, *values;
    if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &fields, &PyTuple_Type, &values)) return NULL;
    if (PyTuple_GET_SIZE(fields) != PyTuple_GET_SIZE(values))
        return PyErr_Format(PyExc_ValueError, "as many values as fields");
    int collected = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values); i++) collected |= leads_on(PyTuple_GET_ITEM(values, i));
    PyTypeObject *type = event_type(module, fields, collected);
    Event *event = !type ? NULL : collected ? PyObject_GC_New(Event, type) : PyObject_New(Event, type);
    for (Py_ssize_t i = 0; event && i < PyTuple_GET_SIZE(values); i++)
        event->values[i] = Py_NewRef(PyTuple_GET_ITEM(values, i));
    if (event && collected) PyObject_GC_Track(event);
    Py_XDECREF(type);
    return (PyObject *)event;
}

/* The last number made, because the next event is likely to come from the same thread. */
struct last {
    uint32_t number;
    PyObject *object;
};

static inline PyObject *small_number(struct last *last, uint32_t number) {
    if (!last->object || last->number != number) {
        PyObject *made = PyLong_FromUnsignedLong(number);
        if (!made) return NULL;
        Py_XSETREF(last->object, made);
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
    int whole = values[TIME] && values[PID] && values[TID] && values[PROBE];
    for (Py_ssize_t i = 0; i < decoder->count; i++) {
        values[HEADER_FIELDS + i] = whole ? value_of(decoder, &decoder->fields[i], event->payload) : NULL;
        whole = values[HEADER_FIELDS + i] != NULL;
    }
    if (!whole) Py_CLEAR(made);
    return (PyObject *)made;
}

static int decoders_are(PyObject *decoders);

PyDoc_STRVAR(decode_doc,
             "decode(data, enough, decoders, probes) -> (list, taken)\n\n"
             "The events in the memory of a ring buffer, whole records until `enough` bytes, and how many bytes they were.\n"
             "`decoders` by kind, `probes` names by number. ValueError where the data holds something else.");

static PyObject *decode(PyObject *module, PyObject *args) {
    (void)module;
    struct input input = {.at = 0};
    if (!PyArg_ParseTuple(args, "y*KO!O!", &input.data, &input.enough, &PyTuple_Type, &input.decoders, &PyTuple_Type,
                          &input.probes))
        return NULL;
    PyObject *events = decoders_are(input.decoders) ? PyList_New(most_records(&input, EVENT_HEADER)) : NULL;
    struct last pid = {0, NULL}, tid = {0, NULL};
    struct event event;
    Py_ssize_t count = 0;
    int more = 0;
    while (events && (more = next_event(&input, &event)) > 0) {
        PyObject *made = make_event(&input, &event, &pid, &tid);
        if (!made) Py_CLEAR(events);
        else PyList_SET_ITEM(events, count++, made);
    }
    if (more < 0) Py_CLEAR(events);
    if (events) Py_SET_SIZE(events, count);
    Py_XDECREF(pid.object);
    Py_XDECREF(tid.object);
    PyBuffer_Release(&input.data);
    return events ? Py_BuildValue("(NK)", events, input.at) : NULL;
}

/* Texts of a column: one behind the other, and made into objects when they are asked for. */

typedef struct {
    PyObject_HEAD
    Decoder *decoder;
    PyObject *data, *offsets, *marks; /* bytes: of all texts; where each begins, and the last ends; a mark each */
    char kind;
} Texts;

static Py_ssize_t Texts_length(Texts *self) { return PyBytes_GET_SIZE(self->marks); }

static PyObject *Texts_item(Texts *self, Py_ssize_t index) {
    if (index < 0 || index >= Texts_length(self)) return PyErr_Format(PyExc_IndexError, "no text of this number");
    int64_t ends[2];
    memcpy(ends, PyBytes_AS_STRING(self->offsets) + index * 8, sizeof ends);
    struct text text = {PyBytes_AS_STRING(self->data) + ends[0], (size_t)(ends[1] - ends[0]),
                        (enum mark)PyBytes_AS_STRING(self->marks)[index]};
    return text_object(self->decoder, self->kind, text);
}

static PyObject *Texts_subscript(Texts *self, PyObject *index) {
    if (!PySlice_Check(index)) {
        Py_ssize_t at = PyNumber_AsSsize_t(index, PyExc_IndexError);
        if (at == -1 && PyErr_Occurred()) return NULL;
        return Texts_item(self, at < 0 ? at + Texts_length(self) : at);
    }
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(index, &start, &stop, &step) < 0) return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(Texts_length(self), &start, &stop, step);
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *text = Texts_item(self, start + i * step);
        if (text) PyList_SET_ITEM(list, i, text);
        else Py_CLEAR(list);
    }
    return list;
}

static PyObject *Texts_offsets(Texts *self, void *nothing) {
    (void)nothing;
    PyObject *memory = PyMemoryView_FromObject(self->offsets);
    PyObject *numbers = memory ? PyObject_CallMethod(memory, "cast", "s", "q") : NULL;
    Py_XDECREF(memory);
    return numbers;
}

static int Texts_traverse(Texts *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->decoder);
    return 0;
}

static void Texts_dealloc(Texts *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->decoder);
    Py_XDECREF(self->data);
    Py_XDECREF(self->offsets);
    Py_XDECREF(self->marks);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Texts_doc, "The texts of a column, a sequence of str (or bytes), which are made when they are asked for.");

static PyMemberDef Texts_members[] = {
    {"data", T_OBJECT_EX, offsetof(Texts, data), READONLY, "The bytes of all texts, one behind the other."},
    {"marks", T_OBJECT_EX, offsetof(Texts, marks), READONLY, "A byte each: 1 where it was cut, 2 where it could not be read."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Texts_getset[] = {
    {"offsets", (getter)Texts_offsets, NULL, "Where in `data` each text begins, and behind them where the last ends.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Texts_slots[] = {
    {Py_tp_doc, (void *)Texts_doc},     {Py_tp_dealloc, Texts_dealloc},      {Py_tp_members, Texts_members},
    {Py_tp_getset, Texts_getset},       {Py_sq_length, Texts_length},        {Py_sq_item, Texts_item},
    {Py_mp_length, Texts_length},       {Py_mp_subscript, Texts_subscript},  {Py_tp_traverse, Texts_traverse},
    {0, NULL},
};

static PyType_Spec Texts_spec = {
    .name = "usdtkit.trace.Texts",
    .basicsize = sizeof(Texts),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Texts_slots,
};

/* Columns: for each group of kinds one sequence a field. Records are taken in runs, and a run field by field. */

enum { RUN = 128 };

struct column {
    char kind;
    PyObject *object; /* of numbers a bytearray, of probes a list, of texts the bytes of their offsets */
    union {
        uint64_t *numbers;
        PyObject **objects;
    };
    PyObject *data, *marks; /* of texts */
    uint64_t used;          /* bytes of `data` */
};

struct group {
    Decoder *first;
    uint32_t size; /* of its shortest record */
    Py_ssize_t rows;
    struct column *columns; /* from the first record on: those of the header, and one a field */
    struct event *run;      /* records that are not yet in the columns */
    int waiting;            /* how many */
};

static int new_column(struct column *column, char kind, Py_ssize_t rows, uint32_t text_room) {
    column->kind = kind;
    column->object = is_text(kind) ? PyBytes_FromStringAndSize(NULL, (rows + 1) * 8) : PyByteArray_FromStringAndSize(NULL, rows * 8);
    if (!column->object) return -1;
    column->numbers = (void *)(is_text(kind) ? PyBytes_AS_STRING(column->object) : PyByteArray_AS_STRING(column->object));
    if (!is_text(kind)) return 0;
    column->numbers[0] = 0;
    column->marks = PyBytes_FromStringAndSize(NULL, rows);
    column->data = PyBytes_FromStringAndSize(NULL, rows * text_room);
    return column->marks && column->data ? 0 : -1;
}

static int new_columns(struct group *group, Py_ssize_t rows) {
    Py_ssize_t count = HEADER_FIELDS + group->first->count;
    group->run = PyMem_Malloc(RUN * sizeof *group->run);
    struct column *columns = group->columns = PyMem_Calloc((size_t)count, sizeof *columns);
    if (!group->run || !columns) return PyErr_NoMemory(), -1;
    columns[PROBE].object = PyList_New(rows);
    if (!columns[PROBE].object) return -1;
    columns[PROBE].objects = ((PyListObject *)columns[PROBE].object)->ob_item;
    for (Py_ssize_t i = 0; i < PROBE; i++)
        if (new_column(&columns[i], U64, rows, 0) < 0) return -1;
    for (Py_ssize_t i = 0; i < group->first->count; i++) {
        const struct field *field = &group->first->fields[i];
        if (new_column(&columns[HEADER_FIELDS + i], field->kind, rows, field->room) < 0) return -1;
    }
    return 0;
}

static inline uint64_t word_at(const uint8_t *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Room for `more` bytes of texts: for those of short records it is there, others may have more of them. */
static inline int text_room(struct column *column, uint64_t more) {
    uint64_t room = (uint64_t)PyBytes_GET_SIZE(column->data);
    return more <= room - column->used ? 0 : _PyBytes_Resize(&column->data, (Py_ssize_t)(2 * room + more));
}

static int add_texts(struct column *column, Py_ssize_t field, const struct event *run, int count, Py_ssize_t row) {
    uint64_t *ends = column->numbers + row + 1;
    uint8_t *marks = (uint8_t *)PyBytes_AS_STRING(column->marks) + row;
    for (int i = 0; i < count; i++) {
        struct text text = text_at(&run[i].decoder->fields[field], run[i].payload);
        if (text_room(column, text.length) < 0) return -1;
        memcpy(PyBytes_AS_STRING(column->data) + column->used, text.data, text.length);
        column->used += text.length;
        ends[i] = column->used;
        marks[i] = (uint8_t)text.mark;
    }
    return 0;
}

static void add_numbers(struct column *column, Py_ssize_t field, const struct event *run, int count, Py_ssize_t row) {
    uint64_t *numbers = column->numbers + row;
    for (int i = 0; i < count; i++) numbers[i] = word_at(run[i].payload + run[i].decoder->fields[field].offset);
    for (int i = 0; column->kind == BOOL && i < count; i++) numbers[i] = numbers[i] != 0;
}

/* Put the run into the columns. */
static int add_run(const struct input *input, struct group *group) {
    struct column *columns = group->columns;
    const struct event *run = group->run;
    Py_ssize_t row = group->rows;
    int count = group->waiting;
    uint64_t *times = columns[TIME].numbers + row, *pids = columns[PID].numbers + row, *tids = columns[TID].numbers + row;
    for (int i = 0; i < count; i++) {
        struct header header = header_of(run[i].payload);
        times[i] = header.time;
        pids[i] = header.pid;
        tids[i] = header.tid;
        PyObject *probe = columns[PROBE].objects[row + i] = probe_name(input, header.probe);
        if (!probe) return -1;
    }
    for (Py_ssize_t i = 0; i < group->first->count; i++) {
        struct column *column = &columns[HEADER_FIELDS + i];
        if (!is_text(column->kind)) add_numbers(column, i, run, count, row);
        else if (add_texts(column, i, run, count, row) < 0) return -1;
    }
    group->rows += count;
    group->waiting = 0;
    return 0;
}

/* The object of a column that is full to `rows`. */
static PyObject *finished(PyTypeObject *texts_type, Decoder *decoder, struct column *column, Py_ssize_t rows) {
    if (is_text(column->kind)) {
        if (_PyBytes_Resize(&column->object, (rows + 1) * 8) < 0 || _PyBytes_Resize(&column->marks, rows) < 0 ||
            _PyBytes_Resize(&column->data, (Py_ssize_t)column->used) < 0)
            return NULL;
        Texts *texts = PyObject_GC_New(Texts, texts_type);
        if (!texts) return NULL;
        texts->decoder = (Decoder *)Py_NewRef(decoder);
        texts->data = Py_NewRef(column->data);
        texts->offsets = Py_NewRef(column->object);
        texts->marks = Py_NewRef(column->marks);
        texts->kind = column->kind;
        PyObject_GC_Track(texts);
        return (PyObject *)texts;
    }
    if (PyList_Check(column->object)) Py_SET_SIZE(column->object, rows);
    else if (PyByteArray_Resize(column->object, rows * 8) < 0) return NULL;
    return Py_NewRef(column->object);
}

/* A tuple of the group's columns; None where it has no rows. */
static PyObject *finished_columns(PyTypeObject *texts_type, const struct input *input, struct group *group) {
    if (!group->columns) Py_RETURN_NONE;
    if (add_run(input, group) < 0) return NULL;
    Py_ssize_t count = HEADER_FIELDS + group->first->count;
    PyObject *columns = PyTuple_New(count);
    for (Py_ssize_t i = 0; columns && i < count; i++) {
        PyObject *column = finished(texts_type, group->first, &group->columns[i], group->rows);
        if (column) PyTuple_SET_ITEM(columns, i, column);
        else Py_CLEAR(columns);
    }
    return columns;
}

static void free_columns(struct group *group) {
    for (Py_ssize_t i = 0; group->columns && i < HEADER_FIELDS + group->first->count; i++) {
        Py_XDECREF(group->columns[i].object);
        Py_XDECREF(group->columns[i].data);
        Py_XDECREF(group->columns[i].marks);
    }
    PyMem_Free(group->columns);
    PyMem_Free(group->run);
}

static int same_fields(const Decoder *one, const Decoder *other) {
    int same = one->event == other->event;
    for (Py_ssize_t i = 0; same && i < one->count; i++) same = one->fields[i].kind == other->fields[i].kind;
    return same;
}

/* Sorts the kinds into groups, whose records have the same fields in different sizes; how many groups, or -1. */
static Py_ssize_t sort_kinds(PyObject *decoders, PyObject *numbers, struct group *groups) {
    const uint8_t *group_of = (const uint8_t *)PyBytes_AS_STRING(numbers);
    Py_ssize_t count = 0;
    if (!decoders_are(decoders)) return -1;
    if (PyBytes_GET_SIZE(numbers) != PyTuple_GET_SIZE(decoders)) {
        PyErr_SetString(PyExc_ValueError, "a group for each decoder");
        return -1;
    }
    for (Py_ssize_t kind = 0; kind < PyTuple_GET_SIZE(decoders); kind++) {
        struct group *group = &groups[group_of[kind]];
        Decoder *decoder = (Decoder *)PyTuple_GET_ITEM(decoders, kind);
        if (!group->first || group->size > decoder->size) group->size = decoder->size;
        if (!group->first) group->first = decoder;
        if (!same_fields(group->first, decoder)) {
            PyErr_SetString(PyExc_ValueError, "kinds of one group have the same fields");
            return -1;
        }
        if (group_of[kind] >= count) count = group_of[kind] + 1;
    }
    return count;
}

PyDoc_STRVAR(columns_doc,
             "columns(data, enough, decoders, probes, groups) -> (list, taken)\n\n"
             "As decode, but for each group of kinds (`groups[kind]` is its number) a tuple of columns: time_ns, pid, tid\n"
             "and numbers as bytearrays of 8-byte items, probe as a list, texts as Texts. None for a group without records.");

static PyObject *columns(PyObject *module, PyObject *args) {
    struct input input = {.at = 0};
    PyObject *numbers, *result = NULL;
    if (!PyArg_ParseTuple(args, "y*KO!O!O!", &input.data, &input.enough, &PyTuple_Type, &input.decoders, &PyTuple_Type,
                          &input.probes, &PyBytes_Type, &numbers))
        return NULL;
    PyTypeObject *texts_type = ((struct state *)PyModule_GetState(module))->texts;
    struct group groups[GROUPS] = {0};
    Py_ssize_t count = sort_kinds(input.decoders, numbers, groups);
    const uint8_t *group_of = (const uint8_t *)PyBytes_AS_STRING(numbers);
    struct event event;
    int more = count < 0 ? -1 : 1;
    while (more > 0 && (more = next_event(&input, &event)) > 0) {
        struct group *group = &groups[group_of[header_of(event.payload).kind]];
        if (!group->columns && new_columns(group, most_records(&input, group->size)) < 0) more = -1;
        else group->run[group->waiting++] = event;
        if (group->waiting == RUN && add_run(&input, group) < 0) more = -1;
    }
    if (more == 0) result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *made = finished_columns(texts_type, &input, &groups[i]);
        if (made) PyList_SET_ITEM(result, i, made);
        else Py_CLEAR(result);
    }
    for (Py_ssize_t i = 0; i < count; i++) free_columns(&groups[i]);
    PyBuffer_Release(&input.data);
    return result ? Py_BuildValue("(NK)", result, input.at) : NULL;
}

/* Decoders */

static PyObject *Decoder_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *event_fields, *fields, *truncated, *truncated_bytes, *stack, *module = PyType_GetModule(type);
    if (!module || (keywords && PyDict_GET_SIZE(keywords)) ||
        !PyArg_ParseTuple(args, "O!O!OOO", &PyTuple_Type, &event_fields, &PyTuple_Type, &fields, &truncated, &truncated_bytes,
                          &stack))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "Decoder takes no keywords");
    if (PyTuple_GET_SIZE(event_fields) != HEADER_FIELDS + PyTuple_GET_SIZE(fields))
        return PyErr_Format(PyExc_ValueError, "a name for each field");
    Decoder *self = (Decoder *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->truncated = Py_NewRef(truncated);
    self->truncated_bytes = Py_NewRef(truncated_bytes);
    self->stack = Py_NewRef(stack);
    self->count = PyTuple_GET_SIZE(fields);
    self->size = EVENT_HEADER;
    self->fields = PyMem_Calloc((size_t)self->count + 1, sizeof *self->fields);
    if (!self->fields) PyErr_NoMemory();
    for (Py_ssize_t i = 0; !PyErr_Occurred() && i < self->count; i++) {
        struct field *field = &self->fields[i];
        int kind;
        PyObject *names = Py_None;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(fields, i), "CIIIO", &kind, &field->offset, &field->size, &field->room, &names)) break;
        if (names != Py_None) field->names = Py_NewRef(names);
        field->kind = (char)kind;
        if (kind == 0 || kind > 127 || !strchr("Qq?dsbS", kind) || field->offset > 1 << 20 || field->room > 1 << 20 ||
            (field->names && !PyDict_Check(field->names)))
            PyErr_SetString(PyExc_ValueError, "a field of no known kind or size");
        uint32_t end = field->offset + (is_text(field->kind) ? 4 + field->room : 8);
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
    Py_VISIT(self->stack);
    for (Py_ssize_t i = 0; self->fields && i < self->count; i++) Py_VISIT(self->fields[i].names);
    return 0;
}

/* What makes an object of a stack's id is the session's, and knows it. The others cannot close a cycle in whose midst a
 * record is decoded, but a decoder that is garbage is asked for nothing any more. */
static int Decoder_clear(Decoder *self) {
    Py_CLEAR(self->stack);
    Py_CLEAR(self->truncated);
    Py_CLEAR(self->truncated_bytes);
    return 0;
}

static void Decoder_dealloc(Decoder *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    for (Py_ssize_t i = 0; self->fields && i < self->count; i++) Py_XDECREF(self->fields[i].names);
    for (Py_ssize_t i = 0; i < KNOWN_TEXTS; i++) Py_XDECREF(self->known[i]);
    PyMem_Free(self->fields);
    Py_XDECREF(self->event);
    Py_XDECREF(self->truncated);
    Py_XDECREF(self->truncated_bytes);
    Py_XDECREF(self->stack);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Decoder_doc, "Decoder(names, fields, truncated, truncated_bytes, stack)\n\n"
                          "Makes events with these names of fields of records with these fields: (kind, offset, size, room,\n"
                          "names of an enum). `stack` makes an object of a stack's id.");

static PyType_Slot Decoder_slots[] = {
    {Py_tp_doc, (void *)Decoder_doc},
    {Py_tp_new, Decoder_new},
    {Py_tp_dealloc, Decoder_dealloc},
    {Py_tp_traverse, Decoder_traverse},
    {Py_tp_clear, Decoder_clear},
    {0, NULL},
};

static PyType_Spec Decoder_spec = {
    .name = "usdtkit._events.Decoder",
    .basicsize = sizeof(Decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Decoder_slots,
};

static int decoders_are(PyObject *decoders) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(decoders); i++) {
        if (Py_TYPE(PyTuple_GET_ITEM(decoders, i))->tp_dealloc == (destructor)Decoder_dealloc) continue;
        PyErr_SetString(PyExc_TypeError, "decoders are Decoder objects");
        return 0;
    }
    return 1;
}

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
