/* Records of the ring buffer → columns, for programs that look at many events at once.
 *
 * In: the memory of a ring buffer, decoders, and which kinds of records have the same fields and so form a group. Out:
 * for each group one sequence a field. Numbers are copied and no objects are made of them; of texts only the bytes are
 * copied, and Texts makes an object, by events_decode.c, when one is asked for.
 */

#include "events.h"

#include <structmember.h>

enum { MAX_GROUPS = 256 };

/* The texts of a column, one behind the other. */
typedef struct {
    PyObject_HEAD
    Decoder *decoder;
    PyObject *data;    /* bytes: all texts */
    PyObject *offsets; /* bytes: where each text begins in `data`, and where the last one ends, as int64 */
    PyObject *marks;   /* bytes: the mark of each */
    char kind;
} Texts;

static Py_ssize_t Texts_length(Texts *self) { return PyBytes_GET_SIZE(self->marks); }

static PyObject *Texts_item(Texts *self, Py_ssize_t index) {
    if (index < 0 || index >= Texts_length(self))
        return PyErr_Format(PyExc_IndexError, "there is no text with this number");
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

PyDoc_STRVAR(Texts_doc, "The texts of a column: a sequence of str or bytes, which are made when they are asked for.");

static PyMemberDef Texts_members[] = {
    {"data", T_OBJECT_EX, offsetof(Texts, data), READONLY, "The bytes of all texts, one behind the other."},
    {"marks", T_OBJECT_EX, offsetof(Texts, marks), READONLY,
     "A byte for each text: 1 if it was cut, 2 if it could not be read, else 0."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Texts_getset[] = {
    {"offsets", (getter)Texts_offsets, NULL,
     "Where each text begins in `data`, and in one more item where the last one ends.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Texts_slots[] = {
    {Py_tp_doc, (void *)Texts_doc},     {Py_tp_dealloc, Texts_dealloc},      {Py_tp_members, Texts_members},
    {Py_tp_getset, Texts_getset},       {Py_sq_length, Texts_length},        {Py_sq_item, Texts_item},
    {Py_mp_length, Texts_length},       {Py_mp_subscript, Texts_subscript},  {Py_tp_traverse, Texts_traverse},
    {0, NULL},
};

PyType_Spec Texts_spec = {
    .name = "usdtkit.trace.Texts",
    .basicsize = sizeof(Texts),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Texts_slots,
};

/* Records are collected in runs, and a run is copied field by field: so the inner loops do one thing at a time. */

enum { RUN = 128 };

struct column {
    char kind;
    PyObject *object; /* for numbers a bytearray, for probes a list, for texts the bytes of their offsets */
    union {
        uint64_t *numbers;
        PyObject **objects;
    };
    PyObject *data, *marks; /* for texts */
    uint64_t used;          /* bytes of `data` that hold texts */
};

struct group {
    Decoder *first;
    uint32_t size; /* of its shortest record */
    Py_ssize_t rows;
    struct column *columns; /* made with the first record: those of the header, and one for each field */
    struct event *run;      /* records that are not yet in the columns */
    int waiting;            /* the length of the run */
};

static int new_column(struct column *column, char kind, Py_ssize_t rows, uint32_t text_capacity) {
    column->kind = kind;
    column->object = is_text(kind) ? PyBytes_FromStringAndSize(NULL, (rows + 1) * 8)
                                   : PyByteArray_FromStringAndSize(NULL, rows * 8);
    if (!column->object) return -1;
    column->numbers =
        (void *)(is_text(kind) ? PyBytes_AS_STRING(column->object) : PyByteArray_AS_STRING(column->object));
    if (!is_text(kind)) return 0;
    column->numbers[0] = 0;
    column->marks = PyBytes_FromStringAndSize(NULL, rows);
    column->data = PyBytes_FromStringAndSize(NULL, rows * text_capacity);
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
        if (new_column(&columns[HEADER_FIELDS + i], field->kind, rows, field->capacity) < 0) return -1;
    }
    return 0;
}

static inline uint64_t word_at(const uint8_t *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Makes room for the bytes of one more text. The capacity is what the first kind of record in the group needs; the
 * texts of another kind may be longer. */
static inline int reserve_text(struct column *column, uint64_t length) {
    uint64_t capacity = (uint64_t)PyBytes_GET_SIZE(column->data);
    if (length <= capacity - column->used) return 0;
    return _PyBytes_Resize(&column->data, (Py_ssize_t)(2 * capacity + length));
}

static int add_texts(struct column *column, Py_ssize_t field, const struct event *run, int count, Py_ssize_t row) {
    uint64_t *ends = column->numbers + row + 1;
    uint8_t *marks = (uint8_t *)PyBytes_AS_STRING(column->marks) + row;
    for (int i = 0; i < count; i++) {
        struct text text = text_at(&run[i].decoder->fields[field], run[i].payload);
        if (reserve_text(column, text.length) < 0) return -1;
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

/* Copies the run into the columns. */
static int add_run(const struct input *input, struct group *group) {
    struct column *columns = group->columns;
    const struct event *run = group->run;
    Py_ssize_t row = group->rows;
    int count = group->waiting;
    uint64_t *times = columns[TIME].numbers + row;
    uint64_t *pids = columns[PID].numbers + row, *tids = columns[TID].numbers + row;
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

/* The object that a column becomes when it has all its rows. */
static PyObject *finish_column(PyTypeObject *texts_type, Decoder *decoder, struct column *column, Py_ssize_t rows) {
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

/* A tuple of the columns of a group, or None if no record belongs to it. */
static PyObject *finish_group(PyTypeObject *texts_type, const struct input *input, struct group *group) {
    if (!group->columns) Py_RETURN_NONE;
    if (add_run(input, group) < 0) return NULL;
    Py_ssize_t count = HEADER_FIELDS + group->first->count;
    PyObject *columns = PyTuple_New(count);
    for (Py_ssize_t i = 0; columns && i < count; i++) {
        PyObject *column = finish_column(texts_type, group->first, &group->columns[i], group->rows);
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

static int same_fields(const Decoder *first, const Decoder *second) {
    int same = first->event == second->event;
    for (Py_ssize_t i = 0; same && i < first->count; i++) same = first->fields[i].kind == second->fields[i].kind;
    return same;
}

/* Sorts the kinds of records into groups. Records of a group have the same fields, perhaps of different sizes. Returns
 * the number of groups, or -1 with an exception. */
static Py_ssize_t sort_kinds(PyObject *decoders, PyObject *numbers, struct group *groups) {
    const uint8_t *group_of = (const uint8_t *)PyBytes_AS_STRING(numbers);
    Py_ssize_t count = 0;
    if (!check_decoders(decoders)) return -1;
    if (PyBytes_GET_SIZE(numbers) != PyTuple_GET_SIZE(decoders)) {
        PyErr_SetString(PyExc_ValueError, "there must be a group for each decoder");
        return -1;
    }
    for (Py_ssize_t kind = 0; kind < PyTuple_GET_SIZE(decoders); kind++) {
        struct group *group = &groups[group_of[kind]];
        Decoder *decoder = (Decoder *)PyTuple_GET_ITEM(decoders, kind);
        if (!group->first || group->size > decoder->size) group->size = decoder->size;
        if (!group->first) group->first = decoder;
        if (!same_fields(group->first, decoder)) {
            PyErr_SetString(PyExc_ValueError, "the kinds of a group must have the same fields");
            return -1;
        }
        if (group_of[kind] >= count) count = group_of[kind] + 1;
    }
    return count;
}

PyObject *columns(PyObject *module, PyObject *args) {
    struct input input = {.at = 0};
    PyObject *numbers, *result = NULL;
    if (!PyArg_ParseTuple(args, "y*KO!O!O!", &input.data, &input.enough, &PyTuple_Type, &input.decoders, &PyTuple_Type,
                          &input.probes, &PyBytes_Type, &numbers))
        return NULL;
    PyTypeObject *texts_type = ((struct state *)PyModule_GetState(module))->texts;
    struct group groups[MAX_GROUPS] = {0};
    Py_ssize_t count = sort_kinds(input.decoders, numbers, groups);
    const uint8_t *group_of = (const uint8_t *)PyBytes_AS_STRING(numbers);
    struct event event;
    int status = count < 0 ? -1 : 1;
    while (status > 0 && (status = next_event(&input, &event)) > 0) {
        struct group *group = &groups[group_of[header_of(event.payload).kind]];
        if (!group->columns && new_columns(group, max_records(&input, group->size)) < 0) status = -1;
        else group->run[group->waiting++] = event;
        if (group->waiting == RUN && add_run(&input, group) < 0) status = -1;
    }
    if (status == 0) result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *finished = finish_group(texts_type, &input, &groups[i]);
        if (finished) PyList_SET_ITEM(result, i, finished);
        else Py_CLEAR(result);
    }
    for (Py_ssize_t i = 0; i < count; i++) free_columns(&groups[i]);
    PyBuffer_Release(&input.data);
    return result ? Py_BuildValue("(NK)", result, input.at) : NULL;
}
