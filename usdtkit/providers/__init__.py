"""What usdtkit knows of other software, and how to measure it: one module for each kind of software.

    from usdtkit import trace
    from usdtkit.providers import mysql
    from usdtkit.trace import latency, ms

    with trace.Session(pid=4711) as session:
        mysql.queries(session).where(latency > ms(5)).emit("query", "latency")
        for event in session:
            print(event.latency_ns, event.query)

Input: a session that has not started yet, and typed arguments. Output: sources of that session, which take conditions
and actions like any other source, and classes that turn events into the values that a tool shows. A function looks for
the software in the processes of the session, or in the program of its command. If the session names neither, it looks
at all processes that run here. It raises NotFoundError if there is nothing to measure.

Import the module that you need, such as `usdtkit.providers.mysql`: this package itself imports none of them. Nothing in
it prints or parses options, and nothing depends on how the results are shown. The tables of argument names and types
are in `usdtkit.signatures`, because the readers of files use them too.
"""
