"""OpenSSL's libssl: leading arguments of the functions that carry data and shake hands (SSL_read(3) and its like)."""

_TRANSFER = (("ssl", "pointer"), ("buffer", "pointer"), ("size", "i32"))
_COUNTED = (("ssl", "pointer"), ("buffer", "pointer"), ("size", "u64"), ("transferred", "pointer"))
_HANDLE = (("ssl", "pointer"),)

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "ssl": {
        "SSL_read": _TRANSFER,
        "SSL_peek": _TRANSFER,
        "SSL_write": _TRANSFER,
        "SSL_read_ex": _COUNTED,
        "SSL_peek_ex": _COUNTED,
        "SSL_write_ex": _COUNTED,
        "SSL_do_handshake": _HANDLE,
        "SSL_connect": _HANDLE,
        "SSL_accept": _HANDLE,
        "SSL_shutdown": _HANDLE,
        "SSL_clear": _HANDLE,
        "SSL_free": _HANDLE,
    },
}
