"""GNU readline, in its library and in bash, which has its own copy: leading arguments of what reads a line."""

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "readline": {"readline": (("prompt", "str"),), "add_history": (("line", "str"),)},
    "bash": {"readline": (("prompt", "str"),)},
}
