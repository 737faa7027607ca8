/* usdtkit._events: records of the ring buffer → Python objects, many a call.
 *
 * In: the memory of a ring buffer, and a Decoder for each kind of event, made from the layout that made the record's C
 * struct. Out: a list of events, or columns, and how many bytes of the ring they were. usdtkit.bpf.layout decodes the
 * same records in Python; the tests hold the two against each other.
 *
 * An event's type has a member for each of its values, which the interpreter reads without a call, and the garbage
 * collector has nothing to do with it: an event is made once and never changes.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "records.h"

enum { EVENT_HEADER = 24, HEADER_FIELDS = 4, MOST_FIELDS = 4096, GROUPS = 256 };
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
    struct header header;
};

/* The next event, until there is enough. 0 where there is none, -1 with an exception. */
static inline int next_event(struct input *input, struct event *event) {
    if (input->at >= input->enough) return 0;
    struct usdtkit_record record;
    int more = usdtkit_next_record(input->data.buf, (uint64_t)input->data.len, &input->at, &record);
    if (more == 0) return 0;
    if (more > 0 && record.length >= EVENT_HEADER) {
        event->payload = record.payload;
        memcpy(&event->header, record.payload, EVENT_HEADER);
        if (event->header.kind < (uint64_t)PyTuple_GET_SIZE(input->decoders)) {
            event->decoder = (Decoder *)PyTuple_GET_ITEM(input->decoders, event->header.kind);
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

static inline PyObject *text_value(Decoder *decoder, const struct field *field, const uint8_t *payload) {
    int32_t length;
    memcpy(&length, payload + field->offset, sizeof length);
    if (length < 0) Py_RETURN_NONE; /* an errno: the pointer led nowhere */
    const char *data = (const char *)payload + field->offset + 4;
    size_t kept = (size_t)length < field->room ? (size_t)length : field->room;
    if (field->kind == BYTES) {
        PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)(kept < field->size ? kept : field->size));
        return (size_t)length > field->size ? cut_text(decoder->truncated_bytes, bytes) : bytes;
    }
    kept = strnlen(data, kept);
    if (kept > field->size) return cut_text(decoder->truncated, plain_text(decoder, data, field->size));
    return plain_text(decoder, data, kept);
}

static PyObject *named_number(PyObject *names, PyObject *number) {
    PyObject *name = number ? PyDict_GetItemWithError(names, number) : NULL;
    if (!name) return number;
    Py_DECREF(number);
    return Py_NewRef(name);
}

static inline PyObject *value_of(Decoder *decoder, const struct field *field, const uint8_t *payload) {
    if (field->kind == STR || field->kind == BYTES) return text_value(decoder, field, payload);
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

static int is_event_type(PyTypeObject *type) { return type->tp_dealloc == (destructor)Event_dealloc; }

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

static PyObject *Event_asdict(PyObject *self, PyObject *nothing) {
    (void)nothing;
    PyObject *fields = PyObject_GetAttrString(self, "_fields"), *dict = fields ? PyDict_New() : NULL;
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
    PyObject *fields = make ? PyObject_GetAttrString(self, "_fields") : NULL, *values = fields ? as_tuple(self) : NULL;
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
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Event_slots,
};

struct state {
    PyObject *event; /* the base of all types of events */
    PyObject *types; /* a dict, names of fields → type */
};

static PyObject *new_event_type(PyObject *base, PyObject *fields) {
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
    PyType_Slot slots[] = {{Py_tp_dealloc, Event_dealloc}, {Py_tp_members, members}, {0, NULL}};
    PyType_Spec spec = {
        .name = Event_spec.name,
        .basicsize = (int)(offsetof(Event, values) + (size_t)count * sizeof(PyObject *)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    type = PyType_FromSpecWithBases(&spec, base);
    if (type && (PyObject_SetAttrString(type, "_fields", fields) || PyObject_SetAttrString(type, "__match_args__", fields)))
        Py_CLEAR(type);
done:
    PyMem_Free(members);
    return type;
}

/* The type of events with these fields; a reference of its own. */
static PyTypeObject *event_type(PyObject *module, PyObject *fields) {
    struct state *state = PyModule_GetState(module);
    PyObject *type = PyDict_GetItemWithError(state->types, fields);
    if (type) return (PyTypeObject *)Py_NewRef(type);
    if (PyErr_Occurred()) return NULL;
    if (PyTuple_GET_SIZE(fields) > MOST_FIELDS) return (PyTypeObject *)PyErr_Format(PyExc_ValueError, "too many fields");
    type = new_event_type(state->event, fields);
    if (type && PyDict_SetItem(state->types, fields, type) < 0) Py_CLEAR(type);
    return (PyTypeObject *)type;
}

PyDoc_STRVAR(make_doc, "make(fields, values) -> Event\n\nAn event with these names of fields and their values, both tuples.");

static PyObject *make(PyObject *module, PyObject *args) {
    PyObject *fields, *values;
    if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &fields, &PyTuple_Type, &values)) return NULL;
    if (PyTuple_GET_SIZE(fields) != PyTuple_GET_SIZE(values))
        return PyErr_Format(PyExc_ValueError, "as many values as fields");
    PyTypeObject *type = event_type(module, fields);
    Event *event = type ? PyObject_New(Event, type) : NULL;
    for (Py_ssize_t i = 0; event && i < PyTuple_GET_SIZE(values); i++)
        event->values[i] = Py_NewRef(PyTuple_GET_ITEM(values, i));
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
    values[0] = PyLong_FromUnsignedLongLong(event->header.time);
    values[1] = small_number(pid, event->header.pid);
    values[2] = small_number(tid, event->header.tid);
    values[3] = probe_name(input, event->header.probe);
    int whole = values[0] && values[1] && values[2] && values[3];
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

/* Columns: for each group of kinds one buffer a number, one list a text. */

union cell {
    uint64_t number;
    PyObject *object;
};

struct group {
    Decoder *first;
    uint32_t size; /* of its shortest record */
    Py_ssize_t rows;
    PyObject *columns;  /* a tuple, from the first row on */
    union cell **cells; /* of each column, a cell a row */
};

static int is_list(const Decoder *decoder, Py_ssize_t column) {
    char kind = column < HEADER_FIELDS ? (column == 3 ? STR : U64) : decoder->fields[column - HEADER_FIELDS].kind;
    return kind == STR || kind == BYTES;
}

static union cell *cells_of(PyObject *column) {
    return PyList_Check(column) ? (void *)((PyListObject *)column)->ob_item : (void *)PyByteArray_AS_STRING(column);
}

static int new_columns(struct group *group, Py_ssize_t room) {
    Py_ssize_t count = HEADER_FIELDS + group->first->count;
    group->columns = PyTuple_New(count);
    group->cells = PyMem_Calloc((size_t)count, sizeof *group->cells);
    if (group->columns && !group->cells) PyErr_NoMemory();
    for (Py_ssize_t i = 0; !PyErr_Occurred() && i < count; i++) {
        PyObject *column = is_list(group->first, i) ? PyList_New(room) : PyByteArray_FromStringAndSize(NULL, room * 8);
        if (!column) break;
        PyTuple_SET_ITEM(group->columns, i, column);
        group->cells[i] = cells_of(column);
    }
    return PyErr_Occurred() ? -1 : 0;
}

static inline int add_row(const struct input *input, struct group *group, const struct event *event) {
    Decoder *decoder = event->decoder;
    union cell **cells = group->cells;
    Py_ssize_t row = group->rows++;
    cells[0][row].number = event->header.time;
    cells[1][row].number = event->header.pid;
    cells[2][row].number = event->header.tid;
    cells[3][row].object = probe_name(input, event->header.probe);
    if (!cells[3][row].object) return -1;
    for (Py_ssize_t i = 0; i < decoder->count; i++) {
        const struct field *field = &decoder->fields[i];
        union cell *cell = &cells[HEADER_FIELDS + i][row];
        if (field->kind == STR || field->kind == BYTES) {
            cell->object = text_value(decoder, field, event->payload);
            if (!cell->object) return -1;
        } else {
            memcpy(&cell->number, event->payload + field->offset, sizeof cell->number);
            if (field->kind == BOOL) cell->number = cell->number != 0;
        }
    }
    return 0;
}

/* The columns with as many cells as there are rows; None where there are none. Takes the group's reference. */
static PyObject *finished(struct group *group) {
    PyObject *columns = group->columns;
    if (!columns) Py_RETURN_NONE;
    group->columns = NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(columns); i++) {
        PyObject *column = PyTuple_GET_ITEM(columns, i);
        if (PyList_Check(column)) Py_SET_SIZE(column, group->rows);
        else if (PyByteArray_Resize(column, group->rows * 8) < 0) Py_CLEAR(columns);
        if (!columns) break;
    }
    return columns;
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
             "and numbers as bytearrays of 8-byte items, probe and texts as lists. None for a group without records.");

static PyObject *columns(PyObject *module, PyObject *args) {
    (void)module;
    struct input input = {.at = 0};
    PyObject *numbers, *result = NULL;
    if (!PyArg_ParseTuple(args, "y*KO!O!O!", &input.data, &input.enough, &PyTuple_Type, &input.decoders, &PyTuple_Type,
                          &input.probes, &PyBytes_Type, &numbers))
        return NULL;
    struct group groups[GROUPS] = {0};
    Py_ssize_t count = sort_kinds(input.decoders, numbers, groups);
    struct event event;
    int more = count;
    while (more >= 0 && (more = next_event(&input, &event)) > 0) {
        struct group *group = &groups[((const uint8_t *)PyBytes_AS_STRING(numbers))[event.header.kind]];
        if (!group->columns && new_columns(group, most_records(&input, group->size)) < 0) more = -1;
        else more = add_row(&input, group, &event);
    }
    if (more == 0) result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *made = finished(&groups[i]);
        if (!made) Py_CLEAR(result);
        else PyList_SET_ITEM(result, i, made);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(groups[i].columns);
        PyMem_Free(groups[i].cells);
    }
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
    self->event = event_type(module, event_fields);
    self->truncated = Py_NewRef(truncated);
    self->truncated_bytes = Py_NewRef(truncated_bytes);
    self->stack = Py_NewRef(stack);
    self->count = PyTuple_GET_SIZE(fields);
    self->size = EVENT_HEADER;
    self->fields = PyMem_Calloc((size_t)self->count + 1, sizeof *self->fields);
    if (self->event && !self->fields) PyErr_NoMemory();
    for (Py_ssize_t i = 0; !PyErr_Occurred() && i < self->count; i++) {
        struct field *field = &self->fields[i];
        int kind;
        PyObject *names = Py_None;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(fields, i), "CIIIO", &kind, &field->offset, &field->size, &field->room, &names)) break;
        if (names != Py_None) field->names = Py_NewRef(names);
        field->kind = (char)kind;
        if (kind > 127 || !strchr("Qq?dsbS", kind) || field->offset > 1 << 20 || field->room > 1 << 20 ||
            (field->names && !PyDict_Check(field->names)))
            PyErr_SetString(PyExc_ValueError, "a field of no known kind or size");
        uint32_t end = field->offset + (kind == STR || kind == BYTES ? 4 + field->room : 8);
        if (end > self->size) self->size = end;
    }
    if (PyErr_Occurred()) Py_CLEAR(self);
    return (PyObject *)self;
}

static void Decoder_dealloc(Decoder *self) {
    PyTypeObject *type = Py_TYPE(self);
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
    {0, NULL},
};

static PyType_Spec Decoder_spec = {
    .name = "usdtkit._events.Decoder",
    .basicsize = sizeof(Decoder),
    .flags = Py_TPFLAGS_DEFAULT,
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
    PyObject *decoder = PyType_FromModuleAndSpec(module, &Decoder_spec, NULL);
    int failed = !state->event || !state->types || !decoder || PyModule_AddObjectRef(module, "Event", state->event) ||
                 PyModule_AddObjectRef(module, "Decoder", decoder);
    Py_XDECREF(decoder);
    return failed ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->event);
    Py_VISIT(state->types);
    return 0;
}

static int module_clear(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->event);
    Py_CLEAR(state->types);
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
