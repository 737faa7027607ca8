"""A client of PostgreSQL that sends each message of the extended protocol as it is told to, and no other."""

import socket
import struct
from contextlib import suppress


class Wire:
    """A connection to a server: messages are collected, and sent by `send`."""

    def __init__(self, server, user="postgres", database="postgres"):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(f"{server.environment['PGHOST']}/.s.PGSQL.5432")
        self._stream = self._socket.makefile("rb")
        self._pending = b""
        words = b"\0".join(word.encode() for word in ("user", user, "database", database, "", ""))
        self._socket.sendall(struct.pack("!ii", len(words) + 8, 196608) + words)
        self.pid = 0  # of the backend, which says it before it is ready
        self.read()

    def message(self, type, *parts):
        """Collect one message: parts are texts, which end with a NUL, or bytes."""
        body = b"".join(part if isinstance(part, bytes) else part.encode() + b"\0" for part in parts)
        self._pending += type.encode() + struct.pack("!i", len(body) + 4) + body
        return self

    def query(self, text):
        return self.message("Q", text)

    def parse(self, text, name=""):
        return self.message("P", name, text, b"\0\0")

    def bind(self, name="", portal="", *values):
        texts = [value.encode() for value in values]
        counted = b"".join(struct.pack("!i", len(text)) + text for text in texts)
        return self.message("B", portal, name, b"\0\0", struct.pack("!h", len(texts)), counted, b"\0\0")

    def describe(self, name=""):
        return self.message("D", b"S", name)

    def execute(self, portal="", rows=0):
        return self.message("E", portal, struct.pack("!i", rows))

    def flush(self):
        return self.message("H")

    def sync(self):
        return self.message("S")

    def call(self, function, *arguments):
        """A function by its OID, with arguments of four bytes."""
        counted = b"".join(struct.pack("!ii", 4, argument) for argument in arguments)
        return self.message("F", struct.pack("!ihhh", function, 1, 1, len(arguments)), counted, struct.pack("!h", 1))

    def send(self):
        self._socket.sendall(self._pending)
        self._pending = b""
        return self

    def read(self, until="Z"):
        """The types of the messages that come, up to one of type `until` (ReadyForQuery)."""
        types = ""
        while not types.endswith(until):
            header = self._stream.read(5)
            if len(header) < 5:
                break
            body = self._stream.read(struct.unpack("!i", header[1:])[0] - 4)
            types += chr(header[0])
            if types[-1] == "K":
                self.pid = struct.unpack_from("!i", body)[0]
        return types

    def run(self):
        """Send what is collected, with a Sync, and return the types of what comes."""
        return self.sync().send().read()

    def close(self):
        """End the connection, and await the end of the backend."""
        with suppress(OSError):  # the backend has ended it
            self._socket.sendall(b"X\0\0\0\4")
            self._stream.read()
        self._stream.close()
        self._socket.close()
