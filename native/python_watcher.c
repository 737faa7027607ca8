/* Tracers that come and go → a call of Python code that sets the hooks.
 *
 * In: the sites that python.c has been given. Out: switch(bits), with one bit for each probe that is traced, after each
 * change. A thread compares one byte of each site 20 times a second, and takes the GIL only when something has changed:
 * so a program that nobody traces has no hooks and pays nothing for them. A hook may ask to be called from this thread
 * regularly, for what only another thread can see, such as what a thread does that is stuck.
 *
 * All state belongs to the process and serves the main interpreter.
 */

#include "python.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define POLL_INTERVAL_NS 50000000
#define LOOK_INTERVAL_NS 10000000
#define WATCHER_STACK (1 << 20)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int running, stopping;
    int recheck;      /* switch at the next look, even if nothing has changed */
    uint64_t applied; /* the probes that the hooks are set for; only the watcher writes it */
    PyObject *switcher;
    PyObject *looker; /* NULL if nothing is to be called regularly; changed with the GIL only */
} watcher = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t traced_probes(void) {
    uint64_t bits = 0;
    for (int probe = 0; probe < COUNT; probe++) bits |= (uint64_t)armed(probe) << probe;
    int count = __atomic_load_n(&other_site_count, __ATOMIC_ACQUIRE);
    for (int other = 0; other < count; other++) bits |= (uint64_t)is_traced(&other_sites[other]) << (COUNT + other);
    return bits;
}

/* Takes the GIL rather than adding a pending call: only the main thread makes pending calls, and it may be waiting for
 * another thread. */
static void switch_hooks(uint64_t bits) {
    PyGILState_STATE state = PyGILState_Ensure();
    setting_hooks = 1;
    PyObject *result = PyObject_CallFunction(watcher.switcher, "K", bits);
    if (!result) PyErr_WriteUnraisable(watcher.switcher);
    Py_XDECREF(result);
    setting_hooks = 0;
    __atomic_store_n(&watcher.applied, bits, __ATOMIC_RELAXED);
    PyGILState_Release(state);
}

static void call_looker(void) {
    PyGILState_STATE state = PyGILState_Ensure();
    setting_hooks = 1;
    PyObject *looker = Py_XNewRef(watcher.looker);
    if (looker) {
        PyObject *result = PyObject_CallNoArgs(looker);
        if (!result) PyErr_WriteUnraisable(looker);
        Py_XDECREF(result);
        Py_DECREF(looker);
    }
    setting_hooks = 0;
    PyGILState_Release(state);
}

static void *watch(void *Py_UNUSED(nothing)) {
    pthread_mutex_lock(&watcher.lock);
    while (!watcher.stopping) {
        uint64_t bits = traced_probes();
        if (bits != watcher.applied || __atomic_exchange_n(&watcher.recheck, 0, __ATOMIC_RELAXED)) {
            pthread_mutex_unlock(&watcher.lock);
            switch_hooks(bits);
            pthread_mutex_lock(&watcher.lock);
            continue;
        }
        int looks = __atomic_load_n(&watcher.looker, __ATOMIC_RELAXED) != NULL;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += looks ? LOOK_INTERVAL_NS : POLL_INTERVAL_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&watcher.wake, &watcher.lock, &until);
        if (looks && !watcher.stopping) {
            pthread_mutex_unlock(&watcher.lock);
            call_looker();
            pthread_mutex_lock(&watcher.lock);
        }
    }
    pthread_mutex_unlock(&watcher.lock);
    return NULL;
}

/* The thread blocks all signals: the program's must not be delivered to a thread that it does not know of. */
static int create_thread(void) {
    sigset_t all, previous;
    pthread_attr_t attributes;
    sigfillset(&all);
    int failed = pthread_attr_init(&attributes);
    if (failed) return failed;
    pthread_attr_setstacksize(&attributes, WATCHER_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    failed = pthread_create(&watcher.thread, &attributes, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed) pthread_setname_np(watcher.thread, "usdtkit");
    return failed;
}

static int start_watching(void) {
    pthread_mutex_lock(&watcher.lock);
    int failed = 0;
    if (!watcher.running) {
        watcher.stopping = 0;
        failed = create_thread();
        watcher.running = !failed;
    }
    pthread_mutex_unlock(&watcher.lock);
    if (!failed) return 0;
    errno = failed;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static void new_condition(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watcher.wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static PyObject *start(PyObject *Py_UNUSED(module), PyObject *switcher) {
    if (watcher.switcher) {
        PyErr_SetString(PyExc_ValueError, "the watcher is started already");
        return NULL;
    }
    watcher.switcher = Py_NewRef(switcher);
    new_condition();
    if (start_watching() < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    pthread_mutex_lock(&watcher.lock);
    int running = watcher.running;
    watcher.running = 0;
    watcher.stopping = 1;
    pthread_cond_signal(&watcher.wake);
    pthread_mutex_unlock(&watcher.lock);
    if (running) {
        Py_BEGIN_ALLOW_THREADS /* the watcher may be waiting for the GIL */
        pthread_join(watcher.thread, NULL);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *applied(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&watcher.applied, __ATOMIC_RELAXED));
}

static PyObject *recheck(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    __atomic_store_n(&watcher.recheck, 1, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

static PyObject *look(PyObject *Py_UNUSED(module), PyObject *looker) {
    PyObject *previous = watcher.looker;
    __atomic_store_n(&watcher.looker, looker == Py_None ? NULL : Py_NewRef(looker), __ATOMIC_RELAXED);
    Py_XDECREF(previous);
    Py_RETURN_NONE;
}

/* fork() and the watcher.
 *
 * The watcher stops before a fork, because Python counts the threads of the process then, and warns if there is more
 * than one. For the same reason it continues in the parent only after the call of fork has returned.
 */
static int continue_watching(void *Py_UNUSED(nothing)) {
    /* No thread can be created. The program goes on, and this says why a tracer will see nothing. */
    if (start_watching() < 0) PyErr_WriteUnraisable(watcher.switcher);
    return 0;
}

static PyObject *after_fork_in_parent(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    /* The main thread makes pending calls. If it is not the one that forks, it may be waiting for that one. */
    int pending = syscall(SYS_gettid) == getpid() && Py_AddPendingCall(continue_watching, NULL) == 0;
    if (!pending) continue_watching(NULL);
    Py_RETURN_NONE;
}

static PyObject *after_fork_in_child(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    /* Another thread of the parent may have held the lock. In the child it does not exist. */
    watcher.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    new_condition();
    watcher.running = 0;
    continue_watching(NULL);
    Py_RETURN_NONE;
}

PyMethodDef watcher_methods[] = {
    {"start", start, METH_O, "start(switch): call switch(bits of the probes that are traced) at each change"},
    {"applied", applied, METH_NOARGS, "applied() -> bits of the probes that the hooks are set for"},
    {"recheck", recheck, METH_NOARGS, "recheck(): call switch at the next look, even if nothing has changed"},
    {"look", look, METH_O, "look(function): call function() every 10 ms, until look(None)"},
    {"stop", stop, METH_NOARGS, "stop(): make no more changes"},
    {"after_fork_in_parent", after_fork_in_parent, METH_NOARGS, "undo stop() once the call of fork has returned"},
    {"after_fork_in_child", after_fork_in_child, METH_NOARGS, "undo stop()"},
    {NULL, NULL, 0, NULL},
};
