"""The arguments of PostgreSQL's probes, which builds with --enable-dtrace have.

Read through `usdtkit.signatures.known_arguments`; `usdtkit.providers.postgresql` traces them. Probes whose arguments
changed between releases (buffer reads) are left out, so that their arguments have numbers instead of wrong names.
"""

_QUERY = (("query", "str"),)
_TRANSACTION = (("transaction_id", "u32"),)
_LWLOCK = (("tranche", "str"), ("mode", "i32"))
_LOCK = (
    ("tag1", "u32"),
    ("tag2", "u32"),
    ("tag3", "u32"),
    ("tag4", "u16"),
    ("tag_type", "u8"),
    ("mode", "i32"),
)
_BLOCK = (("fork", "i32"), ("block", "u32"), ("tablespace", "u32"), ("database", "u32"), ("relation", "u32"))
_SMGR = (*_BLOCK, ("backend", "i32"))
_SMGR_DONE = (*_SMGR, ("bytes_done", "i32"), ("bytes_asked", "i32"))
_CHECKPOINT = (("is_checkpoint", "bool"),)

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "transaction__start": _TRANSACTION,
    "transaction__commit": _TRANSACTION,
    "transaction__abort": _TRANSACTION,
    "query__start": _QUERY,
    "query__done": _QUERY,
    "query__parse__start": _QUERY,
    "query__parse__done": _QUERY,
    "query__rewrite__start": _QUERY,
    "query__rewrite__done": _QUERY,
    "query__plan__start": (),
    "query__plan__done": (),
    "query__execute__start": (),
    "query__execute__done": (),
    "statement__status": (("status", "str"),),
    "lwlock__acquire": _LWLOCK,
    "lwlock__acquire__or__wait": _LWLOCK,
    "lwlock__acquire__or__wait__fail": _LWLOCK,
    "lwlock__condacquire": _LWLOCK,
    "lwlock__condacquire__fail": _LWLOCK,
    "lwlock__wait__start": _LWLOCK,
    "lwlock__wait__done": _LWLOCK,
    "lwlock__release": (("tranche", "str"),),
    "lock__wait__start": _LOCK,
    "lock__wait__done": _LOCK,
    "deadlock__found": (),
    "sort__start": (
        ("kind", "i32"),
        ("unique", "bool"),
        ("keys", "i32"),
        ("work_mem_kib", "i32"),
        ("random_access", "bool"),
        ("parallel", "i32"),
    ),
    "sort__done": (("external", "bool"), ("used", "i64")),
    "checkpoint__start": (("flags", "i32"),),
    "checkpoint__done": (
        ("buffers_written", "i32"),
        ("buffers", "i32"),
        ("wal_added", "i32"),
        ("wal_removed", "i32"),
        ("wal_recycled", "i32"),
    ),
    "clog__checkpoint__start": _CHECKPOINT,
    "clog__checkpoint__done": _CHECKPOINT,
    "subtrans__checkpoint__start": _CHECKPOINT,
    "subtrans__checkpoint__done": _CHECKPOINT,
    "multixact__checkpoint__start": _CHECKPOINT,
    "multixact__checkpoint__done": _CHECKPOINT,
    "buffer__flush__start": _BLOCK,
    "buffer__flush__done": _BLOCK,
    "smgr__md__read__start": _SMGR,
    "smgr__md__read__done": _SMGR_DONE,
    "smgr__md__write__start": _SMGR,
    "smgr__md__write__done": _SMGR_DONE,
    "wal__insert": (("resource_manager", "u8"), ("info", "u8")),
    "wal__switch": (),
}
