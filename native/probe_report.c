/* What this process tells of its own probes to whoever may read its memory.
 *
 * In: probes that are bound to a site, and what integrations say of themselves (usdtkit.instrument.engagement). Out:
 * areas of memory that /proc/PID/maps shows under REPORT_NAME, and that usdtkit.reports reads from outside, at any time
 * and without stopping the process. The counters lie there, so that counting a fire costs one addition and nothing has
 * to be published.
 *
 * An area is a list of entries, to which threads append without a lock: whoever sets the size of the entry behind the
 * last one owns it, and sets its kind when its content is complete. Entries stay as long as the process. The mapping is
 * private, so that a forked child has its own, and its counters begin at zero.
 */

#include "probe.h"

#ifdef __linux__
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

#define REPORT_NAME "usdtkit-report"
enum { VERSION = 2, AREA_SIZE = 1 << 16, MOST_AREAS = 16 };
enum entry_kind { INCOMPLETE, PROBE, ENGAGEMENT };

/* usdtkit.reports reads these structures. */
struct area {
    char magic[8];
    uint32_t version, size;
    struct area *next;
};

struct entry {
    uint32_t size, kind;
    uint64_t site, pristine; /* of a probe; so are the counts and the state of its hooks */
    struct counts counts;
    char text[]; /* parts that end with a NUL */
};

static struct area *areas; /* of the whole process, for all interpreters; the list only grows */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct entry *entry_at(struct area *area, size_t at) { return (struct entry *)((char *)area + at); }

static uint32_t size_of(struct entry *entry) { return __atomic_load_n(&entry->size, __ATOMIC_ACQUIRE); }

/* Whether the area has an entry at `at` with its fixed part. */
static int has_entry(struct area *area, size_t at) {
    return at + sizeof(struct entry) <= AREA_SIZE && size_of(entry_at(area, at)) != 0;
}

/* Runs in a forked child before fork returns. It writes only where the parent has counted, because each page that is
 * written is copied. */
static void reset_counts(void) {
    for (struct area *area = __atomic_load_n(&areas, __ATOMIC_ACQUIRE); area; area = area->next) {
        for (size_t at = sizeof *area; has_entry(area, at); at += size_of(entry_at(area, at))) {
            struct counts *counts = &entry_at(area, at)->counts;
            if (counts->fired || counts->dropped) counts->fired = counts->dropped = 0;
        }
    }
}

static void reset_at_fork(void) { pthread_atfork(NULL, NULL, reset_counts); }

/* A new area, or NULL where the system has no memory files. The descriptor is closed at once: the process has no
 * further file that a loop over all descriptors could close. */
static struct area *new_area(void) {
    int file = memfd_create(REPORT_NAME, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (file < 0) file = memfd_create(REPORT_NAME, MFD_CLOEXEC); /* before Linux 6.3 */
    if (file < 0) return NULL;
    void *mapped = MAP_FAILED;
    if (ftruncate(file, AREA_SIZE) == 0) mapped = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return NULL;
    struct area *area = mapped;
    memcpy(area->magic, "usdtkit", sizeof area->magic);
    area->version = VERSION;
    area->size = AREA_SIZE;
    pthread_once(&once, reset_at_fork);
    return area;
}

/* The area that follows at `link`, which is made if there is none yet. */
static struct area *area_at(struct area **link) {
    struct area *area = __atomic_load_n(link, __ATOMIC_ACQUIRE);
    if (area) return area;
    struct area *made = new_area();
    if (!made || __atomic_compare_exchange_n(link, &area, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return made;
    munmap(made, AREA_SIZE); /* another thread was faster */
    return area;
}

/* An entry with room for so many bytes of text, which belongs to the caller until its kind is set; NULL if there is no
 * room. */
static struct entry *append(size_t text) {
    size_t size = (sizeof(struct entry) + text + 7) & ~(size_t)7;
    struct area **link = &areas;
    for (int number = 0; number < MOST_AREAS && size <= AREA_SIZE - sizeof(struct area); number++) {
        struct area *area = area_at(link);
        if (!area) return NULL;
        for (size_t at = sizeof *area; at + size <= AREA_SIZE;) {
            struct entry *entry = entry_at(area, at);
            uint32_t used = 0;
            if (__atomic_compare_exchange_n(&entry->size, &used, (uint32_t)size, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return entry;
            at += used;
        }
        link = &area->next;
    }
    return NULL;
}

static void complete(struct entry *entry, enum entry_kind kind) {
    __atomic_store_n(&entry->kind, kind, __ATOMIC_RELEASE);
}

/* The counters of the entry for this site, or NULL. Two providers with the same probes load the same file, and two
 * interpreters too. */
static struct counts *find(const volatile uint8_t *site) {
    for (struct area *area = __atomic_load_n(&areas, __ATOMIC_ACQUIRE); area; area = area->next) {
        for (size_t at = sizeof *area; has_entry(area, at); at += size_of(entry_at(area, at))) {
            struct entry *entry = entry_at(area, at);
            if (__atomic_load_n(&entry->kind, __ATOMIC_ACQUIRE) == PROBE && entry->site == (uintptr_t)site)
                return &entry->counts;
        }
    }
    return NULL;
}

struct counts *report_probe(PyObject *provider, PyObject *name, const volatile uint8_t *site, uint8_t pristine) {
    struct counts *found = find(site);
    if (found) return found;
    Py_ssize_t lengths[2];
    const char *texts[] = {PyUnicode_AsUTF8AndSize(provider, &lengths[0]), PyUnicode_AsUTF8AndSize(name, &lengths[1])};
    if (!texts[0] || !texts[1]) {
        PyErr_Clear();
        return NULL;
    }
    struct entry *entry = append((size_t)(lengths[0] + lengths[1]) + 2);
    if (!entry) return NULL;
    memcpy(entry->text, texts[0], (size_t)lengths[0]);
    memcpy(entry->text + lengths[0] + 1, texts[1], (size_t)lengths[1]);
    entry->site = (uintptr_t)site;
    entry->pristine = pristine;
    complete(entry, PROBE);
    return &entry->counts;
}

PyObject *report(PyObject *Py_UNUSED(module), PyObject *content) {
    char *text;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(content, &text, &length) < 0) return NULL;
    struct entry *entry = append((size_t)length);
    if (entry) {
        memcpy(entry->text, text, (size_t)length);
        complete(entry, ENGAGEMENT);
    }
    return PyBool_FromLong(entry != NULL);
}

#else
struct counts *report_probe(PyObject *Py_UNUSED(provider), PyObject *Py_UNUSED(name),
                            const volatile uint8_t *Py_UNUSED(site), uint8_t Py_UNUSED(pristine)) {
    return NULL;
}

PyObject *report(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(content)) { Py_RETURN_FALSE; }
#endif
