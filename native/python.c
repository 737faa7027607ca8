/* usdtkit._python: where the sites of the probes are, and the module.
 *
 * In: addresses of sites, from usdtkit.instrument.python and .watcher. Out: the tables that python_watcher.c reads
 * without the GIL, and that the functions in python_hooks.c and python_events.c fire through.
 *
 * All state belongs to the process and serves the main interpreter. What a callback reads is written before it is
 * registered.
 */

#include "python.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

static const char *const names[] = {PROBES(NAME)};

struct language_probe language_probes[COUNT];
struct site other_sites[MAX_PROBES - COUNT];
int other_site_count;
__thread int setting_hooks __attribute__((tls_model("initial-exec")));

/* The byte is set last, because the watcher's thread looks at each site that has one. */
static void set_site(struct site *site, const void *byte, uint8_t pristine) {
    site->pristine = pristine;
    __atomic_store_n(&site->byte, (const volatile uint8_t *)byte, __ATOMIC_RELEASE);
}

static int number_of(const char *name) {
    for (int number = 0; number < COUNT; number++)
        if (strcmp(names[number], name) == 0) return number;
    PyErr_Format(PyExc_ValueError, "there is no probe %s", name);
    return -1;
}

static void *find_site(PyObject *path, const char *symbol) {
    void *library = dlopen(PyBytes_AS_STRING(path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void *site = library ? dlsym(library, symbol) : NULL;
    if (!site) {
        const char *reason = dlerror();
        PyErr_Format(PyExc_OSError, "the site %s cannot be found: %s", symbol, reason ? reason : "it has no address");
    }
    Py_DECREF(path);
    return site;
}

static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name, *symbol;
    PyObject *path;
    unsigned char pristine;
    unsigned long long counters;
    if (!PyArg_ParseTuple(args, "sO&sbK:bind", &name, PyUnicode_FSConverter, &path, &symbol, &pristine, &counters))
        return NULL;
    void *site = find_site(path, symbol);
    int number = site ? number_of(name) : -1;
    if (number < 0) return NULL;
    language_probes[number].fired = (uint64_t *)(uintptr_t)counters;
    language_probes[number].stub = (stub6 *)(uintptr_t)site;
    set_site(&language_probes[number].site, site, pristine);
    Py_RETURN_NONE;
}

static PyObject *watch_site(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *symbol;
    PyObject *path;
    unsigned char pristine;
    if (!PyArg_ParseTuple(args, "O&sb:watch", PyUnicode_FSConverter, &path, &symbol, &pristine)) return NULL;
    void *site = find_site(path, symbol);
    if (!site) return NULL;
    if (other_site_count == MAX_PROBES - COUNT) {
        PyErr_SetString(PyExc_ValueError, "too many probes are watched");
        return NULL;
    }
    set_site(&other_sites[other_site_count], site, pristine);
    __atomic_store_n(&other_site_count, other_site_count + 1, __ATOMIC_RELEASE);
    return PyLong_FromLong(COUNT + other_site_count - 1);
}

/* The program or the library that holds the interpreter's code. */
static struct link_map *find_interpreter(void) {
    struct link_map *map;
    Dl_info info;
    void *code = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
    if (code && dladdr1(code, &info, (void **)&map, RTLD_DL_LINKMAP)) return map;
    PyErr_SetString(PyExc_OSError, "the interpreter's own file cannot be found");
    return NULL;
}

static PyObject *bind_interpreter(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name;
    Py_ssize_t address;
    unsigned char pristine;
    if (!PyArg_ParseTuple(args, "snb:bind_interpreter", &name, &address, &pristine)) return NULL;
    int number = number_of(name);
    struct link_map *map = number < 0 ? NULL : find_interpreter();
    if (!map) return NULL;
    set_site(&language_probes[number].site, (const void *)(map->l_addr + (uintptr_t)address), pristine);
    Py_RETURN_NONE;
}

static PyObject *interpreter(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    struct link_map *map = find_interpreter();
    if (!map) return NULL;
    return PyUnicode_DecodeFSDefault(*map->l_name ? map->l_name : "/proc/self/exe"); /* the program has an empty name */
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS, "bind(name, path, symbol, pristine, counters): the site of a probe in a provider file"},
    {"bind_interpreter", bind_interpreter, METH_VARARGS,
     "bind_interpreter(name, address, pristine): a site in the interpreter's file, which the interpreter fires"},
    {"watch", watch_site, METH_VARARGS, "watch(path, symbol, pristine) -> the bit of another probe"},
    {"interpreter", interpreter, METH_NOARGS, "interpreter() -> path of the file that holds the interpreter's code"},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    PyObject *all = PyTuple_New(COUNT);
    for (int number = 0; all && number < COUNT; number++) {
        PyObject *name = PyUnicode_FromString(names[number]);
        if (!name) Py_CLEAR(all);
        else PyTuple_SET_ITEM(all, number, name);
    }
    if (!all) return -1;
    int result = PyModule_AddObjectRef(module, "PROBES", all);
    Py_DECREF(all);
    if (result < 0 || PyModule_AddFunctions(module, watcher_methods) < 0 ||
        PyModule_AddFunctions(module, hook_methods) < 0 || PyModule_AddFunctions(module, event_methods) < 0 ||
        PyModule_AddFunctions(module, wrap_methods) < 0 || init_wraps(module) < 0)
        return -1;
    return init_hooks();
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "usdtkit._python",
    .m_doc = "The events of CPython as probes.",
    .m_methods = methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__python(void) { return PyModuleDef_Init(&module_definition); }
