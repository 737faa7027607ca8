"""GnuTLS: leading arguments of the functions that carry data and shake hands (gnutls_record_send(3) and its like)."""

_TRANSFER = (("session", "pointer"), ("buffer", "pointer"), ("size", "u64"))
_SESSION = (("session", "pointer"),)

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "gnutls": {
        "gnutls_record_recv": _TRANSFER,
        "gnutls_record_recv_seq": (*_TRANSFER, ("sequence", "pointer")),
        "gnutls_record_send": _TRANSFER,
        "gnutls_record_send2": (*_TRANSFER, ("padding", "u64"), ("flags", "u32")),
        "gnutls_handshake": _SESSION,
        "gnutls_bye": (*_SESSION, ("how", "i32")),
        "gnutls_deinit": _SESSION,
    },
}
