/* usdtkit._events: records of the ring buffer → Python objects, many a call.
 *
 * In: a chunk of records as usdtkit_ring_drain wrote it, and a Decoder for each kind of event, made from the layout
 * that made the record's C struct. Out: a list of named tuples, or columns. usdtkit.bpf.layout decodes the same
 * records in Python; the tests hold the two against each other.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { RECORD_HEADER = 8, EVENT_HEADER = 24, HEADER_FIELDS = 4 };
enum kind { U64 = 'Q', I64 = 'q', BOOL = '?', F64 = 'd', STR = 's', BYTES = 'b' };

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
    PyObject *truncated, *truncated_bytes;
    uint32_t size; /* of the record */
    Py_ssize_t count;
    struct field *fields;
} Decoder;

struct header {
    uint32_t kind, probe;
    uint64_t time;
    uint32_t pid, tid;
};

/* One drained record: its payload, and where the next one begins. 0 at the end, -1 with an exception. */
static int next_record(const uint8_t *data, Py_ssize_t end, Py_ssize_t *at, const uint8_t **payload, uint32_t *length) {
    if (*at >= end) return 0;
    if (end - *at >= RECORD_HEADER) {
        memcpy(length, data + *at, sizeof *length);
        Py_ssize_t step = RECORD_HEADER + (((Py_ssize_t)*length + 7) & ~(Py_ssize_t)7);
        if (step <= end - *at) {
            *payload = data + *at + RECORD_HEADER;
            *at += step;
            return 1;
        }
    }
    PyErr_SetString(PyExc_ValueError, "a record is cut off");
    return -1;
}

static Decoder *decoder_of(PyObject *decoders, const uint8_t *payload, uint32_t length, struct header *header) {
    if (length >= EVENT_HEADER) {
        memcpy(header, payload, EVENT_HEADER);
        if (header->kind < (uint64_t)PyTuple_GET_SIZE(decoders)) {
            Decoder *decoder = (Decoder *)PyTuple_GET_ITEM(decoders, header->kind);
            if (length >= decoder->size) return decoder;
        }
    }
    PyErr_SetString(PyExc_ValueError, "a record of no known kind");
    return NULL;
}

/* Text of `kept` bytes of the program's; `cut` where there was more. */
static PyObject *make_text(PyObject *plain, PyObject *cut_type, int cut) {
    if (!cut || !plain) return plain;
    PyObject *marked = PyObject_CallOneArg(cut_type, plain);
    Py_DECREF(plain);
    return marked;
}

static PyObject *text_value(const Decoder *decoder, const struct field *field, const uint8_t *payload) {
    int32_t length;
    memcpy(&length, payload + field->offset, sizeof length);
    if (length < 0) Py_RETURN_NONE; /* an errno: the pointer led nowhere */
    const char *data = (const char *)payload + field->offset + 4;
    size_t kept = (size_t)length < field->room ? (size_t)length : field->room;
    if (field->kind == BYTES) {
        if (kept > field->size) kept = field->size;
        return make_text(PyBytes_FromStringAndSize(data, (Py_ssize_t)kept), decoder->truncated_bytes,
                         (size_t)length > field->size);
    }
    kept = strnlen(data, kept);
    int cut = kept > field->size;
    if (cut) kept = field->size;
    return make_text(PyUnicode_DecodeUTF8(data, (Py_ssize_t)kept, "surrogateescape"), decoder->truncated, cut);
}

static PyObject *value_of(const Decoder *decoder, const struct field *field, const uint8_t *payload) {
    uint64_t raw;
    double real;
    if (field->kind == STR || field->kind == BYTES) return text_value(decoder, field, payload);
    memcpy(&raw, payload + field->offset, sizeof raw);
    switch (field->kind) {
    case U64:
        return PyLong_FromUnsignedLongLong(raw);
    case I64: {
        PyObject *number = PyLong_FromLongLong((int64_t)raw);
        PyObject *name = number && field->names ? PyDict_GetItemWithError(field->names, number) : NULL;
        if (!name) return number;
        Py_DECREF(number);
        return Py_NewRef(name);
    }
    case BOOL:
        return PyBool_FromLong(raw != 0);
    default:
        memcpy(&real, &raw, sizeof real);
        return PyFloat_FromDouble(real);
    }
}

static PyObject *probe_name(PyObject *probes, uint32_t probe) {
    if (probe < (uint64_t)PyTuple_GET_SIZE(probes)) return Py_NewRef(PyTuple_GET_ITEM(probes, probe));
    PyErr_SetString(PyExc_ValueError, "a record of no known probe");
    return NULL;
}

/* The last number made, because the next event is likely to come from the same thread. */
struct last {
    uint32_t number;
    PyObject *object;
};

static PyObject *small_number(struct last *last, uint32_t number) {
    if (!last->object || last->number != number) {
        PyObject *made = PyLong_FromUnsignedLong(number);
        if (!made) return NULL;
        Py_XSETREF(last->object, made);
        last->number = number;
    }
    return Py_NewRef(last->object);
}

static PyObject *make_event(Decoder *decoder, const struct header *header, const uint8_t *payload, PyObject *probes,
                            struct last *pid, struct last *tid) {
    PyObject *event = decoder->event->tp_alloc(decoder->event, HEADER_FIELDS + decoder->count);
    if (!event) return NULL;
    PyObject **items = ((PyTupleObject *)event)->ob_item;
    int whole = (items[0] = PyLong_FromUnsignedLongLong(header->time)) && (items[1] = small_number(pid, header->pid)) &&
                (items[2] = small_number(tid, header->tid)) && (items[3] = probe_name(probes, header->probe));
    for (Py_ssize_t i = 0; whole && i < decoder->count; i++)
        whole = (items[HEADER_FIELDS + i] = value_of(decoder, &decoder->fields[i], payload)) != NULL;
    if (!whole) Py_CLEAR(event);
    else PyObject_GC_UnTrack(event); /* numbers and strings make no cycles: the collector need not look at them */
    return event;
}

static int decoders_are(PyObject *decoders);

PyDoc_STRVAR(decode_doc, "decode(chunk, end, decoders, probes) -> list\n\n"
                         "The events in the first `end` bytes of a drained chunk. `decoders` by kind, `probes` names by "
                         "number. ValueError where the chunk holds something else.");

static PyObject *decode(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer chunk;
    Py_ssize_t end;
    PyObject *decoders, *probes;
    if (!PyArg_ParseTuple(args, "y*nO!O!", &chunk, &end, &PyTuple_Type, &decoders, &PyTuple_Type, &probes)) return NULL;
    PyObject *events = decoders_are(decoders) ? PyList_New(0) : NULL;
    if (end > chunk.len) end = chunk.len;
    struct last pid = {0, NULL}, tid = {0, NULL};
    Py_ssize_t at = 0;
    const uint8_t *payload;
    uint32_t length;
    int more = 0;
    while (events && (more = next_record(chunk.buf, end, &at, &payload, &length)) > 0) {
        struct header header;
        Decoder *decoder = decoder_of(decoders, payload, length, &header);
        PyObject *event = decoder ? make_event(decoder, &header, payload, probes, &pid, &tid) : NULL;
        if (!event || PyList_Append(events, event) < 0) more = -1;
        Py_XDECREF(event);
        if (more < 0) break;
    }
    if (more < 0) Py_CLEAR(events);
    Py_XDECREF(pid.object);
    Py_XDECREF(tid.object);
    PyBuffer_Release(&chunk);
    return events;
}

/* Columns: for each kind of event one buffer a number, one list a text. */
static int add_to_columns(Decoder *decoder, const struct header *header, const uint8_t *payload, PyObject *probes,
                          PyObject *columns, Py_ssize_t row) {
    uint64_t head[3] = {header->time, header->pid, header->tid};
    for (int i = 0; i < 3; i++)
        memcpy(PyByteArray_AS_STRING(PyTuple_GET_ITEM(columns, i)) + row * 8, &head[i], 8);
    PyObject *name = probe_name(probes, header->probe);
    if (!name) return -1;
    PyList_SET_ITEM(PyTuple_GET_ITEM(columns, 3), row, name);
    for (Py_ssize_t i = 0; i < decoder->count; i++) {
        const struct field *field = &decoder->fields[i];
        PyObject *column = PyTuple_GET_ITEM(columns, HEADER_FIELDS + i);
        if (field->kind == STR || field->kind == BYTES) {
            PyObject *text = text_value(decoder, field, payload);
            if (!text) return -1;
            PyList_SET_ITEM(column, row, text);
        } else {
            uint64_t raw;
            memcpy(&raw, payload + field->offset, sizeof raw);
            if (field->kind == BOOL) raw = raw != 0;
            memcpy(PyByteArray_AS_STRING(column) + row * 8, &raw, sizeof raw);
        }
    }
    return 0;
}

static PyObject *new_columns(const Decoder *decoder, Py_ssize_t rows) {
    PyObject *columns = PyTuple_New(HEADER_FIELDS + decoder->count);
    for (Py_ssize_t i = 0; columns && i < HEADER_FIELDS + decoder->count; i++) {
        char kind = i < 3 ? U64 : i == 3 ? STR : decoder->fields[i - HEADER_FIELDS].kind;
        PyObject *column = kind == STR || kind == BYTES ? PyList_New(rows) : PyByteArray_FromStringAndSize(NULL, rows * 8);
        if (!column) Py_CLEAR(columns);
        else PyTuple_SET_ITEM(columns, i, column);
    }
    return columns;
}

PyDoc_STRVAR(columns_doc,
             "columns(chunk, end, decoders, probes, groups) -> list\n\n"
             "As decode, but for each group of kinds (`groups[kind]` is its number) a tuple of columns: time_ns, pid, tid\n"
             "and numbers as bytearrays of 8-byte items, probe and texts as lists. None for a group without records.");

static PyObject *columns(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer chunk;
    Py_ssize_t end;
    PyObject *decoders, *probes, *groups;
    if (!PyArg_ParseTuple(args, "y*nO!O!O!", &chunk, &end, &PyTuple_Type, &decoders, &PyTuple_Type, &probes,
                          &PyBytes_Type, &groups))
        return NULL;
    if (end > chunk.len) end = chunk.len;
    PyObject *result = NULL;
    Py_ssize_t rows[256] = {0}, filled[256] = {0}, at = 0, group_count = 0;
    const uint8_t *payload, *group_of = (const uint8_t *)PyBytes_AS_STRING(groups);
    Decoder *first[256] = {NULL};
    uint32_t length;
    struct header header;
    int more;
    if (!decoders_are(decoders)) goto done;
    if (PyBytes_GET_SIZE(groups) != PyTuple_GET_SIZE(decoders)) {
        PyErr_SetString(PyExc_ValueError, "a group for each decoder");
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyBytes_GET_SIZE(groups); i++)
        if (group_of[i] >= group_count) group_count = group_of[i] + 1;
    while ((more = next_record(chunk.buf, end, &at, &payload, &length)) > 0) {
        Decoder *decoder = decoder_of(decoders, payload, length, &header);
        if (!decoder) goto done;
        rows[group_of[header.kind]]++;
        if (!first[group_of[header.kind]]) first[group_of[header.kind]] = decoder;
    }
    if (more < 0) goto done;
    result = PyList_New(group_count);
    for (Py_ssize_t i = 0; result && i < group_count; i++) {
        PyObject *made = first[i] ? new_columns(first[i], rows[i]) : Py_NewRef(Py_None);
        if (!made) Py_CLEAR(result);
        else PyList_SET_ITEM(result, i, made);
    }
    at = 0;
    while (result && next_record(chunk.buf, end, &at, &payload, &length) > 0) {
        Decoder *decoder = decoder_of(decoders, payload, length, &header);
        uint8_t group = group_of[header.kind];
        if (!decoder || decoder->count != first[group]->count ||
            add_to_columns(decoder, &header, payload, probes, PyList_GET_ITEM(result, group), filled[group]++) < 0) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "kinds of one group have the same fields");
            Py_CLEAR(result);
        }
    }
done:
    PyBuffer_Release(&chunk);
    return result;
}

static PyObject *Decoder_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    static char *keywords[] = {"event", "fields", "truncated", "truncated_bytes", NULL};
    PyObject *event, *fields, *truncated, *truncated_bytes;
    if (!PyArg_ParseTupleAndKeywords(args, names, "O!O!OO", keywords, &PyType_Type, &event, &PyTuple_Type, &fields,
                                     &truncated, &truncated_bytes))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)event, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "an event is a tuple");
        return NULL;
    }
    Decoder *self = (Decoder *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->event = (PyTypeObject *)Py_NewRef(event);
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
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(fields, i), "CIIIO", &kind, &field->offset, &field->size, &field->room, &names)) break;
        if (names != Py_None) field->names = Py_NewRef(names);
        field->kind = (char)kind;
        if (kind > 127 || !strchr("Qq?dsb", kind) || field->offset > 1 << 20 || field->room > 1 << 20 ||
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
    PyMem_Free(self->fields);
    Py_XDECREF(self->event);
    Py_XDECREF(self->truncated);
    Py_XDECREF(self->truncated_bytes);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Decoder_doc, "Decoder(event, fields, truncated, truncated_bytes)\n\n"
                          "Makes `event` (a named tuple class) of records with these fields: (kind, offset, size, room, names).");

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
    PyObject *type = PyType_FromSpec(&Decoder_spec);
    int result = type ? PyModule_AddObjectRef(module, "Decoder", type) : -1;
    Py_XDECREF(type);
    return result;
}

static PyMethodDef methods[] = {
    {"decode", decode, METH_VARARGS, decode_doc},
    {"columns", columns, METH_VARARGS, columns_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "usdtkit._events",
    .m_doc = "Records of the ring buffer as Python objects.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__events(void) { return PyModuleDef_Init(&definition); }
