"""PAM, the pluggable authentication modules: leading arguments of libpam's functions, and what they return."""

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

PAM_USER = 2  # the item of pam_set_item

# By number, as Linux-PAM's _pam_types.h defines them.
RESULTS = (
    *("PAM_SUCCESS", "PAM_OPEN_ERR", "PAM_SYMBOL_ERR", "PAM_SERVICE_ERR", "PAM_SYSTEM_ERR", "PAM_BUF_ERR"),
    *("PAM_PERM_DENIED", "PAM_AUTH_ERR", "PAM_CRED_INSUFFICIENT", "PAM_AUTHINFO_UNAVAIL", "PAM_USER_UNKNOWN"),
    *("PAM_MAXTRIES", "PAM_NEW_AUTHTOK_REQD", "PAM_ACCT_EXPIRED", "PAM_SESSION_ERR", "PAM_CRED_UNAVAIL"),
    *("PAM_CRED_EXPIRED", "PAM_CRED_ERR", "PAM_NO_MODULE_DATA", "PAM_CONV_ERR", "PAM_AUTHTOK_ERR"),
    *("PAM_AUTHTOK_RECOVERY_ERR", "PAM_AUTHTOK_LOCK_BUSY", "PAM_AUTHTOK_DISABLE_AGING", "PAM_TRY_AGAIN"),
    *("PAM_IGNORE", "PAM_ABORT", "PAM_AUTHTOK_EXPIRED", "PAM_MODULE_UNKNOWN", "PAM_BAD_ITEM", "PAM_CONV_AGAIN"),
    "PAM_INCOMPLETE",
)
