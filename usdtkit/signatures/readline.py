"""GNU readline, in its library and in bash, which has its own copy: what returns the line that somebody entered."""

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "readline": {"readline": (("prompt", "str"),), "add_history": (("line", "str"),)},
    "bash": {"readline": (("prompt", "str"),)},
}

# Returns the line, NULL at the end of the input. Not called by programs that use the callback interface.
READLINE = "readline"
# In libreadline (since 4.2) both interfaces end here, and it returns the same. In bash it may be inlined.
CALLBACK_TOO = "readline_internal_teardown"
