/* usdtkit._probe: the callable that fires a probe, the one that declares it, and the mapping of the file that carries
 * its site.
 *
 * In: a library made by usdtkit.probes.image, and the probes that stand in it. Out: while nobody traces, a call is one
 * comparison of a byte; while somebody does, the arguments become integers and the stub is called as a C function,
 * whose first instruction is the site that the kernel has put a breakpoint on.
 *
 * A call reads `site` once and calls only what it read, and libraries stay mapped. So a probe may be fired from any
 * thread, while another one unloads it, in a forked child, a signal handler and late in the interpreter's shutdown.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h> /* PyFrame_GetBack, before 3.11 */
#include <structmember.h>

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

#if PY_VERSION_HEX < 0x030d0000
/* The lock of one object, where the interpreter has no lock of its own. */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#define MAX_OPERANDS 12

/* From a stub to the second site in its room, which is hit in place of the first by a call that cannot be fired, so that
 * whoever traces the probe can count those (usdtkit.elf.stubs says the same). */
#ifdef __x86_64__
#define REJECTED 14
#else
#define REJECTED 8
#endif

typedef void stub12(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                    uint64_t, uint64_t);

enum kind { UNSIGNED, SIGNED, BOOL, FLOAT, STRING, BYTES, ENUM, JSON };

struct type {
    const char *name;
    enum kind kind;
    int bits;
};

/* In the order of DECLARABLE in usdtkit.argumenttypes, by whose numbers a shape names them. */
static const struct type types[] = {
    {"u8", UNSIGNED, 8}, {"u16", UNSIGNED, 16}, {"u32", UNSIGNED, 32}, {"u64", UNSIGNED, 64},
    {"i8", SIGNED, 8},   {"i16", SIGNED, 16},   {"i32", SIGNED, 32},   {"i64", SIGNED, 64},
    {"bool", BOOL, 8},   {"f32", FLOAT, 32},    {"f64", FLOAT, 64},    {"str", STRING, 64},
    {"bytes", BYTES, 64}, {"enum", ENUM, 32},   {"json", JSON, 64},
};

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    /* What a call looks at: the first byte of the stub, or of one of the constants below, or `pristine` itself. */
    const volatile uint8_t *site;
    uint8_t pristine;
    uint8_t count;
    uint8_t drops; /* one of the enum below */
    uint8_t silenced;
    uint8_t kinds[MAX_OPERANDS]; /* of each argument: which of `types` */
    const volatile uint8_t *stub; /* NULL before it is loaded */
    uint64_t dropped;
    PyObject *provider, *name, *doc, *stability;
    PyObject *shape; /* a tuple that many probes share; what it begins with is below */
    PyObject *loader;
    PyObject *path;
    PyObject *recorder; /* a callable, or NULL */
    PyObject *place; /* (file, line) of the declaration, or None */
} Probe;

/* What becomes of a call whose values cannot be fired: an exception; or it is counted and the caller goes on. The last
 * is what probes do unless they are told: an exception only for the tests of an application, which record. */
enum { RAISES, DROPS, DROPS_UNLESS_RECORDED };

struct state {
    PyTypeObject *probe_type, *declarer_type;
    PyObject *complain; /* complain(probe, exception) -> the exception that is the program's, or None; or NULL */
    PyObject *own;      /* what the names of the files begin with whose code declares for others, or NULL */
};

static inline struct state *state_of(Probe *self) { return PyType_GetModuleState(Py_TYPE(self)); }

/* Differs from `pristine` (0 until then), so that the first use of a probe leaves the fast path. */
static const volatile uint8_t unloaded = 1;
/* Differs from it, as no instruction that a stub begins with has this byte: somebody records within this process. */
static const volatile uint8_t recorded = 0xff;

/* A shape: (name, type) of each argument; what converts it (of an enum a dict to its numbers, of a json a callable to
 * bytes, else None); the types again, as bytes; all of this as a text; and what is none of ours. */
enum { ARGUMENTS, CONVERTERS, KINDS, TEXT, SHAPE_SIZE };

static inline PyObject *of_shape(Probe *self, int what) { return PyTuple_GET_ITEM(self->shape, what); }
static inline const struct type *type_of(Probe *self, int index) { return &types[self->kinds[index]]; }

static inline const volatile uint8_t *site_of(Probe *self) { return __atomic_load_n(&self->site, __ATOMIC_ACQUIRE); }

static inline void set_site(Probe *self, const volatile uint8_t *site) {
    __atomic_store_n(&self->site, site, __ATOMIC_RELEASE);
}

/* `site` was read before `pristine` is: what is published together is read in order. */
static inline int armed(Probe *self, const volatile uint8_t *site) {
    uint8_t now = *site;
    return now != __atomic_load_n(&self->pristine, __ATOMIC_RELAXED);
}

/* Where `site` points while nobody records. */
static const volatile uint8_t *resting(Probe *self) {
    if (self->silenced) return &self->pristine;
    return self->stub ? self->stub : &unloaded;
}

/* An exception that only says how deep the caller is, or that memory has run out, is none of the caller's, who would
 * have gone on without us. All others were let through by code in Python that knows whose they are. -1 with one. */
static int forgive(void) {
    if (!PyErr_ExceptionMatches(PyExc_RecursionError) && !PyErr_ExceptionMatches(PyExc_MemoryError)) return -1;
    PyErr_Clear();
    return 0;
}

/* Load a probe that is not loaded. 1: there is a tracer or a recorder, 0: there is none, -1: an exception. */
static int load_and_look(Probe *self, const volatile uint8_t **site) {
    if (*site == &unloaded) {
        PyObject *loader;
        Py_BEGIN_CRITICAL_SECTION(self);
        loader = Py_XNewRef(self->loader);
        Py_END_CRITICAL_SECTION();
        if (!loader) return 0; /* the garbage collector has taken the provider to pieces */
        PyObject *result = PyObject_CallNoArgs(loader);
        Py_DECREF(loader);
        if (!result) return forgive();
        Py_DECREF(result);
        *site = site_of(self);
        if (*site == &unloaded) return 0; /* fired from within its own loading */
    }
    if (*site == &self->pristine) return 0; /* silenced, or about to be bound */
    return armed(self, *site);
}

/* What one call holds until the stub has returned. */
struct operands {
    uint64_t values[MAX_OPERANDS];
    int count;
    Py_buffer buffers[MAX_OPERANDS / 2];
    int buffer_count;
    PyObject *owned[MAX_OPERANDS];
    int owned_count;
};

static void release(struct operands *operands) {
    while (operands->buffer_count) PyBuffer_Release(&operands->buffers[--operands->buffer_count]);
    while (operands->owned_count) Py_DECREF(operands->owned[--operands->owned_count]);
}

static PyObject *argument_name(Probe *self, int index) {
    return PyTuple_GET_ITEM(PyTuple_GET_ITEM(of_shape(self, ARGUMENTS), index), 0);
}

static int wrong_type(Probe *self, int index, PyObject *value) {
    PyErr_Format(PyExc_TypeError, "%U:%U() argument '%U' must be %s, not %.100s", self->provider, self->name,
                 argument_name(self, index), type_of(self, index)->name, Py_TYPE(value)->tp_name);
    return -1;
}

/* Replace an error of a conversion by one that names the probe and the argument; others pass. */
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

/* An integer is the number that it says or none: 0 when `number`, which it became, is another. */
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
    /* The cast is undefined beyond what rounds to the largest float. */
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
    PyObject *numbers = PyTuple_GET_ITEM(of_shape(self, CONVERTERS), index);
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

/* Whatever the encoder or the object itself has raised becomes the cause of one error that names probe and argument;
 * what is not an Exception passes. */
static int not_encoded(Probe *self, int index) {
    PyObject *type, *cause, *traceback, *value;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback) PyException_SetTraceback(cause, traceback);
    PyObject *reason = PyObject_Str(cause);
    if (!reason) PyErr_Clear(); /* an exception of the application's, and no better than its object */
    PyErr_Format(PyExc_ValueError, reason ? "%U:%U() argument '%U' cannot be encoded as json: %s: %U"
                                          : "%U:%U() argument '%U' cannot be encoded as json: %s",
                 self->provider, self->name, argument_name(self, index), Py_TYPE(cause)->tp_name, reason);
    Py_XDECREF(reason);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyException_SetCause(value, cause); /* takes our reference */
    PyErr_Restore(type, value, traceback);
    return -1;
}

static int convert_json(Probe *self, int index, PyObject *value, struct operands *operands) {
    PyObject *text = PyObject_CallOneArg(PyTuple_GET_ITEM(of_shape(self, CONVERTERS), index), value);
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
        /* Lone surrogates: bytes of a file name as os.fsdecode gives them become bytes again, others escapes. */
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
        operands->values[operands->count++] = (uint64_t)(uintptr_t)buffer->buf;
        operands->values[operands->count++] = (uint64_t)buffer->len;
        return 0;
    }
    }
    Py_UNREACHABLE();
}

/* Bring the values of a call into the order of the declaration; borrowed references. */
static int arrange(Probe *self, PyObject *const *given, Py_ssize_t positional, PyObject *names,
                   PyObject *values[MAX_OPERANDS]) {
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (positional > self->count) {
        PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments but %zd were given", self->provider, self->name,
                     self->count, positional + named);
        return -1;
    }
    for (int index = 0; index < self->count; index++) values[index] = index < positional ? given[index] : NULL;
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(names, at);
        int index = 0;
        while (index < self->count && PyUnicode_Compare(name, argument_name(self, index)) != 0) index++;
        if (index == self->count) {
            PyErr_Format(PyExc_TypeError, "%U:%U() has no argument '%U'", self->provider, self->name, name);
            return -1;
        }
        if (values[index]) {
            PyErr_Format(PyExc_TypeError, "%U:%U() got two values for argument '%U'", self->provider, self->name, name);
            return -1;
        }
        values[index] = given[positional + at];
    }
    for (int index = 0; index < self->count; index++) {
        if (!values[index]) {
            PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments, '%U' is missing", self->provider, self->name,
                         self->count, argument_name(self, index));
            return -1;
        }
    }
    return 0;
}

static void call_stub(const volatile uint8_t *site, const uint64_t *v) {
    ((stub12 *)(uintptr_t)site)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11]);
}

/* What a tracer makes of the operands `v` of argument `index`; a new reference. */
static PyObject *seen(Probe *self, int index, const uint64_t *v) {
    const struct type *type = type_of(self, index);
    const char *text = (const char *)(uintptr_t)v[0];
    switch (type->kind) {
    case UNSIGNED:
        return PyLong_FromUnsignedLongLong(v[0]);
    case SIGNED:
    case ENUM:
        return PyLong_FromLongLong((int64_t)v[0]);
    case BOOL:
        return PyBool_FromLong(v[0] != 0);
    case FLOAT: {
        float narrow;
        double number;
        memcpy(&narrow, v, sizeof narrow);
        memcpy(&number, v, sizeof number);
        return PyFloat_FromDouble(type->bits == 32 ? (double)narrow : number);
    }
    case STRING:
    case JSON:
        return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
    case BYTES:
        return PyBytes_FromStringAndSize(text, (Py_ssize_t)v[1]);
    }
    Py_UNREACHABLE();
}

/* Give what a tracer would see to the recorder, and the operands to a tracer that is there too. */
static int record(Probe *self, const uint64_t *operands) {
    PyObject *recorder;
    const volatile uint8_t *stub;
    Py_BEGIN_CRITICAL_SECTION(self);
    recorder = Py_XNewRef(self->recorder);
    stub = self->silenced ? NULL : self->stub;
    Py_END_CRITICAL_SECTION();
    if (stub && armed(self, stub)) call_stub(stub, operands);
    if (!recorder) return 0; /* another thread has ended the recording */
    PyObject *values = PyTuple_New(self->count), *result = NULL;
    int at = 0;
    for (int index = 0; values && index < self->count; index++) {
        PyObject *value = seen(self, index, operands + at);
        if (!value) Py_CLEAR(values);
        else PyTuple_SET_ITEM(values, index, value);
        at += type_of(self, index)->kind == BYTES ? 2 : 1;
    }
    if (values) result = PyObject_CallFunctionObjArgs(recorder, (PyObject *)self, values, NULL);
    Py_XDECREF(values);
    Py_DECREF(recorder);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* A call that cannot be fired, with the exception that says why. Unless it is to be raised (-1), it is counted here and
 * where the tracer counts, the application's log gets a line the first time, and the caller goes on.
 *
 * What interrupts the program itself goes on to it: KeyboardInterrupt, and by the answer of `complain`, which is Python's,
 * what a signal handler has raised while values were converted. */
static int refused(Probe *self, const volatile uint8_t *site) {
    if (self->drops == RAISES || (self->drops == DROPS_UNLESS_RECORDED && site == &recorded)) return -1;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return -1;
    PyObject *type, *reason, *traceback;
    PyErr_Fetch(&type, &reason, &traceback);
    PyErr_NormalizeException(&type, &reason, &traceback);
    if (traceback) PyException_SetTraceback(reason, traceback);
    __atomic_fetch_add(&self->dropped, 1, __ATOMIC_RELAXED);
    const volatile uint8_t *stub = site == &recorded ? (self->silenced ? NULL : self->stub) : site;
    if (stub) {
        static const uint64_t nothing[MAX_OPERANDS];
        call_stub(stub + REJECTED, nothing);
    }
    PyObject *complain = state_of(self)->complain;
    PyObject *passes = complain ? PyObject_CallFunctionObjArgs(complain, (PyObject *)self, reason, NULL)
                                : Py_NewRef(Py_None);
    int result = 0;
    if (!passes) {
        result = forgive();
    } else if (PyExceptionInstance_Check(passes)) {
        __atomic_fetch_sub(&self->dropped, 1, __ATOMIC_RELAXED);
        /* As it was raised: to set it anew would give it another context. */
        PyErr_Restore(Py_NewRef(Py_TYPE(passes)), Py_NewRef(passes), PyException_GetTraceback(passes));
        result = -1;
    }
    Py_XDECREF(passes);
    Py_XDECREF(type);
    Py_XDECREF(reason);
    Py_XDECREF(traceback);
    return result;
}

static int fire_values(Probe *self, const volatile uint8_t *site, PyObject *const *values) {
    struct operands operands;
    operands.count = operands.buffer_count = operands.owned_count = 0;
    for (int index = 0; index < self->count; index++) {
        if (convert(self, index, values[index], &operands) < 0) {
            /* By now a value may be gone that the exception speaks of: nothing is released before it is read. */
            int result = refused(self, site);
            release(&operands);
            return result;
        }
    }
    /* What a probe does not use holds nothing of ours. */
    for (int rest = operands.count; rest < MAX_OPERANDS; rest++) operands.values[rest] = 0;
    int result = 0;
    if (site == &recorded) result = record(self, operands.values);
    else call_stub(site, operands.values);
    release(&operands);
    return result;
}

static PyObject *fire_armed(Probe *self, const volatile uint8_t *site, PyObject *const *given, size_t positional,
                            PyObject *names) {
    int looked_at = load_and_look(self, &site);
    if (looked_at < 0) return NULL;
    if (!looked_at) Py_RETURN_NONE;

    /* As most calls are: all by position. */
    if (PyVectorcall_NARGS(positional) == self->count && !names) {
        if (fire_values(self, site, given) < 0) return NULL;
        Py_RETURN_NONE;
    }
    PyObject *values[MAX_OPERANDS];
    if (arrange(self, given, PyVectorcall_NARGS(positional), names, values) < 0) {
        if (refused(self, site) < 0) return NULL;
    } else if (fire_values(self, site, values) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *fire(PyObject *object, PyObject *const *given, size_t positional, PyObject *names) {
    Probe *self = (Probe *)object;
    const volatile uint8_t *site = site_of(self);
    if (__builtin_expect(!armed(self, site), 1)) Py_RETURN_NONE;
    return fire_armed(self, site, given, positional, names);
}

static PyObject *lazy_armed(Probe *self, const volatile uint8_t *site, PyObject *function) {
    int looked_at = load_and_look(self, &site);
    if (looked_at < 0) return NULL;
    if (!looked_at) Py_RETURN_NONE;
    int failed = 1;
    PyObject *values = PyObject_CallNoArgs(function);
    if (values && !PyTuple_Check(values))
        PyErr_Format(PyExc_TypeError, "%U:%U.lazy() takes a function that returns a tuple of values, not %.100s",
                     self->provider, self->name, Py_TYPE(values)->tp_name);
    else if (values && PyTuple_GET_SIZE(values) != self->count)
        PyErr_Format(PyExc_TypeError, "%U:%U() takes %d arguments but %zd were given", self->provider, self->name,
                     self->count, PyTuple_GET_SIZE(values));
    else if (values)
        failed = 0;
    int result = failed ? refused(self, site) : fire_values(self, site, PySequence_Fast_ITEMS(values));
    Py_XDECREF(values);
    if (result < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *lazy(PyObject *object, PyObject *function) {
    Probe *self = (Probe *)object;
    const volatile uint8_t *site = site_of(self);
    if (__builtin_expect(!armed(self, site), 1)) Py_RETURN_NONE;
    return lazy_armed(self, site, function);
}

static PyObject *get_enabled(PyObject *object, void *Py_UNUSED(closure)) {
    Probe *self = (Probe *)object;
    const volatile uint8_t *site = site_of(self);
    if (!armed(self, site)) Py_RETURN_FALSE;
    int looked_at = load_and_look(self, &site);
    return looked_at < 0 ? NULL : PyBool_FromLong(looked_at);
}

static PyObject *get_dropped(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&((Probe *)object)->dropped, __ATOMIC_RELAXED));
}

static PyObject *get_arguments(PyObject *object, void *Py_UNUSED(closure)) {
    return Py_NewRef(of_shape((Probe *)object, ARGUMENTS));
}

static PyObject *get_path(PyObject *object, void *Py_UNUSED(closure)) {
    PyObject *path;
    Py_BEGIN_CRITICAL_SECTION(object);
    path = Py_NewRef(((Probe *)object)->path);
    Py_END_CRITICAL_SECTION();
    return path;
}

/* Take the types of the arguments from a shape, which Python code has checked: not taken for granted. */
static int read_shape(Probe *self, PyObject *shape) {
    if (!PyTuple_Check(shape) || PyTuple_GET_SIZE(shape) < SHAPE_SIZE ||
        !PyTuple_Check(PyTuple_GET_ITEM(shape, ARGUMENTS)) || !PyTuple_Check(PyTuple_GET_ITEM(shape, CONVERTERS)) ||
        !PyBytes_Check(PyTuple_GET_ITEM(shape, KINDS)) || !PyUnicode_Check(PyTuple_GET_ITEM(shape, TEXT))) {
        PyErr_SetString(PyExc_TypeError, "a shape is a tuple of arguments, converters, kinds and a text");
        return -1;
    }
    PyObject *arguments = PyTuple_GET_ITEM(shape, ARGUMENTS), *converters = PyTuple_GET_ITEM(shape, CONVERTERS);
    const uint8_t *kinds = (const uint8_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(shape, KINDS));
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    if (PyTuple_GET_SIZE(converters) != count || PyBytes_GET_SIZE(PyTuple_GET_ITEM(shape, KINDS)) != count) {
        PyErr_SetString(PyExc_ValueError, "one converter and one kind an argument");
        return -1;
    }
    int operands = 0;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *pair = PyTuple_GET_ITEM(arguments, index), *converter = PyTuple_GET_ITEM(converters, index);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0))) {
            PyErr_SetString(PyExc_TypeError, "arguments must be (name, type) pairs");
            return -1;
        }
        if (kinds[index] >= sizeof types / sizeof *types) {
            PyErr_SetString(PyExc_ValueError, "there is no such kind");
            return -1;
        }
        enum kind kind = types[kinds[index]].kind;
        if ((kind == ENUM && !PyDict_Check(converter)) || (kind == JSON && !PyCallable_Check(converter))) {
            PyErr_SetString(PyExc_TypeError, "an enum needs a dict, a json a callable");
            return -1;
        }
        operands += kind == BYTES ? 2 : 1;
        if (operands > MAX_OPERANDS) {
            PyErr_SetString(PyExc_ValueError, "too many arguments");
            return -1;
        }
        self->kinds[index] = kinds[index];
    }
    self->count = (uint8_t)count;
    self->shape = Py_NewRef(shape);
    return 0;
}

/* (file, line) of the code that declares, which is the first on the way out that is none of ours. */
static PyObject *place_of_caller(PyTypeObject *type) {
    struct state *state = PyType_GetModuleState(type);
    PyFrameObject *frame = (PyFrameObject *)Py_XNewRef(PyEval_GetFrame());
    PyObject *place = NULL;
    while (frame && !place) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *file = code->co_filename, *own = state->own;
        Py_ssize_t ours = own ? PyUnicode_Tailmatch(file, own, 0, PY_SSIZE_T_MAX, -1) : 0;
        PyFrameObject *back = ours > 0 ? PyFrame_GetBack(frame) : NULL;
        if (!back) place = Py_BuildValue("Oi", file, PyFrame_GetLineNumber(frame));
        Py_DECREF(code);
        Py_DECREF(frame);
        frame = back;
        if (!back && !place) return NULL;
    }
    return place ? place : Py_NewRef(Py_None);
}

/* Takes the reference to `place`, also where it fails. */
static PyObject *make(PyTypeObject *type, PyObject *const *values, int drops, PyObject *place) {
    for (int at = 0; at < 4; at++) {
        if (PyUnicode_Check(values[at])) continue;
        PyErr_SetString(PyExc_TypeError, "provider, name, doc and stability must be str");
        Py_XDECREF(place);
        return NULL;
    }
    Probe *self = place ? (Probe *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        Py_XDECREF(place);
        return NULL;
    }
    self->place = place;
    self->vectorcall = fire;
    self->site = &unloaded;
    self->drops = (uint8_t)drops;
    self->provider = Py_NewRef(values[0]);
    self->name = Py_NewRef(values[1]);
    self->doc = Py_NewRef(values[2]);
    self->stability = Py_NewRef(values[3]);
    self->loader = Py_NewRef(values[5]);
    self->path = Py_NewRef(Py_None);
    if (read_shape(self, values[4]) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* As applications come here by hundreds at their start. */
static PyObject *probe_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *names) {
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (names || count < 6 || count > 7) {
        PyErr_SetString(PyExc_TypeError,
                        "Probe() takes provider, name, doc, stability, shape, loader and perhaps drops");
        return NULL;
    }
    long drops = count > 6 ? PyLong_AsLong(args[6]) : RAISES;
    if (drops < RAISES || drops > DROPS_UNLESS_RECORDED) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "drops is 0, 1 or 2");
        return NULL;
    }
    return make((PyTypeObject *)type, args, (int)drops, place_of_caller((PyTypeObject *)type));
}

static PyObject *probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *values[7];
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    for (Py_ssize_t at = 0; at < count && at < 7; at++) values[at] = PyTuple_GET_ITEM(args, at);
    return probe_vectorcall((PyObject *)type, values, (size_t)count, kwargs);
}

static int probe_traverse(PyObject *object, visitproc visit, void *arg) {
    Probe *self = (Probe *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->shape);
    Py_VISIT(self->loader);
    Py_VISIT(self->recorder);
    Py_VISIT(self->place);
    return 0;
}

/* Only loader and recorder can close a cycle; what else a call reads stays until the last reference goes. */
static int probe_clear(PyObject *object) {
    Probe *self = (Probe *)object;
    Py_CLEAR(self->loader);
    Py_CLEAR(self->recorder);
    return 0;
}

static void probe_dealloc(PyObject *object) {
    Probe *self = (Probe *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->provider);
    Py_XDECREF(self->name);
    Py_XDECREF(self->doc);
    Py_XDECREF(self->stability);
    Py_XDECREF(self->shape);
    Py_XDECREF(self->loader);
    Py_XDECREF(self->recorder);
    Py_XDECREF(self->path);
    Py_XDECREF(self->place);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *probe_repr(PyObject *object) {
    Probe *self = (Probe *)object;
    PyObject *parts = PyList_New(0), *separator = NULL, *joined = NULL, *text = NULL;
    if (!parts) return NULL;
    for (int index = 0; index < self->count; index++) {
        PyObject *part = PyUnicode_FromFormat("%U: %s", argument_name(self, index), type_of(self, index)->name);
        int failed = !part || PyList_Append(parts, part) < 0;
        Py_XDECREF(part);
        if (failed) goto done;
    }
    separator = PyUnicode_FromString(", ");
    joined = separator ? PyUnicode_Join(separator, parts) : NULL;
    if (joined) text = PyUnicode_FromFormat("<Probe %U:%U(%U)>", self->provider, self->name, joined);
done:
    Py_DECREF(parts);
    Py_XDECREF(separator);
    Py_XDECREF(joined);
    return text;
}

static PyMemberDef probe_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Probe, vectorcall), READONLY, NULL},
    {"provider", T_OBJECT, offsetof(Probe, provider), READONLY, "name of the provider"},
    {"name", T_OBJECT, offsetof(Probe, name), READONLY, "name of the probe"},
    {"doc", T_OBJECT, offsetof(Probe, doc), READONLY, "what the probe means"},
    {"stability", T_OBJECT, offsetof(Probe, stability), READONLY, "how likely it is to change: as it was declared"},
    {"shape", T_OBJECT, offsetof(Probe, shape), READONLY, "what was declared of its arguments"},
    {"place", T_OBJECT, offsetof(Probe, place), READONLY, "(file, line) of its declaration"},
    {"pristine", T_UBYTE, offsetof(Probe, pristine), READONLY, "the first byte of its site while nobody traces it"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef probe_getset[] = {
    {"enabled", get_enabled, NULL, "whether a tracer is attached to this probe now", NULL},
    {"dropped", get_dropped, NULL, "calls that could not be fired while somebody traced", NULL},
    {"arguments", get_arguments, NULL, "(name, type) of each argument, in order", NULL},
    {"path", get_path, NULL, "the file that carries the probe; None before it is loaded", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef probe_methods[] = {
    {"lazy", lazy, METH_O, "lazy(function): fire with the tuple that function() returns, called only while traced"},
    /* The stub (_probe.pyi) makes the type generic over a call's parameters. */
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(probe_doc, "A typed probe; calling it fires it. Made by Provider.probe().");

static PyType_Slot probe_slots[] = {
    {Py_tp_doc, (void *)probe_doc},
    {Py_tp_new, probe_new},
    {Py_tp_dealloc, probe_dealloc},
    {Py_tp_traverse, probe_traverse},
    {Py_tp_clear, probe_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, probe_repr},
    {Py_tp_members, probe_members},
    {Py_tp_methods, probe_methods},
    {Py_tp_getset, probe_getset},
    {0, NULL},
};

static PyType_Spec probe_spec = {
    .name = "usdtkit._probe.Probe",
    .basicsize = sizeof(Probe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = probe_slots,
};

/* Declares the probes of a provider. What is right and whose arguments were checked before is done here, because the
 * start of an application waits for some hundreds of them; all else is left to `general`, a function of Python, which
 * knows what is wrong, or decides. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *general;
    PyObject *provider, *loader;
    PyObject *declared; /* a dict: of each name its probe */
    PyObject *shapes;   /* a dict: of (name, type, name, type…) the shape */
    int drops;
    char quick; /* a probe needs no more than to be declared */
} Declarer;

enum { MAX_NAME = 64, SHORT_DOC = 1024 };

/* Whether tracers can spell it: most names can, and others are looked at in Python. */
static int is_plain_name(PyObject *name) {
    if (!PyUnicode_CheckExact(name) || !PyUnicode_IS_READY(name) || !PyUnicode_IS_ASCII(name)) return 0;
    return PyUnicode_GET_LENGTH(name) <= MAX_NAME && PyUnicode_IsIdentifier(name) == 1;
}

static int is_plain_doc(PyObject *doc) {
    return PyUnicode_CheckExact(doc) && PyUnicode_IS_READY(doc) && PyUnicode_IS_ASCII(doc) &&
           PyUnicode_GET_LENGTH(doc) <= SHORT_DOC;
}

/* A new reference to what a dict has, or NULL. */
static PyObject *known(PyObject *dict, PyObject *key) {
    PyObject *value;
#if PY_VERSION_HEX >= 0x030d0000
    (void)PyDict_GetItemRef(dict, key, &value);
#else
    value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
    /* Not every type that can be given is hashable. */
    if (!value && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Clear();
    return value;
}

/* The probe, or NULL; without an exception, where `general` has to look. */
static PyObject *declare_quickly(Declarer *self, PyObject *const *given, Py_ssize_t positional, PyObject *names) {
    if (positional != 1 || !is_plain_name(given[0])) return NULL;
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0, count = named;
    Py_ssize_t doc_at = -1;
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(names, at);
        if (PyUnicode_CompareWithASCIIString(name, "doc") == 0) {
            if (!is_plain_doc(given[1 + at])) return NULL;
            doc_at = at;
            count--;
        } else if (PyUnicode_CompareWithASCIIString(name, "stability") == 0 ||
                   PyUnicode_CompareWithASCIIString(name, "on_error") == 0) {
            return NULL;
        }
    }
    PyObject *key = PyTuple_New(2 * count), *empty = PyUnicode_New(0, 0), *shape = NULL, *probe = NULL;
    if (!key || !empty) goto done;
    for (Py_ssize_t at = 0, to = 0; at < named; at++) {
        if (at == doc_at) continue;
        PyTuple_SET_ITEM(key, to++, Py_NewRef(PyTuple_GET_ITEM(names, at)));
        PyTuple_SET_ITEM(key, to++, Py_NewRef(given[1 + at]));
    }
    shape = known(self->shapes, key);
    if (!shape) goto done;
    struct state *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *values[] = {self->provider, given[0], doc_at < 0 ? empty : given[1 + doc_at], empty, shape, self->loader};
    probe = make(state->probe_type, values, self->drops, place_of_caller(state->probe_type));
    /* In one step, so that of two threads with the same declaration both get the first one's. Only then look whether
     * that is all: who silences or records all probes says so before he looks which there are. */
    if (probe && (PyDict_SetDefault(self->declared, given[0], probe) != probe ||
                  !__atomic_load_n(&self->quick, __ATOMIC_SEQ_CST)))
        Py_CLEAR(probe);
done:
    Py_XDECREF(key);
    Py_XDECREF(empty);
    Py_XDECREF(shape);
    return probe;
}

static PyObject *declare(PyObject *object, PyObject *const *given, size_t positional, PyObject *names) {
    Declarer *self = (Declarer *)object;
    PyObject *probe = declare_quickly(self, given, PyVectorcall_NARGS(positional), names);
    return probe || PyErr_Occurred() ? probe : PyObject_Vectorcall(self->general, given, positional, names);
}

static PyObject *declarer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"general", "provider", "loader", "declared", "shapes", "drops", NULL};
    PyObject *general, *provider, *loader, *declared, *shapes;
    int drops;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OUOO!O!i:Declarer", names, &general, &provider, &loader,
                                     &PyDict_Type, &declared, &PyDict_Type, &shapes, &drops))
        return NULL;
    if (drops < RAISES || drops > DROPS_UNLESS_RECORDED) {
        PyErr_SetString(PyExc_ValueError, "drops is 0, 1 or 2");
        return NULL;
    }
    Declarer *self = (Declarer *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->vectorcall = declare;
    self->general = Py_NewRef(general);
    self->provider = Py_NewRef(provider);
    self->loader = Py_NewRef(loader);
    self->declared = Py_NewRef(declared);
    self->shapes = Py_NewRef(shapes);
    self->drops = drops;
    self->quick = 1;
    return (PyObject *)self;
}

static int declarer_traverse(PyObject *object, visitproc visit, void *arg) {
    Declarer *self = (Declarer *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->general);
    Py_VISIT(self->loader);
    Py_VISIT(self->declared);
    Py_VISIT(self->shapes);
    return 0;
}

static void declarer_dealloc(PyObject *object) {
    Declarer *self = (Declarer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_DECREF(self->general);
    Py_DECREF(self->provider);
    Py_DECREF(self->loader);
    Py_DECREF(self->declared);
    Py_DECREF(self->shapes);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *declarer_doc(PyObject *object, void *Py_UNUSED(closure)) {
    return PyObject_GetAttrString(((Declarer *)object)->general, "__doc__");
}

static PyGetSetDef declarer_getset[] = {
    {"__doc__", declarer_doc, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef declarer_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Declarer, vectorcall), READONLY, NULL},
    {"__wrapped__", T_OBJECT, offsetof(Declarer, general), READONLY, "the function of Python that it stands for"},
    {"quick", T_BOOL, offsetof(Declarer, quick), 0, "whether it may declare a probe without asking that function"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot declarer_slots[] = {
    {Py_tp_new, declarer_new},
    {Py_tp_dealloc, declarer_dealloc},
    {Py_tp_traverse, declarer_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, declarer_members},
    {Py_tp_getset, declarer_getset},
    {0, NULL},
};

static PyType_Spec declarer_spec = {
    .name = "usdtkit._probe.Declarer",
    .basicsize = sizeof(Declarer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = declarer_slots,
};

static Probe *as_probe(PyObject *module, PyObject *object) {
    struct state *state = PyModule_GetState(module);
    if (Py_IS_TYPE(object, state->probe_type)) return (Probe *)object;
    PyErr_Format(PyExc_TypeError, "expected a Probe, not %.100s", Py_TYPE(object)->tp_name);
    return NULL;
}

/* Publish a stub, once: all else that a call reads is in place before. A probe that was silenced speaks again. */
static void bind(Probe *self, const volatile uint8_t *stub, uint8_t pristine, PyObject *path) {
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!self->stub) {
        PyObject *before = self->path;
        self->path = Py_NewRef(path);
        Py_DECREF(before);
        __atomic_store_n(&self->pristine, pristine, __ATOMIC_RELAXED);
        self->stub = stub;
    }
    self->silenced = 0;
    if (!self->recorder) set_site(self, resting(self));
    Py_END_CRITICAL_SECTION();
}

#ifdef __linux__
static int library_error(void) {
    const char *reason = dlerror();
    PyErr_SetString(PyExc_OSError, reason ? reason : "the dynamic linker gives no reason");
    return -1;
}

/* Five-byte sites in a forked child.
 *
 * Linux 6.18 turns a five-byte nop that is traced into a call of a trampoline, which it maps nearby and does not give
 * to a forked child: the child's first fire would call into nothing. So a child maps the stubs anew before anything
 * else of it runs; the kernel then puts its breakpoints there as in any new mapping.
 */
struct text {
    struct text *next;
    char *path;
    dev_t device;
    ino_t inode;
    void *address;
    size_t size;
    off_t offset;
};

static struct text *texts; /* of the process, for all interpreters; only ever grows */
static pthread_once_t at_fork = PTHREAD_ONCE_INIT;

/* Between fork and return: only what a signal handler may call. */
static void renew_texts(void) {
    int kept = errno;
    for (struct text *text = __atomic_load_n(&texts, __ATOMIC_ACQUIRE); text; text = text->next) {
        void *mapped = MAP_FAILED;
        struct stat status;
        int file = open(text->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (file >= 0) {
            if (fstat(file, &status) == 0 && status.st_dev == text->device && status.st_ino == text->inode)
                mapped = mmap(text->address, text->size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file,
                              text->offset);
            close(file);
        }
        /* The file is gone: at least the call that was patched in goes, and with it the child's tracing. */
        if (mapped == MAP_FAILED) madvise(text->address, text->size, MADV_DONTNEED);
    }
    errno = kept;
}

static void renew_at_fork(void) { pthread_atfork(NULL, NULL, renew_texts); }

/* Remember the text of a library: `size` bytes at `offset` of the file, mapped at `address`. */
static int remember_text(const char *path, void *address, Py_ssize_t offset, Py_ssize_t size) {
    struct stat status;
    if (stat(path, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct text *text = malloc(sizeof *text);
    char *copy = strdup(path);
    if (!text || !copy) {
        free(text);
        free(copy);
        PyErr_NoMemory();
        return -1;
    }
    *text = (struct text){
        .path = copy,
        .device = status.st_dev,
        .inode = status.st_ino,
        .address = address,
        .size = ((size_t)size + page - 1) & -page,
        .offset = (off_t)offset,
    };
    pthread_once(&at_fork, renew_at_fork);
    for (struct text *each = __atomic_load_n(&texts, __ATOMIC_ACQUIRE); each; each = each->next) {
        if (each->address != text->address) continue;
        free(text); /* loaded before, by another interpreter or another provider object */
        free(copy);
        return 0;
    }
    text->next = __atomic_load_n(&texts, __ATOMIC_ACQUIRE);
    while (!__atomic_compare_exchange_n(&texts, &text->next, text, 0, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE)) {}
    return 0;
}

#ifdef __x86_64__
#define UPROBE_SYSCALL 336

/* uprobe(2) is what the trampoline calls; from elsewhere the kernel that has it answers ENXIO. */
static int ask(void *unused) {
    (void)unused;
    _exit(syscall(UPROBE_SYSCALL) == -1 && errno == ENXIO);
}
#endif

static PyObject *optimises(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    int status = 0;
#ifdef UPROBE_SYSCALL
    /* Asked in a child, for a seccomp filter may kill who asks, and an unknown answer may be SIGILL. The child shares
     * our memory until it ends, and no SIGCHLD tells of it: no one else waits for it. */
    char stack[16384] __attribute__((aligned(16)));
    int kept = errno;
    pid_t child = clone(ask, stack + sizeof stack, CLONE_VM | CLONE_VFORK, NULL);
    if (child > 0)
        while (waitpid(child, &status, __WCLONE) < 0 && errno == EINTR) {}
    errno = kept;
#endif
    return PyBool_FromLong(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static PyObject *load(PyObject *module, PyObject *args) {
    PyObject *path, *encoded, *probes, *result = NULL;
    unsigned char pristine;
    Py_ssize_t offset, stride, renewed = 0;
    if (!PyArg_ParseTuple(args, "UO!bnn|n:load", &path, &PyTuple_Type, &probes, &pristine, &offset, &stride, &renewed))
        return NULL;
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(probes); at++)
        if (!as_probe(module, PyTuple_GET_ITEM(probes, at))) return NULL;
    if (!PyUnicode_FSConverter(path, &encoded)) return NULL;
    void *library;
    struct link_map *map;
    Py_BEGIN_ALLOW_THREADS
    library = dlopen(PyBytes_AS_STRING(encoded), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    Py_END_ALLOW_THREADS
    if (!library || dlinfo(library, RTLD_DI_LINKMAP, &map) < 0) {
        library_error();
        goto done;
    }
    uint8_t *stubs = (uint8_t *)map->l_addr + offset;
    if (renewed && remember_text(PyBytes_AS_STRING(encoded), stubs, offset, renewed) < 0) goto done;
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(probes); at++)
        bind((Probe *)PyTuple_GET_ITEM(probes, at), stubs + at * stride, pristine, path);
    result = Py_NewRef(Py_None);
done:
    Py_DECREF(encoded);
    return result;
}

#else
static PyObject *optimises(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) { Py_RETURN_FALSE; }

static PyObject *load(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args)) {
    PyErr_SetString(PyExc_OSError, "provider files have a meaning on Linux only");
    return NULL;
}
#endif

static PyObject *silence(PyObject *module, PyObject *object) {
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    self->silenced = 1;
    if (!self->recorder) set_site(self, resting(self));
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *unsilence(PyObject *module, PyObject *object) {
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    self->silenced = 0;
    if (!self->recorder) set_site(self, resting(self));
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *set_recorder(PyObject *module, PyObject *args) {
    PyObject *object, *recorder, *before;
    if (!PyArg_ParseTuple(args, "OO:set_recorder", &object, &recorder)) return NULL;
    Probe *self = as_probe(module, object);
    if (!self) return NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    before = self->recorder;
    self->recorder = Py_IsNone(recorder) ? NULL : Py_NewRef(recorder);
    set_site(self, self->recorder ? &recorded : resting(self));
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *on_drop(PyObject *module, PyObject *args) {
    struct state *state = PyModule_GetState(module);
    PyObject *complain, *own;
    if (!PyArg_ParseTuple(args, "OU:on_drop", &complain, &own)) return NULL;
    Py_XSETREF(state->complain, Py_NewRef(complain));
    Py_XSETREF(state->own, Py_NewRef(own));
    Py_RETURN_NONE;
}

/* One count for all threads and interpreters of a process; its forked children count on, and differ in their pid. */
static PyObject *span_number(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    static uint32_t count;
    uint32_t number = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
    return PyLong_FromUnsignedLongLong((uint64_t)getpid() << 32 | number);
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
        PyObject *items[] = {probe->name, probe->doc, probe->stability, of_shape(probe, TEXT)};
        for (int column = 0; column < 4; column++)
            PyTuple_SET_ITEM(PyTuple_GET_ITEM(result, column), at, Py_NewRef(items[column]));
    }
    return result;
}

static PyMethodDef methods[] = {
    {"span_number", span_number, METH_NOARGS, "span_number() -> a number that no other span of this machine has now"},
    {"columns", columns, METH_O, "columns(probes) -> tuples of their names, docs, stabilities and canonical arguments"},
    {"load", load, METH_VARARGS, "load(path, probes, pristine, offset, stride, renewed=0): map a library for good and bind probes to its stubs"},
    {"silence", silence, METH_O, "silence(probe): it is not enabled any more, whoever traces it"},
    {"unsilence", unsilence, METH_O, "unsilence(probe): undo silence"},
    {"set_recorder", set_recorder, METH_VARARGS, "set_recorder(probe, callable or None): recorder(probe, values) at each fire"},
    {"on_drop", on_drop, METH_VARARGS, "on_drop(complain, own): complain(probe, exception) -> what is to be raised, at each call that is not fired; own: the directory of who declares for others"},
    {"optimises", optimises, METH_NOARGS, "optimises() -> whether the kernel makes a call of a five-byte nop that is traced"},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    state->probe_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &probe_spec, NULL);
    if (!state->probe_type) return -1;
    state->probe_type->tp_vectorcall = probe_vectorcall;
    state->declarer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &declarer_spec, NULL);
    if (!state->declarer_type || PyModule_AddType(module, state->declarer_type) < 0) return -1;
    return PyModule_AddType(module, state->probe_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->probe_type);
    Py_VISIT(state->declarer_type);
    Py_VISIT(state->complain);
    return 0;
}

static int module_clear(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->probe_type);
    Py_CLEAR(state->declarer_type);
    Py_CLEAR(state->complain);
    Py_CLEAR(state->own);
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
