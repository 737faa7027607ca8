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
