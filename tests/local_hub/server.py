"""The HTTP side of the local Hub: reads requests, knows who asks, records them, sends answers.

Covered: HTTP/1.1 with kept connections and chunked bodies, requests that fail on order in several ways, and refusing what a
client sends to other hosts when this server is its proxy. Not covered: TLS, compression.
"""

import json
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from .routes import Request, Response, answer, refused
from .store import RefusedError, Store

READ_ONLY = ":ro"


FaultKind = Literal["refuse", "drop", "stall", "lose"]


@dataclass(slots=True)
class Fault:
    """An order for the next `left` requests whose path and query contain `path`.

    refuse: answer with `status`. drop: read `bytes_read` of the body and break the connection. stall: never answer. lose:
    do what is asked, and break the connection instead of answering.
    """

    left: int
    path: str
    kind: FaultKind
    status: int = 503
    message: str = "This request was told to fail"
    headers: Mapping[str, str] = field(default_factory=dict)
    bytes_read: int = 0


class HubServer(ThreadingHTTPServer):
    """A listening Hub on a free port of 127.0.0.1; `tokens` maps a token to `user`, or to `user:ro` to only read."""

    # server_close() waits for these threads, so that none outlives the test that started them.
    daemon_threads = False

    def __init__(self, tokens: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = Store()
        self.tokens = dict(tokens)
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._connections: set[socket.socket] = set()

    def next_fault(self, method: str, target: str) -> Fault | None:
        """Record a request, and tell what must go wrong with it, if anything must."""
        with self.store.lock:
            self.requests.append((method, target))
            for fault in self.faults:
                if fault.left > 0 and fault.path in target:
                    fault.left -= 1
                    return fault
        return None

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and remember it so that `server_close` can end it."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Forget and close a connection."""
        if isinstance(request, socket.socket):
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """End all connections, kept ones too, and wait for their threads."""
        self.closing.set()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster
        super().server_close()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Stay silent about clients that hang up, as killed ones do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: the server's list of requests takes the place of a log."""

    def handle_method(self) -> None:
        """Answer one request of any method."""
        fault = self.server.next_fault(self.command, self.path)
        kind = fault.kind if fault else None
        if fault and kind == "drop":
            self.rfile.read(fault.bytes_read)
            return self._break_connection()
        body = self._read_body()
        if kind == "stall":
            self.server.closing.wait()
            return self._break_connection()
        try:
            if fault and kind == "refuse":
                raise RefusedError(fault.status, fault.message)
            request = self._request(body)
            with self.server.store.lock:
                response = answer(request)
        except RefusedError as refusal:
            response = refused(refusal)
        if kind == "lose":
            return self._break_connection()
        return self._send(response, fault.headers if fault else {})

    def _break_connection(self) -> None:
        """End it as a router does that has forgotten it: with a reset, whatever is still on its way."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _request(self, body: bytes) -> Request:
        target = urlsplit(self.path)
        if not self.path.startswith("/"):
            raise RefusedError(403, f"{self.command} {self.path} leaves the machine")
        user, may_write = self._identity()
        return Request(
            store=self.server.store,
            base_url=self.server.url,
            method=self.command,
            path=target.path,
            query=parse_qs(target.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            user=user,
            may_write=may_write,
        )

    def _identity(self) -> tuple[str | None, bool]:
        header = self.headers.get("Authorization")
        if header is None:
            return None, False
        name = self.server.tokens.get(header.removeprefix("Bearer "))
        if name is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return name.removesuffix(READ_ONLY), not name.endswith(READ_ONLY)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, response: Response, more_headers: Mapping[str, str]) -> None:
        if isinstance(response.body, bytes):
            body, content_type = response.body, "application/octet-stream"
        else:
            body, content_type = json.dumps(response.body).encode(), "application/json"
        self.send_response(response.status)
        own = {"Content-Type": content_type, "Content-Length": str(len(body))}
        for name, value in (own | dict(response.headers) | dict(more_headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


# CONNECT comes from clients that use this server as a proxy.
for _method in ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT"):
    setattr(_Handler, f"do_{_method}", _Handler.handle_method)
