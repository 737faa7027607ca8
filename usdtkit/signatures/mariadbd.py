"""MariaDB's server, the program mariadbd: how its functions end."""

# The function that runs each command of a client, as versions from 10.5 on, 10.2 to 10.4, and earlier ones declare it.
# The server catches exceptions within it or not at all, and an exception that nobody catches ends the program where it
# is thrown. It uses none of pthread_exit, pthread_cancel, longjmp and swapcontext, so nothing else comes out of it.
RETURNS_ONLY = frozenset(
    (
        "_Z16dispatch_command19enum_server_commandP3THDPcjb",
        "_Z16dispatch_command19enum_server_commandP3THDPcjbb",
        "_Z16dispatch_command19enum_server_commandP3THDPcj",
    )
)
