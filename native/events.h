/* What the files of usdtkit._events share: the layout of events and decoders, and the walk over the records of a ring.
 *
 *   events.c          types of events, which have an attribute for each field; the module
 *   events_decode.c   a record → an Event object, by the Decoder of its kind
 *   events_columns.c  many records → columns: arrays of numbers, and texts that become objects when they are asked for
 *
 * All names here are hidden, so that a call from one file to another is a direct one, without a procedure linkage
 * table.
 */

#ifndef USDTKIT_EVENTS_H
#define USDTKIT_EVENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "records.h"

#pragma GCC visibility push(hidden)

/* Fields and values */

enum { TIME, PID, TID, PROBE, HEADER_FIELDS }; /* the first fields of every event */
enum { EVENT_HEADER = 24 };                    /* bytes of a record before its fields */
enum kind { U64 = 'Q', I64 = 'q', BOOL = '?', F64 = 'd', STR = 's', BYTES = 'b', STACK = 'S' };
enum mark { WHOLE = 0, CUT = 1, UNREADABLE = 2 }; /* what became of a text in the kernel */

struct field {
    char kind;         /* enum kind */
    uint32_t offset;   /* of the value in the record; for a text, of its length, which its data follows */
    uint32_t size;     /* the most bytes of a text that were asked for; 16 of a number that may be None, else 8 */
    uint32_t capacity; /* the bytes that the record has for the data of a text */
    PyObject *names;   /* of an enum: a dict, number → name; of a stack: what makes an object of it; else NULL */
};

static inline int is_text(char kind) { return kind == STR || kind == BYTES; }

/* Whether there is a number in the record; behind one that may be None stands whether it is there. */
static inline int is_present(const struct field *field, const uint8_t *payload) {
    uint64_t present = 1;
    if (field->size == 16) memcpy(&present, payload + field->offset + 8, sizeof present);
    return present != 0;
}

/* Events: one allocation for an object and its values. A type has a member for each value, which the interpreter reads
 * without a call. */
typedef struct {
    PyObject_HEAD
    PyObject *values[];
} Event;

/* The decoder of one kind of record. Texts that come again and again (the name of a thread, a host, a statement) are
 * made into an object once: the decoder keeps the last ones, each in a slot that a hash of its bytes chooses. */
enum { RECENT_TEXTS = 256, MAX_RECENT_TEXT = 64 };

typedef struct {
    PyObject_HEAD
    PyTypeObject *event;
    PyObject *truncated, *truncated_bytes; /* types of texts that were cut */
    uint32_t size;                         /* of the record, at least */
    Py_ssize_t count;                      /* of fields */
    struct field *fields;
    PyObject *recent[RECENT_TEXTS];
} Decoder;

struct state {
    PyObject *event;                   /* the base of all types of events */
    PyObject *types, *collected_types; /* dicts: names of fields → type */
    PyTypeObject *texts;
};

/* Records */

/* The arguments of decode and columns, and how far they have come. */
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

/* A record of a known kind, which is as long as its decoder needs. */
struct event {
    const uint8_t *payload;
    Decoder *decoder;
};

static inline struct header header_of(const uint8_t *payload) {
    struct header header;
    memcpy(&header, payload, sizeof header);
    return header;
}

/* Reads the next event, up to the first record that begins at or after `enough` bytes. Returns 1, 0 if there is none,
 * or -1 with an exception. */
static inline int next_event(struct input *input, struct event *event) {
    if (input->at >= input->enough) return 0;
    struct usdtkit_record record;
    int status = usdtkit_next_record(input->data.buf, (uint64_t)input->data.len, &input->at, &record);
    if (status == 0) return 0;
    if (status > 0 && record.length >= EVENT_HEADER) {
        event->payload = record.payload;
        uint32_t kind = header_of(record.payload).kind;
        if (kind < (uint64_t)PyTuple_GET_SIZE(input->decoders)) {
            event->decoder = (Decoder *)PyTuple_GET_ITEM(input->decoders, kind);
            if (record.length >= event->decoder->size) return 1;
        }
    }
    PyErr_SetString(PyExc_ValueError, status < 0 ? "a record is cut off" : "a record of no known kind");
    return -1;
}

/* An upper bound of the number of records, each of `size` bytes or more. */
static inline Py_ssize_t max_records(const struct input *input, uint32_t size) {
    uint64_t bytes = (uint64_t)input->data.len < input->enough ? (uint64_t)input->data.len : input->enough;
    return (Py_ssize_t)(bytes / (USDTKIT_RECORD_HEADER + size)) + 1;
}

static inline PyObject *probe_name(const struct input *input, uint32_t probe) {
    if (probe < (uint64_t)PyTuple_GET_SIZE(input->probes)) return Py_NewRef(PyTuple_GET_ITEM(input->probes, probe));
    PyErr_SetString(PyExc_ValueError, "a record of no known probe");
    return NULL;
}

/* The bytes of a text in a record, which are never more than its field has capacity for. */
struct text {
    const char *data;
    size_t length;
    enum mark mark;
};

static inline struct text text_at(const struct field *field, const uint8_t *payload) {
    int32_t length;
    memcpy(&length, payload + field->offset, sizeof length);
    if (length < 0) return (struct text){"", 0, UNREADABLE}; /* an errno: the kernel could not follow the pointer */
    struct text text = {.data = (const char *)payload + field->offset + 4};
    text.length = (size_t)length < field->capacity ? (size_t)length : field->capacity;
    if (field->kind == STR) text.length = strnlen(text.data, text.length);
    text.mark = (field->kind == STR ? text.length : (size_t)length) > field->size ? CUT : WHOLE;
    if (text.length > field->size) text.length = field->size;
    return text;
}

/* Texts → objects. Inline, because decoding spends most of its time here. */

/* `plain` as an object of a type that says that the text was cut. Steals the reference. */
PyObject *cut_text(PyObject *cut_type, PyObject *plain);

static inline size_t slot_of(const char *data, size_t length) {
    uint64_t hash = length, word = 0;
    if (length < 8) {
        memcpy(&word, data, length);
        hash ^= word;
    } else { /* whole words, the last of which may overlap the one before: each copy is one instruction */
        for (size_t at = 0; at + 8 < length; at += 8) {
            memcpy(&word, data + at, 8);
            hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
        }
        memcpy(&word, data + length - 8, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
    }
    return ((hash ^ hash >> 32) * 0xC2B2AE3D27D4EB4FU) >> 56;
}

/* The text as a str, which may be one that was made before. */
static inline PyObject *plain_text(Decoder *decoder, const char *data, size_t length) {
    if (length > MAX_RECENT_TEXT) return PyUnicode_DecodeUTF8(data, (Py_ssize_t)length, "surrogateescape");
    PyObject **recent = &decoder->recent[slot_of(data, length)];
    if (*recent && PyUnicode_GET_LENGTH(*recent) == (Py_ssize_t)length &&
        !memcmp(PyUnicode_DATA(*recent), data, length))
        return Py_NewRef(*recent);
    PyObject *text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)length, "surrogateescape");
    /* The data of an ASCII text are the bytes of the record, so the next record is compared with them. */
    if (text && PyUnicode_IS_ASCII(text)) Py_XSETREF(*recent, Py_NewRef(text));
    return text;
}

/* A new reference to the object of a text: None if it could not be read, of one of the decoder's types if it was
 * cut. */
static inline PyObject *text_object(Decoder *decoder, int kind, struct text text) {
    if (text.mark == UNREADABLE) Py_RETURN_NONE;
    if (kind == STR) {
        PyObject *plain = plain_text(decoder, text.data, text.length);
        return text.mark == CUT ? cut_text(decoder->truncated, plain) : plain;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.length);
    return text.mark == CUT ? cut_text(decoder->truncated_bytes, bytes) : bytes;
}

/* events.c */

/* A new reference to the type of events with these fields. A `collected` one is known to the garbage collector. */
PyTypeObject *event_type(PyObject *module, PyObject *fields, int collected);

/* events_decode.c */

extern PyType_Spec Decoder_spec;
/* Whether all items of the tuple are decoders; if not, a TypeError is set. */
int check_decoders(PyObject *decoders);
PyObject *decode(PyObject *module, PyObject *args);

/* events_columns.c */

extern PyType_Spec Texts_spec;
PyObject *columns(PyObject *module, PyObject *args);

#pragma GCC visibility pop

#endif
