/* Values of rows → lines of text, many with each call: the module usdtkit._lines.
 *
 * In: what a format has to write for each of its columns, from usdtkit.output.lines, and rows: events, or mappings. Out:
 * one str. Only what is the same text in every hand is written here: whole numbers, and ASCII that the column says is
 * plain. All else goes to the column's function in Python, so there is one sanitiser for text, and it is not here.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { CHARACTERS = 128, LONGEST_NUMBER = 20, SECOND = 1000000000 };
enum numbers { OTHERS = 0, WHOLE = 1 }; /* any other value of `numbers` is what a number is divided by */

enum plain { NOT_PLAIN, PLAIN, INNER }; /* INNER is plain behind the first character */

/* What is written for one column. */
struct cell {
    PyObject *name;               /* of the attribute, or the key */
    PyObject *of;                 /* makes the value of a row; NULL takes the one of that name */
    PyObject *shown;              /* makes the text of a value that is not plain */
    const char *before;           /* what precedes the text */
    Py_ssize_t before_length;
    PyObject *before_object;
    char quote;                   /* what stands around plain text, or 0 */
    int right;                    /* whether it is aligned to the right */
    Py_ssize_t width;             /* in a line that is aligned */
    double numbers;               /* enum numbers, or the divisor of a number with two places */
    int texts;                    /* whether there is plain text at all */
    uint8_t plain[CHARACTERS];    /* by ASCII character: whether text of these is written as it is: enum plain */
    PyObject *second;             /* says of a time when its second began, and the text of that; NULL for other values */
    int digits;                   /* of the fraction that are written behind it */
    int64_t begin;                /* of the last second that there was, */
    PyObject *second_text;        /* and its text */
    int nested;                   /* whether plain values of a dict are written, as JSON writes them */
};

typedef struct {
    PyObject_HEAD
    int aligned;
    Py_ssize_t count;
    struct cell *cells;
    PyObject *end;
} Lines;

/* The text so far, as UTF-8; `characters` are those of the line that is being written. */
struct text {
    char *data;
    size_t length, room;
    Py_ssize_t characters;
};

static int make_room(struct text *text, size_t more) {
    if (text->length + more < text->room) return 0; /* never so at first, when there is no memory yet */
    size_t room = (text->room + more) * 2;
    char *data = PyMem_Realloc(text->data, room);
    if (!data) {
        PyErr_NoMemory();
        return -1;
    }
    text->data = data;
    text->room = room;
    return 0;
}

static inline int add_ascii(struct text *text, const char *data, size_t length) {
    if (make_room(text, length)) return -1;
    memcpy(text->data + text->length, data, length);
    text->length += length;
    text->characters += (Py_ssize_t)length;
    return 0;
}

static int add_spaces(struct text *text, Py_ssize_t count) {
    if (make_room(text, (size_t)count)) return -1;
    memset(text->data + text->length, ' ', (size_t)count);
    text->length += (size_t)count;
    text->characters += count;
    return 0;
}

static int add_object(struct text *text, PyObject *shown) {
    Py_ssize_t length;
    const char *data = PyUnicode_AsUTF8AndSize(shown, &length);
    if (!data || add_ascii(text, data, (size_t)length)) return -1;
    text->characters += PyUnicode_GET_LENGTH(shown) - length;
    return 0;
}

/* With two places, as Python writes them: printf would take the decimal point of the program's locale. */
static int add_quotient(struct text *text, double quotient) {
    char *digits = PyOS_double_to_string(quotient, 'f', 2, 0, NULL);
    int status = digits && !add_ascii(text, digits, strlen(digits)) ? 1 : -1;
    PyMem_Free(digits);
    return status;
}

/* Writes a plain value. Returns 1, or 0 if it is not plain, or -1 with an exception. */
static inline int add_number(struct text *text, const struct cell *cell, PyObject *value) {
    if (cell->numbers == OTHERS) return 0;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return 0;
    if (cell->numbers != WHOLE) return add_quotient(text, (double)number / cell->numbers);
    char digits[LONGEST_NUMBER], *first = digits + sizeof digits;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do *--first = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0) *--first = '-';
    return add_ascii(text, first, (size_t)(digits + sizeof digits - first)) ? -1 : 1;
}

/* Asks for the second of a time, which is the same for many events. */
static int read_second(struct cell *cell, PyObject *value) {
    PyObject *answer = PyObject_CallOneArg(cell->second, value), *second_text;
    long long begin;
    if (answer && !PyTuple_Check(answer)) {
        PyErr_SetString(PyExc_TypeError, "a second must be a tuple");
        Py_CLEAR(answer);
    }
    int status = answer && PyArg_ParseTuple(answer, "LU", &begin, &second_text) ? 0 : -1;
    if (!status) {
        Py_XSETREF(cell->second_text, Py_NewRef(second_text));
        cell->begin = begin;
    }
    Py_XDECREF(answer);
    return status;
}

static inline int add_time(struct text *text, struct cell *cell, PyObject *value) {
    int overflow;
    int64_t time = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return 0;
    if ((!cell->second_text || (uint64_t)(time - cell->begin) >= SECOND) && read_second(cell, value)) return -1;
    char fraction[9];
    int64_t left = time - cell->begin;
    for (int i = 8; i >= 0; i--, left /= 10) fraction[i] = (char)('0' + left % 10);
    PyObject *second_text = Py_NewRef(cell->second_text);
    int status = add_object(text, second_text) || add_ascii(text, fraction, (size_t)cell->digits) ? -1 : 1;
    Py_DECREF(second_text);
    return status;
}

static inline int is_plain(const struct cell *cell, PyObject *value) {
    if (!cell->texts || !PyUnicode_IS_COMPACT_ASCII(value)) return 0;
    const uint8_t *data = PyUnicode_DATA(value);
    Py_ssize_t length = PyUnicode_GET_LENGTH(value);
    for (Py_ssize_t i = 0; i < length; i++)
        if (!cell->plain[data[i]]) return 0;
    return !length || cell->plain[data[0]] != INNER;
}

static inline int add_text(struct text *text, const struct cell *cell, PyObject *value) {
    if (!is_plain(cell, value)) return 0;
    size_t length = (size_t)PyUnicode_GET_LENGTH(value);
    if (make_room(text, length + 2)) return -1;
    if (cell->quote) add_ascii(text, &cell->quote, 1);
    add_ascii(text, PyUnicode_DATA(value), length);
    if (cell->quote) add_ascii(text, &cell->quote, 1);
    return 1;
}

static inline int add_plain(struct text *text, struct cell *cell, PyObject *value) {
    if (PyUnicode_CheckExact(value)) return add_text(text, cell, value);
    if (!PyLong_CheckExact(value)) return 0;
    return cell->second ? add_time(text, cell, value) : add_number(text, cell, value);
}

/* An object of JSON, if all in it is plain. */
static int add_dict(struct text *text, struct cell *cell, PyObject *dict) {
    size_t length = text->length;
    Py_ssize_t characters = text->characters, at = 0;
    PyObject *key, *value;
    const char *before = "{";
    int status = 1;
    while (status > 0 && PyDict_Next(dict, &at, &key, &value)) {
        status = add_ascii(text, before, strlen(before)) ? -1 : PyUnicode_CheckExact(key) ? add_text(text, cell, key) : 0;
        if (status > 0) status = add_ascii(text, ": ", 2) ? -1 : add_plain(text, cell, value);
        before = ", ";
    }
    if (status > 0 && *before == '{' && add_ascii(text, "{", 1)) status = -1;
    if (status > 0) return add_ascii(text, "}", 1) ? -1 : 1;
    text->length = length;
    text->characters = characters;
    return status;
}

static int add_value(struct text *text, struct cell *cell, PyObject *value) {
    int status = cell->nested && PyDict_CheckExact(value) ? add_dict(text, cell, value) : add_plain(text, cell, value);
    if (status) return status < 0 ? -1 : 0;
    PyObject *shown = PyObject_CallOneArg(cell->shown, value);
    if (shown && !PyUnicode_Check(shown)) {
        PyErr_SetString(PyExc_TypeError, "the text of a cell must be a str");
        Py_CLEAR(shown);
    }
    status = shown ? add_object(text, shown) : -1;
    Py_XDECREF(shown);
    return status;
}

/* A new reference to a row's value for a cell. */
static inline PyObject *value_of(const struct cell *cell, PyObject *row) {
    if (cell->of) return PyObject_CallOneArg(cell->of, row);
    return PyDict_Check(row) ? PyObject_GetItem(row, cell->name) : PyObject_GetAttr(row, cell->name);
}

static int add_cell(struct text *text, struct cell *cell, PyObject *row) {
    PyObject *value = value_of(cell, row);
    int status = value ? add_value(text, cell, value) : -1;
    Py_XDECREF(value);
    return status;
}

/* Moves the text from `begin` on to the right. */
static int indent(struct text *text, size_t begin, Py_ssize_t spaces) {
    size_t length = text->length - begin;
    if (add_spaces(text, spaces)) return -1;
    memmove(text->data + begin + spaces, text->data + begin, length);
    memset(text->data + begin, ' ', (size_t)spaces);
    return 0;
}

/* After a cell that is too long, the next ones move as little as possible. */
static int add_line(struct text *text, const Lines *lines, PyObject *row) {
    size_t line = text->length;
    Py_ssize_t edge = 0;
    text->characters = 0;
    for (Py_ssize_t i = 0; i < lines->count; i++) {
        struct cell *cell = &lines->cells[i];
        if (add_ascii(text, cell->before, (size_t)cell->before_length)) return -1;
        size_t begin = text->length;
        if (add_cell(text, cell, row)) return -1;
        edge += cell->before_length + cell->width;
        Py_ssize_t missing = lines->aligned ? edge - text->characters : 0;
        if (missing > 0 && (cell->right ? indent(text, begin, missing) : add_spaces(text, missing))) return -1;
    }
    while (lines->aligned && text->length > line && text->data[text->length - 1] == ' ') text->length--;
    return add_object(text, lines->end);
}

PyDoc_STRVAR(text_doc, "text(rows) -> str\n\nThe lines of these rows; `rows` is a list.");

static PyObject *Lines_text(Lines *self, PyObject *rows) {
    if (!PyList_Check(rows)) return PyErr_Format(PyExc_TypeError, "rows must be a list");
    struct text text = {.data = NULL};
    int status = 0;
    for (Py_ssize_t i = 0; !status && i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = Py_NewRef(PyList_GET_ITEM(rows, i)); /* a function of a cell could take it from the list */
        status = add_line(&text, self, row);
        Py_DECREF(row);
    }
    PyObject *result = status ? NULL : PyUnicode_DecodeUTF8(text.data ? text.data : "", (Py_ssize_t)text.length, NULL);
    PyMem_Free(text.data);
    return result;
}

static int mark_plain(struct cell *cell, const char *characters, Py_ssize_t count, enum plain mark) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if ((uint8_t)characters[i] >= CHARACTERS) {
            PyErr_SetString(PyExc_ValueError, "plain text is ASCII");
            return -1;
        }
        cell->plain[(uint8_t)characters[i]] = (uint8_t)mark;
    }
    return 0;
}

static int read_cell(struct cell *cell, PyObject *described) {
    PyObject *of, *before, *second;
    const char *plain, *inner, *quote;
    Py_ssize_t plain_length, inner_length, quote_length;
    if (!PyArg_ParseTuple(described, "UOOUs#s#s#npdpOi", &cell->name, &of, &cell->shown, &before, &plain, &plain_length,
                          &inner, &inner_length, &quote, &quote_length, &cell->width, &cell->right, &cell->numbers,
                          &cell->nested, &second, &cell->digits)) {
        cell->name = cell->shown = NULL;
        return -1;
    }
    Py_INCREF(cell->name);
    Py_INCREF(cell->shown);
    cell->of = of == Py_None ? NULL : Py_NewRef(of);
    cell->second = second == Py_None ? NULL : Py_NewRef(second);
    cell->before_object = Py_NewRef(before);
    cell->before = PyUnicode_AsUTF8AndSize(before, &cell->before_length);
    if (!cell->before) return -1;
    cell->quote = quote_length ? *quote : 0;
    cell->texts = plain_length > 0;
    if (cell->digits < 0 || cell->digits > 9) {
        PyErr_SetString(PyExc_ValueError, "a fraction has 9 digits at most");
        return -1;
    }
    return mark_plain(cell, plain, plain_length, PLAIN) || mark_plain(cell, inner, inner_length, INNER) ? -1 : 0;
}

static PyObject *Lines_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *cells, *end;
    int aligned;
    if (keywords && PyDict_GET_SIZE(keywords)) return PyErr_Format(PyExc_TypeError, "Lines takes no keywords");
    if (!PyArg_ParseTuple(args, "O!Up", &PyTuple_Type, &cells, &end, &aligned)) return NULL;
    Lines *self = (Lines *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->aligned = aligned;
    self->end = Py_NewRef(end);
    self->cells = PyMem_Calloc((size_t)PyTuple_GET_SIZE(cells) + 1, sizeof *self->cells);
    if (!self->cells) PyErr_NoMemory();
    while (self->cells && self->count < PyTuple_GET_SIZE(cells)) {
        PyObject *described = PyTuple_GET_ITEM(cells, self->count);
        if (read_cell(&self->cells[self->count++], described)) break;
    }
    if (PyErr_Occurred()) Py_CLEAR(self);
    return (PyObject *)self;
}

static int Lines_traverse(Lines *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; self->cells && i < self->count; i++) {
        Py_VISIT(self->cells[i].of);
        Py_VISIT(self->cells[i].shown);
        Py_VISIT(self->cells[i].second);
    }
    return 0;
}

/* There is no tp_clear, because a Lines never changes. Whoever refers to it is cleared. */
static void Lines_dealloc(Lines *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    for (Py_ssize_t i = 0; self->cells && i < self->count; i++) {
        struct cell *cell = &self->cells[i];
        Py_XDECREF(cell->name);
        Py_XDECREF(cell->of);
        Py_XDECREF(cell->shown);
        Py_XDECREF(cell->before_object);
        Py_XDECREF(cell->second);
        Py_XDECREF(cell->second_text);
    }
    PyMem_Free(self->cells);
    Py_XDECREF(self->end);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Lines_doc,
             "Lines(cells, end, aligned)\n\n"
             "Writes a line for each row. A cell is (name, of, shown, before, plain, inner, quote, width, right, numbers,\n"
             "nested, second, digits), as usdtkit.output.lines.Cell says, whose `clock` has the last two. `end` stands at\n"
             "the end of each line. In lines that are `aligned`, cells have widths, and no line ends with a space.");

static PyMethodDef Lines_methods[] = {
    {"text", (PyCFunction)Lines_text, METH_O, text_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Lines_slots[] = {
    {Py_tp_doc, (void *)Lines_doc},       {Py_tp_new, Lines_new},           {Py_tp_dealloc, Lines_dealloc},
    {Py_tp_traverse, Lines_traverse},     {Py_tp_methods, Lines_methods},   {0, NULL},
};

static PyType_Spec Lines_spec = {
    .name = "usdtkit._lines.Lines",
    .basicsize = sizeof(Lines),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Lines_slots,
};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &Lines_spec, NULL);
    int failed = !type || PyModule_AddObjectRef(module, "Lines", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "usdtkit._lines",
    .m_doc = "Rows as lines of text.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__lines(void) { return PyModuleDef_Init(&definition); }
