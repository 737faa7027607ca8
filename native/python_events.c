/* What else the interpreter does → fires: imports, threads, garbage collections, audited events, objects.
 *
 * In: calls of the functions here, which usdtkit.instrument.python puts in the place of the interpreter's own
 * (stand-ins), or registers as callbacks, while one of their probes is traced. Out: calls of the stubs.
 */

#include "python.h"

#include <string.h>

/* Stand-ins hold the function that they replace, and call it. */

static PyObject *find_and_load(PyObject *original, PyObject *const *args, Py_ssize_t count) {
    int new = 0;
    if (count && PyUnicode_Check(args[0]) && (armed(IMPORT_START) || armed(IMPORT_DONE))) {
        int known = PyDict_Contains(PyImport_GetModuleDict(), args[0]);
        if (known < 0) PyErr_Clear(); /* the original reports what is wrong */
        new = known == 0;
    }
    if (new && armed(IMPORT_START)) fire(IMPORT_START, utf8(args[0]), NULL, 0, NULL);
    PyObject *result = PyObject_Vectorcall(original, args, (size_t)count, NULL);
    if (new && armed(IMPORT_DONE)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        fire(IMPORT_DONE, utf8(args[0]), (void *)(uintptr_t)(result != NULL), 0, NULL);
        PyErr_Restore(type, value, traceback);
    }
    return result;
}

/* A new reference to a text as bytes. Lone surrogates that came from the bytes of a file name become these bytes again,
 * and others are escaped. */
static PyObject *encoded(PyObject *text) {
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    if (!bytes) PyErr_Clear();
    return bytes ? bytes : PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
}

/* A threading.Thread starts a method of its own, and other code may start any callable. One without a name has that of
 * its type. */
static void fire_thread(enum probe probe, PyObject *function) {
    if (!armed(probe)) return;
    PyObject *self = PyMethod_Check(function) ? PyMethod_GET_SELF(function) : NULL;
    PyObject *name = self ? PyObject_GetAttrString(self, "_name") : NULL;
    if (!name) {
        PyErr_Clear();
        name = PyObject_GetAttrString(function, "__name__");
    }
    PyErr_Clear();
    PyObject *bytes = name && PyUnicode_Check(name) ? encoded(name) : NULL;
    PyErr_Clear();
    const char *text = bytes ? PyBytes_AS_STRING(bytes) : Py_TYPE(self ? self : function)->tp_name;
    fire(probe, text, (void *)(uintptr_t)PyThread_get_thread_native_id(), 0, NULL);
    Py_XDECREF(name);
    Py_XDECREF(bytes);
}

/* Reports an exception that leaves the function of a thread as the interpreter does, which would name our stand-in. */
static void report_unraisable(PyObject *function) {
#if PY_VERSION_HEX >= 0x030d0000
    PyErr_FormatUnraisable("Exception ignored in thread started by %R", function);
#else
    _PyErr_WriteUnraisableMsg("in thread started by", function);
#endif
}

static PyObject *run_thread(PyObject *function, PyObject *args, PyObject *keywords) {
    /* An audit hook may forbid the hooks. The thread runs all the same, and its events are not seen. */
    if (hook_thread(PyThreadState_Get()) < 0) PyErr_WriteUnraisable(function);
    fire_thread(THREAD_START, function);
    PyObject *result = PyObject_Call(function, args, keywords);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    fire_thread(THREAD_STOP, function);
    PyErr_Restore(type, value, traceback);
    if (!result && !PyErr_ExceptionMatches(PyExc_SystemExit)) {
        report_unraisable(function);
        Py_RETURN_NONE;
    }
    return result;
}

static PyMethodDef run_thread_method = {"run_thread", (PyCFunction)(void (*)(void))run_thread,
                                        METH_VARARGS | METH_KEYWORDS, "the first function of a thread of the program"};

/* As start_new_thread(function, args, kwargs) and start_joinable_thread(function, handle=, daemon=). */
static PyObject *start_thread(PyObject *original, PyObject *args, PyObject *keywords) {
    if (PyTuple_GET_SIZE(args) < 1 || !PyCallable_Check(PyTuple_GET_ITEM(args, 0)))
        return PyObject_Call(original, args, keywords); /* the original reports what is wrong */
    PyObject *run = PyCFunction_New(&run_thread_method, PyTuple_GET_ITEM(args, 0));
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args));
    PyObject *first = run ? PyTuple_Pack(1, run) : NULL, *all = NULL, *result = NULL;
    if (first && rest && (all = PySequence_Concat(first, rest))) result = PyObject_Call(original, all, keywords);
    Py_XDECREF(run);
    Py_XDECREF(rest);
    Py_XDECREF(first);
    Py_XDECREF(all);
    return result;
}

static PyMethodDef stand_ins[] = {
    {"find_and_load", (PyCFunction)(void (*)(void))find_and_load, METH_FASTCALL,
     "the function of importlib, with probes"},
    {"start_thread", (PyCFunction)(void (*)(void))start_thread, METH_VARARGS | METH_KEYWORDS,
     "the function of _thread, with probes"},
};

static PyObject *stand_in(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name;
    PyObject *original;
    if (!PyArg_ParseTuple(args, "sO:stand_in", &name, &original)) return NULL;
    for (size_t at = 0; at < sizeof stand_ins / sizeof *stand_ins; at++)
        if (strcmp(name, stand_ins[at].ml_name) == 0) return PyCFunction_New(&stand_ins[at], original);
    PyErr_Format(PyExc_ValueError, "there is no stand-in for %s", name);
    return NULL;
}

/* A callback of the garbage collector: ("start" or "stop", {"generation": …, "collected": …}). */
static PyObject *collection(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "this is a callback of gc");
        return NULL;
    }
    int starts = PyUnicode_CompareWithASCIIString(args[0], "start") == 0;
    enum probe probe = starts ? GC_START : GC_DONE;
    PyObject *number = PyDict_GetItemString(args[1], starts ? "generation" : "collected");
    if (number && armed(probe)) fire(probe, (void *)(intptr_t)PyLong_AsLong(number), NULL, 0, NULL);
    PyErr_Clear();
    Py_RETURN_NONE;
}

static int on_audit(const char *event, PyObject *args, void *Py_UNUSED(data)) {
    if (!setting_hooks && armed(AUDIT)) fire(AUDIT, event, args, 0, NULL);
    return 0;
}

/* An audit hook cannot be removed. From the first tracer on it costs each audited event a comparison. */
static PyObject *audit(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    static int added;
    if (!added && PySys_AddAuditHook(on_audit, NULL) < 0) return NULL;
    added = 1;
    Py_RETURN_NONE;
}

#if PY_VERSION_HEX >= 0x030d0000
static int on_object(PyObject *object, PyRefTracerEvent event, void *Py_UNUSED(data)) {
    enum probe probe = event == PyRefTracer_CREATE ? OBJECT_NEW : OBJECT_DELETE;
    if (!setting_hooks && armed(probe))
        fire(probe, Py_TYPE(object)->tp_name, object, Py_TYPE(object)->tp_basicsize, NULL);
    return 0;
}

static PyObject *objects(PyObject *Py_UNUSED(module), PyObject *args) {
    int on;
    void *data;
    if (!PyArg_ParseTuple(args, "p:objects", &on)) return NULL;
    PyRefTracer current = PyRefTracer_GetTracer(&data);
    /* tracemalloc uses the same hook, and keeps it if it has it. */
    if ((current == on_object || !current) && PyRefTracer_SetTracer(on ? on_object : NULL, NULL) < 0) return NULL;
    Py_RETURN_NONE;
}
#else
static PyObject *objects(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args)) { Py_RETURN_NONE; }
#endif

PyMethodDef event_methods[] = {
    {"stand_in", stand_in, METH_VARARGS, "stand_in(name, original) -> a function that fires and calls the original"},
    {"collection", (PyCFunction)(void (*)(void))collection, METH_FASTCALL, "a callback of gc"},
    {"audit", audit, METH_NOARGS, "audit(): have audited events fire from here on"},
    {"objects", objects, METH_VARARGS, "objects(on): have objects fire, from CPython 3.13 on"},
    {NULL, NULL, 0, NULL},
};
