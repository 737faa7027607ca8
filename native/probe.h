/* What the files of usdtkit._probe share: the Probe object, the types of arguments, and how a call reads a site.
 *
 *   probe.c          the callable: is anybody tracing?, then convert the values and call the stub
 *   probe_values.c   a Python value → operands, and operands → what a tracer reads of them
 *   probe_declare.c  a checked declaration → a Probe object; the quick way to declare one
 *   probe_load.c     a provider file → mapped stubs, bound to probes; what a forked child has to renew
 *   probe_live.c     one stretch of work: fires the two probes of a span, and knows the span around it
 *   probe_span.c     a declared span, which makes stretches of work; the quick way to find one by its name
 *   probe_traced.c   a function with a span around each call
 *   probe_report.c   the counters of all probes, where other processes can read them
 *   probe_module.c   the functions and the state of the module
 *
 * All names here are hidden, so that a call from one file to another is a direct one, without a procedure linkage
 * table.
 */

#ifndef USDTKIT_PROBE_H
#define USDTKIT_PROBE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h> /* defines _GNU_SOURCE too, so it comes first */

#include <stdint.h>

#if PY_VERSION_HEX < 0x030d0000
/* Before CPython 3.13 the GIL is the only lock that an object needs. */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#define MAX_OPERANDS 12

#pragma GCC visibility push(hidden)

/* Types of arguments */

enum kind { UNSIGNED, SIGNED, BOOL, FLOAT, STRING, BYTES, ENUM, JSON };

struct type {
    const char *name;
    enum kind kind;
    int bits;
    int optional; /* whether None is a value */
};

/* A shape names a type by its number in this table, which has the order of DECLARABLE in usdtkit.argumenttypes; a test
 * compares the two. */
enum { TYPE_COUNT = 29 };
extern const struct type argument_types[TYPE_COUNT];

/* A pointer is NULL where the value is None. A number has another operand behind it, 1 if there is a value, else 0. */
static inline int has_presence(const struct type *type) {
    return type->optional && type->kind != STRING && type->kind != BYTES;
}

/* `bytes` travel as a pointer and a length. */
static inline int operands_of(const struct type *type) { return type->kind == BYTES || has_presence(type) ? 2 : 1; }

/* The Probe object */

/* Calls that reached a tracer, and calls that could not be fired; and whether the hooks are set that call the probe
 * (enum hooks), if it is called by hooks. */
struct counts {
    uint64_t fired, dropped, hooks;
};

enum hooks { NO_HOOKS, HOOKS_NOT_SET, HOOKS_SET };

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    /* The byte that a call compares with `pristine`: the first of the stub, one of the two constants below, or
     * `pristine` itself, which can never differ. */
    const volatile uint8_t *site;
    uint8_t pristine;
    uint8_t count;                 /* of arguments */
    uint8_t drops;                 /* enum drops */
    uint8_t silenced;
    uint8_t types[MAX_OPERANDS];   /* of each argument, its number in `argument_types` */
    const volatile uint8_t *stub;  /* NULL until the probe is loaded */
    struct counts *counts;         /* in the report of this process; `own` if it has no entry there */
    struct counts own;
    PyObject *provider, *name, *doc, *stability;
    PyObject *shape;               /* a tuple that probes with the same arguments share */
    PyObject *loader;
    PyObject *path;
    PyObject *recorder;            /* a callable, or NULL */
    PyObject *place;               /* (file, line) of the declaration, or None */
} Probe;

/* What happens when the values of a call cannot be fired: the call raises an exception, or it is counted as dropped and
 * the caller goes on. By default a call raises only while the tests of an application record. */
enum drops { RAISES, DROPS, DROPS_UNLESS_RECORDED };

struct state {
    PyTypeObject *probe_type, *declarer_type, *live_type, *awaited_type, *span_type, *span_by_name_type, *traced_type;
    PyObject *report_drop;  /* report_drop(probe, exception) -> an exception to raise, or None; NULL until it is set */
    PyObject *package_path; /* code in files whose names begin so declares probes for others; NULL until it is set */
    PyObject *untraced;     /* the LiveSpan of all spans that nobody traces: it does nothing */
    PyObject *current;      /* a ContextVar: the innermost LiveSpan that has begun, or None; NULL in a module that ends */
    PyObject *foreign;      /* foreign() -> (trace id, span id) of another SDK's span around us, or None; NULL until set */
};

/* A probe's site points to `unloaded` until the probe is loaded. `pristine` is 0 until then, so the first use of the
 * probe leaves the fast path. */
extern const volatile uint8_t unloaded;
/* The site points to `recording` while somebody records within this process. No stub begins with this byte. */
extern const volatile uint8_t recording;

/* The items of a shape: the (name, type) of each argument; its converter (for an enum a dict of numbers, for a json a
 * callable that returns bytes, else None); the numbers of the types as bytes; and all of this as a canonical text. More
 * items may follow, for Python. */
enum { ARGUMENTS, CONVERTERS, TYPE_NUMBERS, TEXT, SHAPE_SIZE };

static inline PyObject *shape_item(Probe *self, int item) { return PyTuple_GET_ITEM(self->shape, item); }

static inline const struct type *type_of(Probe *self, int index) { return &argument_types[self->types[index]]; }

static inline PyObject *argument_name(Probe *self, int index) {
    return PyTuple_GET_ITEM(PyTuple_GET_ITEM(shape_item(self, ARGUMENTS), index), 0);
}

/* The site of a probe */

static inline const volatile uint8_t *site_of(Probe *self) { return __atomic_load_n(&self->site, __ATOMIC_ACQUIRE); }

static inline void set_site(Probe *self, const volatile uint8_t *site) {
    __atomic_store_n(&self->site, site, __ATOMIC_RELEASE);
}

/* Whether the byte at `site` differs from the pristine one. The caller has read `site` before `pristine` is read here:
 * `bind` publishes them in the opposite order. */
static inline int armed(Probe *self, const volatile uint8_t *site) {
    uint8_t now = *site;
    return now != __atomic_load_n(&self->pristine, __ATOMIC_RELAXED);
}

/* The site of a probe that nobody records. */
static inline const volatile uint8_t *unrecorded_site(Probe *self) {
    if (self->silenced) return &self->pristine;
    return self->stub ? self->stub : &unloaded;
}

/* probe.c */

extern PyType_Spec probe_spec;
PyObject *fire(PyObject *probe, PyObject *const *args, size_t nargsf, PyObject *kwnames);
/* Clears a RecursionError or a MemoryError and returns 0: the caller would not have met it without this probe. Returns
 * -1 with any other exception set, because the Python code that it comes from has decided that the caller must see
 * it. */
int clear_resource_error(void);
/* Whether somebody traces or records the probe: 1 or 0, or -1 with an exception. Loads the probe if that has not been
 * done. */
int is_enabled(Probe *self);

/* probe_values.c */

/* What one call owns until the stub has returned. */
struct operands {
    uint64_t values[MAX_OPERANDS];
    int count;
    Py_buffer buffers[MAX_OPERANDS / 2];
    int buffer_count;
    PyObject *owned[MAX_OPERANDS];
    int owned_count;
};

static inline void release_operands(struct operands *operands) {
    while (operands->buffer_count) PyBuffer_Release(&operands->buffers[--operands->buffer_count]);
    while (operands->owned_count) Py_DECREF(operands->owned[--operands->owned_count]);
}

/* Converts the values of all arguments. Returns 0, or -1 with an exception; `operands` must be released in both
 * cases. */
int convert_values(Probe *self, PyObject *const *values, struct operands *operands);
/* A new reference to what a tracer reads of the argument `index`, whose operands begin at `operands`. */
PyObject *traced_value(Probe *self, int index, const uint64_t *operands);

/* probe_declare.c */

extern PyType_Spec declarer_spec;
PyObject *probe_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames);
PyObject *probe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* probe_load.c */

PyObject *load(PyObject *module, PyObject *args);
PyObject *optimises(PyObject *module, PyObject *none);

/* probe_live.c */

/* One stretch of work. Without probes it is that of a span that nobody traces. It is kept by each context in which it
 * was current, also after its end, so that what a task starts later still has a parent. */
typedef struct LiveSpan {
    PyObject_VAR_HEAD
    Probe *start, *done;
    struct LiveSpan *outer;  /* what was current before it */
    PyObject *trace_id;      /* a str of 32 hexadecimal digits; NULL before it begins */
    PyObject *names;         /* of the named values at the end of `values`, or NULL */
    uint64_t number, began;  /* `began` in ns of CLOCK_MONOTONIC; 0 before and after */
    uint8_t left;            /* it ended where it was not the current one; whoever finds it goes on to `outer` */
    PyObject *values[];      /* of the start probe; cleared as soon as that was fired */
} LiveSpan;

/* The first arguments of a start probe: the span's number, its parent's number, the trace id. */
enum { NUMBER, PARENT, TRACE_ID, OWN_VALUES };

extern PyType_Spec live_spec, awaited_spec;
/* A stretch of work that has not begun, with the values of a call. NULL with an exception if memory is short. */
LiveSpan *new_live(struct state *state, Probe *start, Probe *done, PyObject *const *values, Py_ssize_t count,
                   PyObject *names);
/* Fires the start. Returns 0; or -1 with an exception, and then the end does nothing. */
int begin_live(struct state *state, LiveSpan *self);
/* Fires the end; `kind` is the type of the exception that leaves the work, or NULL. Returns 0, or -1 with an
 * exception. */
int end_live(struct state *state, LiveSpan *self, PyObject *kind);

/* probe_span.c */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *name;
    Probe *start, *done;
    PyObject *untraced; /* that of the module's state */
} Span;

extern PyType_Spec span_spec, span_by_name_spec;

/* Whether nobody traces either end, as far as two bytes tell. A span that is not loaded yet looks traced. */
static inline int plainly_untraced(Span *self) {
    return !armed(self->start, site_of(self->start)) && !armed(self->done, site_of(self->done));
}

/* The same for certain: 1 if somebody traces one of its ends, 0 if not, -1 with an exception. */
static inline int is_traced(Span *self) {
    int start = is_enabled(self->start);
    return start ? start : is_enabled(self->done);
}

/* probe_traced.c */

extern PyType_Spec traced_spec;

/* probe_report.c */

/* The counters of the probe at this site in the report of this process, or NULL. */
struct counts *report_probe(PyObject *provider, PyObject *name, const volatile uint8_t *site, uint8_t pristine);
PyObject *report(PyObject *module, PyObject *content);

/* probe_module.c */

uint64_t next_span_number(void);

static inline struct state *state_of(Probe *self) { return PyType_GetModuleState(Py_TYPE(self)); }
/* `object` as a Probe of this module, or NULL with a TypeError. */
Probe *as_probe(PyObject *module, PyObject *object);

#pragma GCC visibility pop

#endif
