"""PAM, the pluggable authentication modules: leading arguments of libpam's functions."""

_HANDLE = (("handle", "pointer"),)
_FLAGS = (*_HANDLE, ("flags", "i32"))

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "pam": {
        "pam_start": (("service", "str"), ("user", "str"), ("conversation", "pointer"), ("result", "pointer")),
        "pam_authenticate": _FLAGS,
        "pam_acct_mgmt": _FLAGS,
        "pam_setcred": _FLAGS,
        "pam_chauthtok": _FLAGS,
        "pam_open_session": _FLAGS,
        "pam_close_session": _FLAGS,
        "pam_set_item": (*_HANDLE, ("item", "i32"), ("value", "pointer")),
        "pam_end": (*_HANDLE, ("status", "i32")),
    },
}
