"""GNU readline, in its library and in bash, which has a copy of it: leading arguments of its functions."""

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "readline": {"readline": (("prompt", "str"),), "add_history": (("line", "str"),)},
    "bash": {"readline": (("prompt", "str"),)},
}
