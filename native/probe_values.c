/* The values of one call of a probe: Python objects → the integers that its stub is called with, and back.
 *
 * In: a value and the declared type of its argument, from probe.c. Out: one or two operands, or an exception that names
 * the probe and the argument. Strings are not copied: an operand points into the object, which the caller keeps alive.
 * The way back gives usdtkit.testing what a tracer would read of the same operands.
 */

#include "probe.h"

#include <math.h>
#include <string.h>

const struct type argument_types[TYPE_COUNT] = {
    {"u8", UNSIGNED, 8, 0},   {"u16", UNSIGNED, 16, 0},  {"u32", UNSIGNED, 32, 0},  {"u64", UNSIGNED, 64, 0},
    {"i8", SIGNED, 8, 0},     {"i16", SIGNED, 16, 0},    {"i32", SIGNED, 32, 0},    {"i64", SIGNED, 64, 0},
    {"bool", BOOL, 8, 0},     {"f32", FLOAT, 32, 0},     {"f64", FLOAT, 64, 0},     {"str", STRING, 64, 0},
    {"bytes", BYTES, 64, 0},  {"enum", ENUM, 32, 0},     {"json", JSON, 64, 0},     {"u8?", UNSIGNED, 8, 1},
    {"u16?", UNSIGNED, 16, 1}, {"u32?", UNSIGNED, 32, 1}, {"u64?", UNSIGNED, 64, 1}, {"i8?", SIGNED, 8, 1},
    {"i16?", SIGNED, 16, 1},  {"i32?", SIGNED, 32, 1},   {"i64?", SIGNED, 64, 1},   {"bool?", BOOL, 8, 1},
    {"f32?", FLOAT, 32, 1},   {"f64?", FLOAT, 64, 1},    {"str?", STRING, 64, 1},   {"bytes?", BYTES, 64, 1},
    {"enum?", ENUM, 32, 1},
};

static int wrong_type(Probe *self, int index, PyObject *value) {
    PyErr_Format(PyExc_TypeError, "%U:%U() argument '%U' must be %s, not %.100s", self->provider, self->name,
                 argument_name(self, index), type_of(self, index)->name, Py_TYPE(value)->tp_name);
    return -1;
}

/* Replaces the usual errors of a conversion by one that names the probe and the argument. Leaves all other errors. */
static int conversion_failed(Probe *self, int index, PyObject *value) {
    if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_BufferError)) {
        PyErr_Clear();
        return wrong_type(self, index, value);
    }
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%U:%U() argument '%U' is out of range for %s", self->provider, self->name,
                     argument_name(self, index), type_of(self, index)->name);
    }
    return -1;
}

/* Whether the integer `value` became exactly `number`: 1 if so; 0 with an OverflowError if not; -1 with another
 * error. */
static int same_integer(PyObject *value, double number) {
    PyObject *back = PyLong_FromDouble(number);
    int same = back ? PyObject_RichCompareBool(back, value, Py_EQ) : -1;
    Py_XDECREF(back);
    if (same == 0) PyErr_SetNone(PyExc_OverflowError);
    return same;
}

static int convert_float(Probe *self, int index, PyObject *value, uint64_t *operand) {
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) return conversion_failed(self, index, value);
    if (type_of(self, index)->bits == 64) {
        if (PyLong_Check(value) && fabs(number) >= 0x1p53 && same_integer(value, number) <= 0)
            return conversion_failed(self, index, value);
        memcpy(operand, &number, sizeof number);
        return 0;
    }
    /* From here on a number would not round to a finite float, and the cast of it would be undefined. */
    if (isfinite(number) && fabs(number) >= 0x1.ffffffp127) {
        PyErr_SetNone(PyExc_OverflowError);
        return conversion_failed(self, index, value);
    }
    float narrow = (float)number;
    if (PyLong_Check(value) && fabs(number) >= 0x1p24 && same_integer(value, narrow) <= 0)
        return conversion_failed(self, index, value);
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    *operand = bits;
    return 0;
}

static int convert_enum(Probe *self, int index, PyObject *value, uint64_t *operand) {
    PyObject *numbers = PyTuple_GET_ITEM(shape_item(self, CONVERTERS), index);
    PyObject *number = PyDict_GetItemWithError(numbers, value);
    if (number) {
        *operand = (uint64_t)PyLong_AsLongLong(number);
        return 0;
    }
    if (PyErr_Occurred()) return conversion_failed(self, index, value);
    PyErr_Format(PyExc_ValueError, "%U:%U() argument '%U' has no such name or number: %.100R", self->provider,
                 self->name, argument_name(self, index), value);
    return -1;
}

/* Raises a ValueError that names the probe and the argument. Its cause is whatever the encoder or the object itself has
 * raised. An exception that is no subclass of Exception is left as it is. */
static int not_encoded(Probe *self, int index) {
    PyObject *type, *cause, *traceback, *value;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback) PyException_SetTraceback(cause, traceback);
    PyObject *reason = PyObject_Str(cause);
    if (!reason) PyErr_Clear(); /* the application's exception cannot be printed */
    PyErr_Format(PyExc_ValueError, reason ? "%U:%U() argument '%U' cannot be encoded as json: %s: %U"
                                          : "%U:%U() argument '%U' cannot be encoded as json: %s",
                 self->provider, self->name, argument_name(self, index), Py_TYPE(cause)->tp_name, reason);
    Py_XDECREF(reason);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyException_SetCause(value, cause); /* steals our reference */
    PyErr_Restore(type, value, traceback);
    return -1;
}

static int convert_json(Probe *self, int index, PyObject *value, struct operands *operands) {
    PyObject *text = PyObject_CallOneArg(PyTuple_GET_ITEM(shape_item(self, CONVERTERS), index), value);
    if (!text) return not_encoded(self, index);
    operands->owned[operands->owned_count++] = text;
    if (!PyBytes_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "the encoder of a json argument must return bytes");
        return -1;
    }
    operands->values[operands->count++] = (uint64_t)(uintptr_t)PyBytes_AS_STRING(text);
    return 0;
}

static int convert_integer(Probe *self, int index, PyObject *value, uint64_t *operand) {
    const struct type *type = type_of(self, index);
    PyObject *number = PyLong_CheckExact(value) ? Py_NewRef(value) : PyNumber_Index(value);
    if (!number) return conversion_failed(self, index, value);
    int fits;
    if (type->kind == UNSIGNED) {
        *operand = PyLong_AsUnsignedLongLong(number);
        fits = type->bits == 64 || *operand >> type->bits == 0;
    } else {
        int64_t wide = PyLong_AsLongLong(number);
        int64_t limit = type->bits == 64 ? INT64_MAX : (INT64_C(1) << (type->bits - 1)) - 1;
        *operand = (uint64_t)wide;
        fits = wide <= limit && wide >= -limit - 1;
    }
    Py_DECREF(number);
    if (!PyErr_Occurred()) {
        if (fits) return 0;
        PyErr_SetNone(PyExc_OverflowError);
    }
    return conversion_failed(self, index, value);
}

static int convert_string(Probe *self, int index, PyObject *value, struct operands *operands) {
    if (!PyUnicode_Check(value)) return wrong_type(self, index, value);
    const char *text = PyUnicode_AsUTF8AndSize(value, NULL);
    if (!text) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return -1;
        /* The text has lone surrogates. Those that os.fsdecode has made of a file name's bytes become these bytes
         * again, others become escapes. */
        PyErr_Clear();
        PyObject *bytes = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
        if (!bytes) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return -1;
            PyErr_Clear();
            bytes = PyUnicode_AsEncodedString(value, "utf-8", "backslashreplace");
            if (!bytes) return -1;
        }
        operands->owned[operands->owned_count++] = bytes;
        text = PyBytes_AS_STRING(bytes);
    }
    operands->values[operands->count++] = (uint64_t)(uintptr_t)text;
    return 0;
}

static int convert(Probe *self, int index, PyObject *value, struct operands *operands) {
    switch (type_of(self, index)->kind) {
    case UNSIGNED:
    case SIGNED:
        return convert_integer(self, index, value, &operands->values[operands->count++]);
    case BOOL:
        if (!PyBool_Check(value)) return wrong_type(self, index, value);
        operands->values[operands->count++] = value == Py_True;
        return 0;
    case FLOAT:
        return convert_float(self, index, value, &operands->values[operands->count++]);
    case ENUM:
        return convert_enum(self, index, value, &operands->values[operands->count++]);
    case JSON:
        return convert_json(self, index, value, operands);
    case STRING:
        return convert_string(self, index, value, operands);
    case BYTES: {
        Py_buffer *buffer = &operands->buffers[operands->buffer_count];
        if (PyObject_GetBuffer(value, buffer, PyBUF_SIMPLE) < 0) return conversion_failed(self, index, value);
        operands->buffer_count++;
        /* An empty buffer may have no memory, but NULL is None. */
        operands->values[operands->count++] = (uint64_t)(uintptr_t)(buffer->buf ? buffer->buf : "");
        operands->values[operands->count++] = (uint64_t)buffer->len;
        return 0;
    }
    }
    Py_UNREACHABLE();
}

int convert_values(Probe *self, PyObject *const *values, struct operands *operands) {
    operands->count = operands->buffer_count = operands->owned_count = 0;
    for (int index = 0; index < self->count; index++) {
        const struct type *type = type_of(self, index);
        if (type->optional && values[index] == Py_None) {
            for (int zeros = operands_of(type); zeros > 0; zeros--) operands->values[operands->count++] = 0;
            continue;
        }
        if (convert(self, index, values[index], operands) < 0) return -1;
        if (has_presence(type)) operands->values[operands->count++] = 1;
    }
    /* A stub is always called with twelve operands. Those that the probe does not have must not leak our stack. */
    for (int unused = operands->count; unused < MAX_OPERANDS; unused++) operands->values[unused] = 0;
    return 0;
}

PyObject *traced_value(Probe *self, int index, const uint64_t *operands) {
    const struct type *type = type_of(self, index);
    const char *text = (const char *)(uintptr_t)operands[0];
    if (type->optional && (has_presence(type) ? !operands[1] : !text)) Py_RETURN_NONE;
    switch (type->kind) {
    case UNSIGNED:
        return PyLong_FromUnsignedLongLong(operands[0]);
    case SIGNED:
    case ENUM:
        return PyLong_FromLongLong((int64_t)operands[0]);
    case BOOL:
        return PyBool_FromLong(operands[0] != 0);
    case FLOAT: {
        float narrow;
        double number;
        memcpy(&narrow, operands, sizeof narrow);
        memcpy(&number, operands, sizeof number);
        return PyFloat_FromDouble(type->bits == 32 ? (double)narrow : number);
    }
    case STRING:
    case JSON:
        return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
    case BYTES:
        return PyBytes_FromStringAndSize(text, (Py_ssize_t)operands[1]);
    }
    Py_UNREACHABLE();
}
