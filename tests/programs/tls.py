"""A TLS server with a certificate of its own, on loopback, in Debian's Python: pytest fixture `tls`."""

import shutil
import subprocess
import sys

import pytest
from processes import read_until

SUBJECT = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
BODY = "marmalade " * 99 + "1234567"  # 997 bytes
ANSWER = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n{BODY}"
# Prints its port, then a line a connection: how many bytes the request had, or that there was none. The answer is one
# call. It lets the client close first, or what the client has not read yet might be lost.
SERVE = """
import socket, ssl, sys
certificate, key, answer = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as client:
            request = b""
            while not request.endswith(b"\\r\\n\\r\\n") and (part := client.recv(4096)):
                request += part
            client.sendall(answer.encode())
            print("request", len(request), flush=True)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    except OSError as error:
        print("refused", type(error).__name__, flush=True)
"""


# Clients through other builds of libcurl than the command's: CURLOPT_URL, CURLOPT_SSL_VERIFYPEER.
LIBCURL = """
import ctypes, sys
curl = ctypes.CDLL(sys.argv[1])
curl.curl_easy_init.restype = ctypes.c_void_p
handle = ctypes.c_void_p(curl.curl_easy_init())
curl.curl_easy_setopt(handle, 10002, ctypes.c_char_p(sys.argv[2].encode()))
curl.curl_easy_setopt(handle, 64, ctypes.c_long(int(sys.argv[3])))
sys.exit(curl.curl_easy_perform(handle))
"""
NODE = """
require('https').get(process.argv[1], {rejectUnauthorized: false}, answer => {
  answer.setEncoding('utf8'); answer.on('data', part => process.stdout.write(part)) })
"""
PYTHON = """
import socket, ssl, sys
context = ssl._create_unverified_context()
with context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])))) as server:
    server.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    while part := server.recv(100):
        sys.stdout.write(part.decode())
"""
LIBRARIES = {
    "curl": "openssl",
    "python": "openssl",
    "s_client": "openssl",
    "node": "openssl",
    "libcurl-gnutls": "gnutls",
    "libcurl-nss": "nss",
}
"""Clients by their names, and the libraries that they use."""


class TlsServer:
    """`pid`, `port`, `url`, `certificate` (a file); `answer`, what it says to everybody."""

    answer = ANSWER

    def __init__(self, process, port, certificate):
        self.pid, self.port, self.certificate = process.pid, port, certificate
        self.url = f"https://127.0.0.1:{port}/"
        self._process = process

    def client(self, name, verify=False):
        """The command of a client that fetches the answer once, and prints it."""
        match name:
            case "curl":
                return ["curl", "--silent", *([] if verify else ["--insecure"]), self.url]
            case "python":
                return [sys.executable, "-c", PYTHON, str(self.port)]
            case "s_client":
                ask = (
                    f"printf 'GET / HTTP/1.1\\r\\n\\r\\n' | exec openssl s_client -quiet -connect 127.0.0.1:{self.port}"
                )
                return ["sh", "-c", ask]
            case "node":
                return ["node", "-e", NODE, self.url]
            case _:
                return [sys.executable, "-c", LIBCURL, f"{name}.so.4", self.url, str(int(verify))]

    def served(self):
        """Wait for the next connection to be served; the bytes of its request."""
        return int(read_until(self._process, "request").split()[1])

    def refused(self):
        """Wait for the next connection that came to nothing."""
        read_until(self._process, "refused")


def extra_library(client):
    """Options for a client with OpenSSL in itself, as some builds of Node have it: what does not run yet is named."""
    node = shutil.which("node")
    if client != "node" or b" T SSL_read\n" not in subprocess.run(["nm", "-D", node], capture_output=True).stdout:
        return []
    return ["--extra-lib", f"openssl:{node}"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key): files, for localhost, self-signed."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run([*request, *SUBJECT, "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


@pytest.fixture
def tls(certificate, spawn):
    process = spawn([sys.executable, "-c", SERVE, *certificate, ANSWER])
    return TlsServer(process, int(read_until(process, "port").split()[1]), certificate[0])
