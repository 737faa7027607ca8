"""The C library: leading arguments of functions worth tracing. Read through `usdtkit.signatures.known_function`."""

_ADDRESS = (("address", "pointer"), ("length", "u32"), ("family", "i32"))
_PATH_FLAGS = (("path", "str"), ("flags", "i32"))
_BUFFER = (("fd", "i32"), ("buffer", "pointer"), ("size", "u64"))
_SOCKET_ADDRESS = (("fd", "i32"), ("address", "pointer"), ("length", "u32"))

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "c": {
        "getaddrinfo": (("node", "str"), ("service", "str")),
        "gethostbyname": (("name", "str"),),
        "gethostbyname_r": (("name", "str"),),
        "gethostbyname2": (("name", "str"), ("family", "i32")),
        "gethostbyname2_r": (("name", "str"), ("family", "i32")),
        "gethostbyaddr": _ADDRESS,
        "gethostbyaddr_r": _ADDRESS,
        "getnameinfo": (("address", "pointer"), ("length", "u32")),
        "malloc": (("size", "u64"),),
        "calloc": (("count", "u64"), ("size", "u64")),
        "realloc": (("block", "pointer"), ("size", "u64")),
        "free": (("block", "pointer"),),
        "posix_memalign": (("block", "pointer"), ("alignment", "u64"), ("size", "u64")),
        "aligned_alloc": (("alignment", "u64"), ("size", "u64")),
        "mmap": (("address", "pointer"), ("length", "u64"), ("protection", "i32"), ("flags", "i32"), ("fd", "i32")),
        "munmap": (("address", "pointer"), ("length", "u64")),
        "open": _PATH_FLAGS,
        "open64": _PATH_FLAGS,
        "openat": (("directory", "i32"), *_PATH_FLAGS),
        "fopen": (("path", "str"), ("mode", "str")),
        "close": (("fd", "i32"),),
        "read": _BUFFER,
        "write": _BUFFER,
        "send": (*_BUFFER, ("flags", "i32")),
        "recv": (*_BUFFER, ("flags", "i32")),
        "connect": _SOCKET_ADDRESS,
        "bind": _SOCKET_ADDRESS,
        "accept": (("fd", "i32"), ("address", "pointer"), ("length", "pointer")),
        "listen": (("fd", "i32"), ("backlog", "i32")),
        "getenv": (("name", "str"),),
        "system": (("command", "str"),),
        "execve": (("path", "str"), ("arguments", "pointer"), ("environment", "pointer")),
        "dlopen": _PATH_FLAGS,
        "dlsym": (("handle", "pointer"), ("name", "str")),
        "usleep": (("microseconds", "u32"),),
        "pthread_create": (
            ("thread", "pointer"),
            ("attributes", "pointer"),
            ("start", "pointer"),
            ("argument", "pointer"),
        ),
        "pthread_mutex_lock": (("mutex", "pointer"),),
        "pthread_mutex_unlock": (("mutex", "pointer"),),
    },
}

# Functions that call nothing of the program's and are never left but by their return.
RETURNS_ONLY = frozenset((
    *("malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc"),
    *("cfree", "reallocarray", "malloc_usable_size", "mmap", "mmap64", "munmap"),
    *("pthread_mutex_lock", "pthread_mutex_trylock", "pthread_mutex_unlock", "pthread_mutex_timedlock"),
    *("pthread_mutex_clocklock", "pthread_mutex_init", "pthread_mutex_destroy"),
    *("memcpy", "memmove", "memset", "memcmp", "memchr", "mempcpy", "strlen", "strnlen", "strcmp", "strncmp"),
    *("strcasecmp", "strncasecmp", "strcpy", "strncpy", "stpcpy", "strcat", "strncat", "strchr", "strrchr", "strstr"),
    *("strspn", "strcspn", "strdup", "strndup", "__memcpy_chk", "__memmove_chk", "__memset_chk", "__strcpy_chk"),
))  # fmt: skip

# Members of structures that functions take, on 64-bit Linux: (bytes from the beginning, type).
STRUCTURES: dict[str, dict[str, tuple[int, str]]] = {
    "timespec": {"tv_sec": (0, "i64"), "tv_nsec": (8, "i64")},
    "timeval": {"tv_sec": (0, "i64"), "tv_usec": (8, "i64")},
    "iovec": {"iov_base": (0, "u64"), "iov_len": (8, "u64")},
    "pollfd": {"fd": (0, "i32"), "events": (4, "i16"), "revents": (6, "i16")},
    "sockaddr": {"sa_family": (0, "u16")},
}

# Mutexes: where they are (in a library of their own before glibc 2.34), what takes one (0 is success; all but a try
# wait for it, the timed ones not for ever), what lets go of it, what does so for a while (with the mutex as argument
# 2), and between which calls an address is one and the same mutex.
MUTEX_LIBRARIES = ("c", "pthread")
MUTEX_LOCK, MUTEX_UNLOCK, MUTEX_TRY = "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_mutex_trylock"
MUTEX_TIMED = ("pthread_mutex_timedlock", "pthread_mutex_clocklock")
CONDITION_WAITS = ("pthread_cond_wait", "pthread_cond_timedwait", "pthread_cond_clockwait")
MUTEX_LIVES = ("pthread_mutex_init", "pthread_mutex_destroy")

# The functions of an allocator. Of each the numbers of the arguments whose product is the size; what they return is the
# block, but posix_memalign returns 0 for success and puts the block where its first argument points to.
ALLOCATE: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("malloc", "valloc", "pvalloc"), (1,)),
    **dict.fromkeys(("aligned_alloc", "memalign"), (2,)),
    "calloc": (1, 2),
}
REALLOCATE: dict[str, tuple[int, ...]] = {"realloc": (2,), "reallocarray": (2, 3)}  # of the block that is argument 1
POSIX_MEMALIGN: dict[str, tuple[int, ...]] = {"posix_memalign": (3,)}
FREE: dict[str, tuple[int, ...]] = {"free": ()}  # of the block that is argument 1
# Of C++: libstdc++'s call malloc and free, an allocator's own need not. Mangled, with globs for their variants.
NEW: dict[str, tuple[int, ...]] = {"_Znwm*": (1,), "_Znam*": (1,)}
DELETE: dict[str, tuple[int, ...]] = {"_ZdlPv*": (), "_ZdaPv*": ()}
MAP: dict[str, tuple[int, ...]] = {"mmap": (2,)}  # it returns -1 where it fails
UNMAP = ("munmap",)
