/* Provider files → stubs in this process, each bound to its probe.
 *
 * In: the path of a library that usdtkit.probes.image has made, and the probes that it holds, from
 * usdtkit.probes.loading. Out: probes whose `site` is the first byte of a stub. Libraries are never unmapped, because a
 * thread may be about to call a stub. Here too: what the kernel makes of five-byte sites, and what a forked child must
 * do about it.
 */

#include "probe.h"

#ifdef __linux__
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Binds the probe to its stub, once, and ends its silence. `set_site` comes last: it publishes all that a call
 * reads. */
static void bind(Probe *self, const volatile uint8_t *stub, uint8_t pristine, PyObject *path) {
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!self->stub) {
        PyObject *previous = self->path;
        self->path = Py_NewRef(path);
        Py_DECREF(previous);
        struct counts *counts = report_probe(self->provider, self->name, stub, pristine);
        if (counts) {
            /* What has been dropped while the probe was recorded, before it was loaded. */
            __atomic_fetch_add(&counts->dropped, self->own.dropped, __ATOMIC_RELAXED);
            __atomic_store_n(&self->counts, counts, __ATOMIC_RELEASE);
        }
        __atomic_store_n(&self->pristine, pristine, __ATOMIC_RELAXED);
        self->stub = stub;
    }
    self->silenced = 0;
    if (!self->recorder) set_site(self, unrecorded_site(self));
    Py_END_CRITICAL_SECTION();
}

static int library_error(void) {
    const char *reason = dlerror();
    PyErr_SetString(PyExc_OSError, reason ? reason : "the dynamic linker gives no reason");
    return -1;
}

/* Five-byte sites in a forked child.
 *
 * Linux 6.18 turns a five-byte nop that is traced into a call of a trampoline. It maps the trampoline nearby, and does
 * not map it in a forked child: the child's first fire would jump to an unmapped address. So a child maps the stubs
 * anew before any other code of it runs, and the kernel puts its breakpoints there as in every new mapping.
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

static struct text *texts; /* of the whole process, for all interpreters; the list only grows */
static pthread_once_t at_fork = PTHREAD_ONCE_INIT;

/* Runs in the child before fork returns, so it calls only what a signal handler may call. */
static void renew_texts(void) {
    int saved_errno = errno;
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
        /* The file is gone. Dropping the private pages removes the patched call, and the child is not traced any
         * more. */
        if (mapped == MAP_FAILED) madvise(text->address, text->size, MADV_DONTNEED);
    }
    errno = saved_errno;
}

static void renew_at_fork(void) { pthread_atfork(NULL, NULL, renew_texts); }

/* Remembers the stubs of a library for renew_texts: `size` bytes at `offset` of the file, mapped at `address`. */
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
    for (struct text *known = __atomic_load_n(&texts, __ATOMIC_ACQUIRE); known; known = known->next) {
        if (known->address != text->address) continue;
        free(text); /* another interpreter or another provider object has loaded the same file */
        free(copy);
        return 0;
    }
    text->next = __atomic_load_n(&texts, __ATOMIC_ACQUIRE);
    while (!__atomic_compare_exchange_n(&texts, &text->next, text, 0, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE)) {}
    return 0;
}

#ifdef __x86_64__
#define UPROBE_SYSCALL 336

/* The trampoline calls uprobe(2). A kernel that has this system call returns ENXIO for a call from anywhere else. */
static int try_uprobe_syscall(void *unused) {
    (void)unused;
    _exit(syscall(UPROBE_SYSCALL) == -1 && errno == ENXIO);
}
#endif

PyObject *optimises(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    int status = 0;
#ifdef UPROBE_SYSCALL
    /* A child makes the call, because a seccomp filter may kill the caller. The child shares our memory until it ends,
     * and sends no SIGCHLD, so that nobody else waits for it. */
    char stack[16384] __attribute__((aligned(16)));
    int saved_errno = errno;
    pid_t child = clone(try_uprobe_syscall, stack + sizeof stack, CLONE_VM | CLONE_VFORK, NULL);
    if (child > 0)
        while (waitpid(child, &status, __WCLONE) < 0 && errno == EINTR) {}
    errno = saved_errno;
#endif
    return PyBool_FromLong(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

PyObject *load(PyObject *module, PyObject *args) {
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
PyObject *optimises(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) { Py_RETURN_FALSE; }

PyObject *load(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args)) {
    PyErr_SetString(PyExc_OSError, "provider files can be loaded on Linux only");
    return NULL;
}
#endif
